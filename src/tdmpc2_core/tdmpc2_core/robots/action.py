"""ActionMapper: normalised actions in [-1, 1] to joint position targets in radians, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.robots.embodiment import Embodiment

Array = NDArray[np.float64]


class ActionMapper:
    """Stateless. Works on one action (A,) or any batch (..., A); the last axis is in embodiment order."""

    def __init__(self, embodiment: Embodiment) -> None:
        self._default, self._scale = embodiment.default_position, embodiment.action_scale
        self._lower, self._upper = embodiment.lower, embodiment.upper

    def targets(self, action: ArrayLike) -> Array:
        """Position targets (..., J), rad: default + action_scale * clip(action, -1, 1), inside the limits.

        NaN stays NaN, for the safety filter to replace and report.
        """
        bounded = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        return np.clip(self._default + self._scale * bounded, self._lower, self._upper)

    def action(self, targets: ArrayLike) -> Array:
        """The action (..., A) whose targets are nearest to `targets` (..., J), rad."""
        return np.clip((np.asarray(targets, dtype=np.float64) - self._default) / self._scale, -1.0, 1.0)
