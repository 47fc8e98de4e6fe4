"""Settings of fine-tuning, and what a caller is told of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

from tdmpc2_core.config import check_fields, setting
from tdmpc2_core.learning.dynamics import DynamicsConfig
from tdmpc2_core.learning.expert import CriticConfig
from tdmpc2_core.learning.learner import LearnerConfig
from tdmpc2_core.learning.prior import PriorConfig
from tdmpc2_core.train.collect import SimulationConfig
from tdmpc2_core.train.student import student_learner
from tdmpc2_core.train.train_config import robot_learner

RecordedMode = Literal["dynamics", "residual", "full"]
"""Modes that learn from the recording; `refresh` learns in simulation."""
Mode = RecordedMode | Literal["refresh"]


def _careful_learner() -> LearnerConfig:
    """That of a robot, moving slower: it starts from what is good already."""
    return replace(robot_learner(), lr=1e-4)


def _settling_learner() -> LearnerConfig:
    """That of a student, moving slower."""
    return replace(student_learner(), lr=1e-4)


@dataclass(frozen=True)
class RefreshConfig:
    """The mode `refresh`: prior and values learn in simulation; see `train/finetune_refresh.py`."""

    robots: int = setting(192, low=1, why="simulated side by side")
    decisions: int = setting(24, low=2, unit="decisions", why="per robot and rollout")
    nominal: float = setting(
        0.25, low=0, below=1, why="share of the robots that are not the identified one but the bundle's own"
    )
    rollouts: int = setting(400, low=1, why="after each of which the prior improves")
    warm_up: int = setting(12, low=0, why="of those, in which its critic alone learns")
    following: float = setting(
        3.0, above=0, why="factor on the rewards of following the command while the prior learns"
    )
    settling: int = setting(
        60,
        low=0,
        why="rollouts with the prior held, from which the model learns",
    )
    updates: int = setting(8, low=1, why="of the model, after each of these")
    prior_std: float = setting(0.05, above=0, unit="normalised action", why="of the prior, as a student's")
    check_every: int = setting(20, low=1, unit="rollouts", why="what a kill can cost")
    prior: PriorConfig = field(default_factory=PriorConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    learner: LearnerConfig = field(default_factory=_settling_learner)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class FineTuneConfig:
    """How to fine-tune; the defaults are for about five minutes of one robot."""

    mode: str = setting(
        "auto",
        accepted=("dynamics", "residual", "full", "refresh", "auto"),
        why="what learns: the dynamics, a residual on them, everything, or prior and values in --sim-robot; "
        "auto: the better of the first two",
    )
    updates: int = setting(2000, above=0, why="learner updates at most, of each mode that is tried")
    max_seconds: float = setting(0.0, low=0, unit="s", why="of learning; end earlier; 0: no limit")
    seed: int = setting(0, low=0, why="of batches, learner and simulation")
    threads: int = setting(0, low=0, why="of torch; 0 leaves them as they are")
    batch_size: int = setting(256, above=0, why="windows per update")
    mix_sim: float = setting(
        0.5, low=0, below=1, why="share of every batch from the robot's simulation, against forgetting"
    )
    held_out: float = setting(
        0.25, above=0, below=1, why="share of the recording, at the end of every period, not learned from"
    )
    check_every: int = setting(100, above=0, unit="updates", why="looks at the held-out data for stopping")
    patience: int = setting(5, above=0, why="such looks without a new lowest error end a mode")
    max_shift: float = setting(
        0.2, above=0, unit="normalised action", why="actions that move further on average are refused"
    )
    sim_robot: Path | None = setting(
        None, why="embodiment folder of a simulation fitted to the robot: a comparison in it decides"
    )
    sim_robots: int = setting(48, low=2, why="pairs of robots in that comparison")
    sim_seconds: float = setting(20.0, above=0, unit="s", why="for which each of them runs")
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    refresh: RefreshConfig = field(default_factory=RefreshConfig)
    learner: LearnerConfig = field(default_factory=_careful_learner)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """What is tried."""
        return ("dynamics", "residual") if self.mode == "auto" else (cast(Mode, self.mode),)


@dataclass(frozen=True)
class FineTuneProgress:
    """Where it stands; `loss` is the mean training loss since the last report."""

    updates: int
    total: int
    loss: float
    seconds: float
    stage: str = "training"  # or simulating, checking


@dataclass(frozen=True)
class FineTuneResult:
    """What came of it.

    Attributes:
        mode: the one that was judged best.
        updates: that it learned for; seconds: of the whole run.
        loss_before, loss_after: open-loop error on held-out data, mean over the horizon, in variances of the
            latent.
        ended_by: early stopping, updates, time, or request.
        reasons: why nothing was written; empty where the bundle was.
        report: report.json.
    """

    mode: Mode
    updates: int
    seconds: float
    loss_before: float
    loss_after: float
    ended_by: str
    reasons: tuple[str, ...]
    report: Path

    @property
    def improved(self) -> bool:
        """Whether a bundle was written."""
        return not self.reasons
