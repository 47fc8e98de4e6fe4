"""Named starting points of a training run: `tdmpc2 train --preset NAME`."""

from __future__ import annotations

from dataclasses import replace

from tdmpc2_core.learning.config import LearnerConfig
from tdmpc2_core.learning.returns import discount_for
from tdmpc2_core.planning.config import planner_preset
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.train.config import TrainConfig

PRESETS = ("robot", "paper")


def train_preset(name: str, robot: str = "quadruped") -> TrainConfig:
    """Settings of a preset for ``robot``.

    ``robot``: small model, demonstrations, n-step values, normalised observations, several environments.
    ``paper``: the settings of TD-MPC2 (Hansen et al., 2024, appendix): model size 5, one environment, one
    update per decision, a seed phase of random actions followed by as many updates, 512 x 6 planning,
    discount by episode length.

    Raises:
        UserError: the robot is unknown.
        ValueError: the preset is unknown.
    """
    if name == "robot":
        return replace(TrainConfig(), robot=robot)
    if name != "paper":
        raise ValueError(f"unknown training preset {name!r}; accepted: {', '.join(PRESETS)}")
    embodiment = Embodiment.load(robot)
    length = round(embodiment.episode_seconds * embodiment.control_rate)
    return TrainConfig(
        robot=robot,
        model_size="5",
        normalise_observations=False,
        num_envs=1,
        updates_per_step=1.0,
        replay_capacity=1_000_000,
        demonstration_steps=0,
        pretrain_updates=0,
        random_steps=max(1000, 5 * length),
        planner_from=0,
        learner=LearnerConfig(discount=discount_for(length)),
        planner=planner_preset("paper", embodiment.action_dim),
    )
