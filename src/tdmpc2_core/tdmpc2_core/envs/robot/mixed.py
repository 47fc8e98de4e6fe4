"""Robots of several simulations side by side: one batch to a policy, which is to serve them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.envs.robot.batch import BatchEnv, BatchStep
from tdmpc2_core.robots.embodiment import Embodiment


class MixedStep(NamedTuple):
    """One decision of all robots, (N, ...); see the fields of `BatchStep`."""

    observation: NDArray[np.float32]
    final_observation: NDArray[np.float32]
    privileged: NDArray[np.float32]
    final_privileged: NDArray[np.float32]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


class MixedEnv:
    """Batches of one robot's simulations, joined along the axis of robots.

    Their privileged observations hold the quantities that all have, then which simulation it is (one-hot):
    simulations that were changed in different ways do not know the same.

    Args:
        parts: embodiment of one policy, and how many of its robots, per simulation; those of 0 are left out.
        seed: of the first robot; others follow.
        threads: that step physics side by side.

    Attributes:
        count: N, of all.
        privileged_dim: P.
    """

    def __init__(self, parts: Sequence[tuple[Embodiment, int]], seed: int = 0, threads: int = 1) -> None:
        self._envs, self.count = list[BatchEnv](), 0
        for embodiment, count in parts:
            if count:
                self._envs.append(BatchEnv(embodiment, count, seed + self.count, threads=threads))
                self._envs[-1].level = np.ones(count)  # what the robot is to meet, not what it learns by
                self.count += count
        self._edges = np.cumsum([env.count for env in self._envs])[:-1]
        layouts = [env.privileged_layout() for env in self._envs]
        shared = [name for name in layouts[0] if all(name in layout for layout in layouts)]
        self._columns = [np.concatenate([np.r_[layout[name]] for name in shared]) for layout in layouts]
        self.privileged_dim = len(self._columns[0]) + len(self._envs)

    def reset(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """New episodes everywhere: observations (N, O) and privileged ones (N, P)."""
        observed = [env.reset() for env in self._envs]
        known = [self._known(index, env.privileged()) for index, env in enumerate(self._envs)]
        return np.concatenate(observed), np.concatenate(known)

    def step(self, action: ArrayLike) -> MixedStep:
        """Apply actions (N, A) for one control period."""
        parts = np.split(np.asarray(action), self._edges)
        steps = [env.step(part) for env, part in zip(self._envs, parts, strict=True)]
        rows = [self._row(index, step) for index, step in enumerate(steps)]
        return MixedStep(*(np.concatenate(column) for column in zip(*rows, strict=True)))

    def _row(self, index: int, step: BatchStep) -> MixedStep:
        return MixedStep(
            step.observation,
            step.final_observation,
            self._known(index, step.privileged),
            self._known(index, step.final_privileged),
            step.reward,
            step.terminated,
            step.truncated,
        )

    def _known(self, index: int, privileged: NDArray[np.float32]) -> NDArray[np.float32]:
        which = np.zeros((len(privileged), len(self._envs)), np.float32)
        which[:, index] = 1.0
        return np.concatenate([privileged[:, self._columns[index]], which], axis=1)
