"""How long after a command the joints follow, by cross-correlation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_FINE = 4  # shares of a control period that are told apart
_LONGEST = 0.3  # s
_ENOUGH = 20_000  # decisions that are looked at


class ResponseEstimate:
    """Targets and positions of episodes; the shift at which their changes agree most."""

    def __init__(self, period: float) -> None:
        self._period, self._seen = period, 0
        shifts = round(_LONGEST / period * _FINE) + 1
        self._products = np.zeros(shifts)

    def add(self, target: Array, position: Array) -> None:
        """Of one episode: targets (T, J), reached a period later, and positions (T + 1, J), rad."""
        steps = len(target)
        if self._seen > _ENOUGH or steps * _FINE < 2 * len(self._products):
            return
        self._seen += steps
        fine = np.linspace(0.0, steps - 1.0, (steps - 1) * _FINE + 1)
        asked, moved = (
            np.stack([np.interp(fine, np.arange(steps), column) for column in values.T])
            for values in (target, position[1:])
        )
        asked, moved = (np.diff(values, axis=1) for values in (asked, moved))
        for shift in range(len(self._products)):
            self._products[shift] += np.sum(asked[:, : asked.shape[1] - shift] * moved[:, shift:])

    @property
    def seconds(self) -> float:
        """From the instant at which a target is to be reached to that at which it is; NaN without motion."""
        if not self._seen or not self._products.max() > 0.0:
            return math.nan
        return float(np.argmax(self._products)) * self._period / _FINE
