"""Scripted controllers that an embodiment can name: their demonstrations, and labels beside a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from tdmpc2_core.config import closest
from tdmpc2_core.data.episodes import Episode, EpisodeRecorder
from tdmpc2_core.envs.protocol import Environment
from tdmpc2_core.envs.robot.env import RobotEnv
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.teachers.biped import BipedController
from tdmpc2_core.teachers.resolved_rate import ResolvedRate
from tdmpc2_core.teachers.trot import TrotGait


class Controller(Protocol):
    """A scripted controller; it may read everything of the environment, also what no sensor measures."""

    def reset(self) -> None:
        """Called at the start of every episode."""

    def act(self, env: RobotEnv) -> np.ndarray:
        """Joint targets (J,), rad, for this decision."""


KINDS: dict[str, Callable[[Embodiment], Controller]] = {
    "biped": BipedController,
    "resolved_rate": ResolvedRate,
    "trot": TrotGait,
}


class Demonstrator:
    """Actions of the embodiment's scripted controller.

    Raises:
        UserError: the embodiment names no controller, or one that does not exist.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        if embodiment.demonstration is None:
            raise UserError(
                f"{embodiment.name}: no `demonstration` section; add one or train with demonstration_steps=0"
            )
        kind = embodiment.demonstration.kind
        if kind not in KINDS:
            raise UserError(
                f"{embodiment.name}: demonstration.kind: unknown {kind!r}{closest(kind, KINDS)}; "
                f"accepted: {', '.join(KINDS)}"
            )
        self._controller = KINDS[kind](embodiment)
        self.noise = embodiment.demonstration.noise

    def reset(self) -> None:
        """Start of an episode."""
        self._controller.reset()

    def action(self, env: RobotEnv) -> np.ndarray:
        """Action (A,) for the environment's present state, command and gait phase."""
        return env.mapper.action(self._controller.act(env), env.targets)


def demonstrate(
    env: RobotEnv,
    demonstrator: Demonstrator,
    rng: np.random.Generator,
    plan_std: float,
    stop: Callable[[], bool] = lambda: False,
) -> Episode:
    """One episode of the scripted controller under action noise.

    The clean action is kept as the plan's mean with ``plan_std``, so that the actor objectives that follow a
    planner follow the demonstration where it is all there is. The noise never stops: a prior that could read
    the next action off the previous one would learn to repeat itself (Laskey et al., DART, 2017). Bursts of
    larger noise add recoveries. Once `stop` is true, after each decision, the episode is cut.
    """
    recorder = EpisodeRecorder(env.reset())
    demonstrator.reset()
    noise_std = demonstrator.noise * rng.choice([1 / 6, 1 / 3, 2 / 3, 1.0])
    wait, burst = int(rng.integers(50, 250)), 0
    while True:
        clean = demonstrator.action(env)
        wait -= 1
        if wait == 0:
            wait, burst = int(rng.integers(50, 250)), int(rng.integers(5, 30))
        burst -= 1
        std = demonstrator.noise * 5 / 3 if burst > 0 else noise_std
        action = np.clip(clean + rng.normal(0.0, std, clean.shape), -1.0, 1.0).astype(np.float32)
        result = env.step(action)
        recorder.add(
            result.observation, action, result.reward, result.terminated, clean, np.full_like(clean, plan_std)
        )
        if result.terminated or result.truncated or stop():
            return recorder.episode(result.truncated or not result.terminated)


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
