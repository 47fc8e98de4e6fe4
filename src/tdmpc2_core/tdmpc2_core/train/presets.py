"""Named starting points of a training run: `tdmpc2 train --preset NAME`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tdmpc2_core.envs.registry import env_spec
from tdmpc2_core.errors import UserError
from tdmpc2_core.learning.config import LearnerConfig
from tdmpc2_core.learning.returns import discount_for
from tdmpc2_core.planning.config import planner_preset
from tdmpc2_core.train.config import TrainConfig

PRESETS = ("robot", "dmcontrol", "paper")


def train_preset(name: str | None, robot: str | None = None, task: str | None = None) -> TrainConfig:
    """Settings of a preset for a robot or a benchmark task; the quadruped where neither is given.

    ``robot``: small model, demonstrations, n-step values, normalised observations, several environments.
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
    if task is not None:
        base = replace(base, out=Path("runs") / task)
    if (name or ("dmcontrol" if task else "robot")) == "robot":
        return base
    spec = env_spec(base.environment)
    discount = discount_for(spec.episode_length)
    without = replace(base, demonstration_steps=0, pretrain_updates=0, planner_from=0)
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
