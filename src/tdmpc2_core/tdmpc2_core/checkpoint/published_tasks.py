"""Tasks of the published TD-MPC2 checkpoints: sizes, episode lengths, and the order of mt30 and mt80.

Sources: TD-MPC2 paper, appendix C (task sets); observation and action lengths as measured with dm_control.
"""

from __future__ import annotations

from dataclasses import dataclass

from tdmpc2_core.envs.gymnasium import METAWORLD
from tdmpc2_core.learning.losses import discount_for


@dataclass(frozen=True)
class PublishedTask:
    """obs_dim, action_dim: entries. episode_length: decisions. control_period: s per decision, or None."""

    obs_dim: int
    action_dim: int
    episode_length: int
    control_period: float | None = None

    @property
    def discount(self) -> float:
        """Per-decision discount that the task was trained with."""
        return discount_for(self.episode_length)


_DMCONTROL = {  # name prefix: observation, action, ms of one control step (two of them make a decision)
    "walker": (24, 6, 25),
    "cheetah": (17, 6, 10),
    "reacher-three": (8, 3, 20),
    "reacher": (6, 2, 20),
    "acrobot": (6, 1, 10),
    "pendulum": (3, 1, 20),
    "cartpole": (5, 1, 10),
    "cup": (8, 2, 20),
    "finger-spin": (9, 2, 20),
    "finger-turn": (12, 2, 20),
    "fish": (24, 5, 40),
    "hopper": (15, 4, 20),
    "quadruped": (78, 12, 20),
    "humanoid": (67, 21, 25),
    "dog": (223, 38, 15),
}

_DMCONTROL_30 = (
    "walker-stand walker-walk walker-run cheetah-run reacher-easy reacher-hard acrobot-swingup "
    "pendulum-swingup cartpole-balance cartpole-balance-sparse cartpole-swingup cartpole-swingup-sparse "
    "cup-catch finger-spin finger-turn-easy finger-turn-hard fish-swim hopper-stand hopper-hop "
    "walker-walk-backwards walker-run-backwards cheetah-run-backwards cheetah-run-front cheetah-run-back "
    "cheetah-jump hopper-hop-backwards reacher-three-easy reacher-three-hard cup-spin pendulum-spin"
)

MT30 = tuple(_DMCONTROL_30.split())
"""Tasks of the mt30 checkpoints in the order of the task index."""

MT80 = MT30 + METAWORLD
"""Tasks of the mt80 checkpoints in the order of the task index."""

TASK_SETS: dict[str, tuple[str, ...]] = {"mt30": MT30, "mt80": MT80}
"""Published task sets by name."""

_OTHERS = {
    "lift-cube": PublishedTask(42, 4, 100),
    "pick-cube": PublishedTask(51, 4, 100),
    "stack-cube": PublishedTask(55, 4, 100),
    "pick-ycb": PublishedTask(67, 7, 100),
    "turn-faucet": PublishedTask(40, 7, 100),
    "myo-key-turn": PublishedTask(93, 39, 100),
    "myo-obj-hold": PublishedTask(91, 39, 100),
    "myo-pen-twirl": PublishedTask(83, 39, 100),
    "myo-pose": PublishedTask(108, 39, 100),
    "myo-reach": PublishedTask(115, 39, 100),
}


def published_task(name: str) -> PublishedTask | None:
    """Sizes and lengths of a task by its published name, such as ``walker-walk``; None when it is unknown."""
    if name.startswith("mw-") and name in MT80:
        return PublishedTask(39, 4, 100)
    other = _OTHERS.get(name.removesuffix("-hard"))
    if other is not None:
        return other
    for prefix, (obs, action, milliseconds) in _DMCONTROL.items():
        if f"{name}-".startswith(f"{prefix}-"):
            return PublishedTask(obs, action, 500, 2e-3 * milliseconds)
    return None
