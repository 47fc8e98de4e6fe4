"""Actions in flight: sent, but without effect yet on what the newest observation shows. No torch in here.

An action acts a delay after its observation was measured: the age of the observation when the command
leaves, which stamps tell, and what lies beyond the command, which they do not. Planning from the latent that
the model foretells for then is compensation by prediction (Smith, 1957) with the learned model (cf. Firoiu et
al., At Human Speed, 2018).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.robots.embodiment import Embodiment

MOST = 8
"""Actions in flight at most: more is a fault, no delay."""

_SMOOTH = 0.02  # share of a new measurement in the mean delay


def learned_delay(embodiment: Embodiment) -> float:
    """Mean delay, s, of the robots that a model of this embodiment learned from: it foretells with that."""
    return 0.5 * sum(embodiment.randomisation.delay)


class InFlight:
    """The last actions of one robot, and the mean delay of its commands.

    Args:
        period: control period, s.
        actions: entries of an action.
    """

    def __init__(self, period: float, actions: int) -> None:
        self._period = period
        self._sent = np.zeros((MOST, actions), np.float32)  # oldest first
        self._count, self.age = 0, math.nan

    def restart(self) -> None:
        """Nothing was sent yet, as at the start of an episode."""
        self._count = 0

    def sent(self, action: NDArray[np.float32]) -> None:
        """Take note of the action (A,) of a tick."""
        self._sent[:-1] = self._sent[1:]
        self._sent[-1] = action
        self._count = min(self._count + 1, MOST)

    def measured(self, age: float) -> None:
        """A command left `age` s after its observation was measured; NaN and negative ages say nothing."""
        if math.isfinite(age) and age >= 0.0:
            age = min(age, MOST * self._period)
            self.age = age if math.isnan(self.age) else self.age + _SMOOTH * (age - self.age)

    def actions(self, beyond: float) -> NDArray[np.float32] | None:
        """(D, A), oldest first, a copy; None where there are none.

        Args:
            beyond: s from a command to its effect, which no stamp shows, less what the model learned with.
        """
        delay = beyond + (0.0 if math.isnan(self.age) else self.age)
        count = min(round(delay / self._period), self._count)
        return self._sent[MOST - count :].copy() if count > 0 else None
