"""Settings of an online training run, and their named starting points (`tdmpc2 train --preset NAME`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tdmpc2_core.config import setting
from tdmpc2_core.envs.registry import env_spec, known_task
from tdmpc2_core.envs.robot.env import EnvOptions
from tdmpc2_core.errors import UserError
from tdmpc2_core.learning.actor import ActorOptions
from tdmpc2_core.learning.learner import LearnerConfig
from tdmpc2_core.learning.losses import discount_for
from tdmpc2_core.planning.planners import PlannerConfig, planner_preset

LogTo = Literal["csv", "tensorboard", "wandb"]
LOG_WHY = "where rows go beside the CSV tables; tensorboard and wandb need the extra of that name"
"""Of the setting `log` that every trainer has."""


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
    task: str | None = setting(
        None, why="task instead of a robot, such as walker-walk; gym:ID or MODULE:NAME of Gymnasium"
    )
    out: Path | None = setting(
        None, why="run folder: checkpoints, episodes, logs; runs/NAME of the robot or task if absent"
    )
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
    log: LogTo = setting("csv", why=LOG_WHY)
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
        """What `make_env` takes: the robot or the task. Raises UserError when there is no such task."""
        return known_task(self.task) if self.task else self.robot or ""

    @property
    def folder(self) -> Path:
        """That of the run. Raises UserError when there is no such robot or task."""
        return self.out or Path("runs") / env_spec(self.environment).name.replace("/", "-").replace(":", "-")


PRESETS = ("robot", "dmcontrol", "paper")


def train_preset(name: str | None, robot: str | None = None, task: str | None = None) -> TrainConfig:
    """Settings of a preset for a robot or a benchmark task; the quadruped where neither is given.

    ``robot``: small model, n-step values, normalised observations, several environments; demonstrations,
    where the robot has a scripted controller.
    ``dmcontrol``: a model of half the widths for benchmark tasks on two cores; a seed phase instead of
    demonstrations.
    ``paper``: the settings of TD-MPC2 (Hansen et al., 2024, appendix): model size 5, one environment, one
    update per decision, a seed phase of random actions followed by as many updates, 512 x 6 planning,
    discount by episode length.
    None: ``dmcontrol`` for a task, ``robot`` for a robot.

    Raises:
        UserError: the robot or the task is unknown, both are given, or a package is not installed.
        ValueError: the preset is unknown.
    """
    if name not in (None, *PRESETS):
        raise ValueError(f"unknown training preset {name!r}; accepted: {', '.join(PRESETS)}")
    if robot is not None and task is not None:
        raise UserError(f"robot={robot} and task={task} are given; a run has one of the two")
    base = TrainConfig(robot=robot, task=task)
    spec = env_spec(base.environment)
    without = replace(base, demonstration_steps=0, pretrain_updates=0, planner_from=0)
    if (name or ("dmcontrol" if task else "robot")) == "robot":
        return base if spec.embodiment and spec.embodiment.demonstration else without
    discount = discount_for(spec.episode_length)
    if name != "paper":
        return replace(
            without,
            model_size="tiny",
            num_envs=4,
            replay_capacity=200_000,
            random_steps=4 * spec.episode_length,
            random_hold=5,
            log_every=1_000,
            eval_every=2_500,
            eval_episodes=4,
            checkpoint_every=2_500,
            learner=LearnerConfig(n_step=3, discount=discount, batch_size=128),
            planner=replace(planner_preset("tiny"), prior_weight=0.5),
        )
    return replace(
        without,
        model_size="5",
        normalise_observations=False,
        num_envs=1,
        updates_per_step=1.0,
        replay_capacity=1_000_000,
        replay_sampling="episodes",
        random_steps=max(1000, 5 * spec.episode_length),
        learner=LearnerConfig(discount=discount),
        planner=planner_preset("paper", spec.action_dim),
    )
