"""Scripted controllers beside the policy: they say what they would do where the policy went (DAgger)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tdmpc2_core.envs.demonstrator import Demonstrator
from tdmpc2_core.envs.protocol import Environment
from tdmpc2_core.envs.robot import RobotEnv
from tdmpc2_core.errors import UserError

_TURN = 25, 150
"""Decisions that one driver, policy or scripted controller, keeps a robot; drawn anew every time."""


def robot_env(env: Environment) -> RobotEnv:
    """The same environment; raises UserError where it is no robot's and so has no scripted controller."""
    if not isinstance(env, RobotEnv):
        raise UserError(
            f"{env.spec.name}: has no scripted controller; train with demonstration_steps=0 dagger_steps=0"
        )
    return env


class Teachers:
    """Dataset aggregation (Ross, Gordon, Bagnell, AISTATS 2011) over environments side by side.

    Every decision gets the scripted controller's action as its label, whoever drives. Drivers change in the
    middle of an episode, so that the policy also starts from states that it cannot reach itself yet, and the
    controller shows the way back from those that the policy got into.

    Raises:
        UserError: the environments have no scripted controller.
    """

    def __init__(self, environments: Sequence[Environment], rng: np.random.Generator) -> None:
        self._environments = [robot_env(env) for env in environments]
        self._teachers = [Demonstrator(env.embodiment) for env in self._environments]
        self._rng = rng
        self._left = np.zeros(len(environments), dtype=int)
        self._drives = np.zeros(len(environments), dtype=bool)

    def restart(self, lane: int) -> None:
        """A new episode began in this environment."""
        self._teachers[lane].reset()
        self._left[lane] = 0

    def decide(self, actions: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Actions to take and labels, both (B, A) float32, where the policy would take ``actions``.

        share: probability with which the scripted controller drives; it acts with its embodiment's noise.
        """
        labels = np.empty_like(actions, dtype=np.float32)
        taken = np.array(actions, dtype=np.float32)
        for lane, (teacher, env) in enumerate(zip(self._teachers, self._environments, strict=True)):
            labels[lane] = teacher.action(env)
            if self._left[lane] == 0:
                self._left[lane] = self._rng.integers(*_TURN)
                self._drives[lane] = self._rng.random() < share
            self._left[lane] -= 1
            if self._drives[lane]:
                noise = self._rng.normal(0.0, teacher.noise, labels[lane].shape)
                taken[lane] = np.clip(labels[lane] + noise, -1.0, 1.0)
        return taken, labels
