"""Settings of an online training run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tdmpc2_core.config import setting
from tdmpc2_core.envs.robot import EnvOptions
from tdmpc2_core.learning.actor import ActorOptions
from tdmpc2_core.learning.config import LearnerConfig
from tdmpc2_core.planning.config import PlannerConfig, planner_preset


def robot_learner() -> LearnerConfig:
    """What differs from the paper for a robot on little compute: n-step values, a prior tied to the planner,
    foresight of about a second at 50 Hz."""
    return LearnerConfig(
        n_step=3,
        discount=0.98,
        soft_termination=True,
        actor=ActorOptions(objective="tdmpc_square", scale_threshold=0.0, plan_weight=0.05),
    )


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run; saved beside its checkpoints and read back on resume."""

    robot: str | None = setting(
        None, why="shipped robot, or path of an embodiment folder or file; quadruped without a task"
    )
    task: str | None = setting(None, why="benchmark task instead of a robot, such as walker-walk")
    out: Path = setting(Path("runs/quadruped"), why="run folder: checkpoints, episodes, logs")
    seed: int = setting(1, low=0, why="seeds environments, replay draws, initial weights")
    steps: int = setting(150_000, unit="agent steps", above=0, why="decisions over all environments")
    device: str = setting(
        "auto", why="torch device of model, planner and replay; auto: a GPU where there is one"
    )
    threads: int = setting(
        1, low=0, why="torch threads; 0 leaves torch's choice. More than the free cores is slower"
    )

    matmul_precision: Literal["highest", "high", "medium"] = setting(
        "highest", why="of float32 products; medium rounds to bfloat16 where the processor has units for it"
    )

    model_size: Literal["tiny", "robot", "1", "5", "19", "48", "317"] = setting(
        "robot", why="row of the architecture table"
    )
    normalise_observations: bool = setting(True, why="running mean and std inside the model; robots need it")
    num_envs: int = setting(8, low=1, why="robots simulated side by side; their plans are one batch")
    updates_per_step: float = setting(
        0.5, above=0, unit="updates per agent step", why="1 in the paper; less saves time"
    )
    replay_capacity: int = setting(500_000, low=1000, unit="decisions", why="over all environments")
    replay_sampling: Literal["decisions", "episodes"] = setting(
        "decisions", why="drawn with equal weight; episodes is the official code, which over-draws short ones"
    )

    demonstration_steps: int = setting(
        40_000, low=0, unit="agent steps", why="scripted gait before learning starts"
    )
    demonstration_share: float = setting(0.5, low=0, high=1, why="of every batch at first")
    demonstration_share_end: float = setting(
        0.1, low=0, high=1, why="of every batch from demonstration_anneal on"
    )
    demonstration_anneal: int = setting(
        60_000, low=1, unit="agent steps", why="demonstration_share and dagger_share fall linearly until then"
    )
    demonstration_std: float = setting(
        0.05, above=0, unit="normalised action", why="spread of the demonstrated plan"
    )
    dagger_steps: int = setting(
        0,
        low=0,
        unit="agent steps",
        why="until then the scripted controller labels what the policy prior does; no planner acts (DAgger)",
    )
    dagger_share: float = setting(
        0.5,
        low=0,
        high=1,
        why="of those decisions, made by the scripted controller itself at first; 0 at last",
    )
    pretrain_updates: int = setting(3_000, low=0, why="on demonstrations alone, before the first own step")
    random_steps: int = setting(
        0,
        low=0,
        unit="agent steps",
        why="uniform random actions first, then as many updates: the paper's seed phase",
    )
    random_hold: int = setting(
        1, low=1, unit="decisions", why="a random action lasts; 1 is the paper, more moves further"
    )

    planner_from: int = setting(
        15_000, low=0, unit="agent steps", why="before it the policy prior acts alone"
    )
    log_every: int = setting(2_000, above=0, unit="agent steps", why="rows of train.csv")
    eval_every: int = setting(15_000, above=0, unit="agent steps", why="evaluation on the fixed course")
    eval_seconds: float = setting(
        10.0, above=0, unit="s", why="length of a robot's evaluation episode; those of tasks are whole"
    )
    eval_episodes: int = setting(8, low=1, why="evaluated side by side")
    checkpoint_every: int = setting(5_000, above=0, unit="agent steps", why="what a kill can cost in updates")

    env: EnvOptions = field(default_factory=EnvOptions)
    learner: LearnerConfig = field(default_factory=robot_learner)
    planner: PlannerConfig = field(
        default_factory=lambda: replace(
            planner_preset("tiny"), prior_weight=1.0, min_std=0.1, soft_termination=True
        )
    )

    def __post_init__(self) -> None:
        if self.robot is not None and self.task is not None:
            raise ValueError(f"robot is {self.robot!r} and task is {self.task!r}; give one of the two")
        if self.robot is None and self.task is None:
            object.__setattr__(self, "robot", "quadruped")

    @property
    def environment(self) -> str:
        """What `make_env` takes: the robot or the task."""
        return self.task or self.robot or ""
