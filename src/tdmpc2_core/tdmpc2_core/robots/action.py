"""ActionMapper: normalised actions in [-1, 1] to joint position targets in radians, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.robots.embodiment import Embodiment

Array = NDArray[np.float64]


class ActionMapper:
    """Stateless. The last axis of actions and targets is in embodiment order.

    With action.kind `position` a target belongs to its own action; with `delta` it is a step from the target
    before, so that `start`, the last target that was sent, is needed.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        self._delta = embodiment.action.kind == "delta"
        self._default, self._scale = embodiment.default_position, embodiment.action_scale
        self._lower, self._upper = embodiment.lower, embodiment.upper

    def targets(self, action: ArrayLike, start: ArrayLike | None = None) -> Array:
        """Position targets (..., J), rad, inside the limits, for actions (..., A) clipped to [-1, 1].

        position: default + action_scale * action. delta: `start` (J,) + action_scale * action for one action;
        rows (H, A) of a plan continue from each other. NaN stays NaN, for the safety filter to replace and
        report. Raises ValueError when `start` is missing.
        """
        step = self._scale * np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        if not self._delta:
            return np.clip(self._default + step, self._lower, self._upper)
        target = self._given(start)
        if step.ndim == 1:
            return np.clip(target + step, self._lower, self._upper)
        result = np.empty_like(step)
        for index, row in enumerate(step):
            result[index] = target = np.clip(target + row, self._lower, self._upper)
        return result

    def steps(self, action: ArrayLike, start: ArrayLike) -> Array:
        """Position targets (N, J) of N robots for one action (N, A) and last targets (N, J) each."""
        step = self._scale * np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        origin = np.asarray(start) if self._delta else self._default
        return np.clip(origin + step, self._lower, self._upper)

    def action(self, targets: ArrayLike, start: ArrayLike | None = None) -> Array:
        """Action (..., A) whose targets are nearest to `targets` (..., J), rad; after `start` for delta."""
        origin = self._given(start) if self._delta else self._default
        return np.clip((np.asarray(targets, dtype=np.float64) - origin) / self._scale, -1.0, 1.0)

    @staticmethod
    def _given(start: ArrayLike | None) -> Array:
        if start is None:
            raise ValueError("actions of kind delta need the targets before them")
        return np.asarray(start, dtype=np.float64)
