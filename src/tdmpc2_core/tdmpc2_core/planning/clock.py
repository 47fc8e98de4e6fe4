"""`IterationClock`: whether one more iteration fits before a deadline, judged by earlier ones."""

from __future__ import annotations

import time
from collections import deque

from torch import Tensor

_REMEMBERED = 16  # iterations; a few plans, so that a change of the machine's load is seen within them
_CAUTION = 1.2  # an iteration may take this much longer than expected
_PATIENCE, _MOST_PATIENCE = 10, 500  # plans without an iteration until the slowest times are forgotten
_RETURN = 0.0005  # s from the end of the last iteration to the caller: choose the action, copy the plan


class IterationClock:
    """Keeps iteration times from plan to plan, so that a plan ends before its deadline, not after it.

    An iteration is expected to take 1.2 times as long as the second slowest of the last 16: one that the
    operating system interrupted does not count, a busy machine does. After ten plans in a row without time
    for an iteration, each further one forgets the slowest, so that a planner tries again once the machine may
    be faster; a try that ended late doubles the ten, up to 500.

    Without any earlier time, the first iteration is started whenever the deadline has not passed: then, and
    when an iteration takes longer than expected, a plan is late by less than that iteration.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_REMEMBERED)
        self._kind: object = None
        self._deadline: float | None = None
        self._started: float | None = None
        self._skipped = 0  # plans without an iteration, in a row
        self._patience = _PATIENCE

    @property
    def expected(self) -> float:
        """Time that the next iteration is taken to need, s; 0 when nothing is known."""
        if not self._times:
            return 0.0
        slowest = sorted(self._times)
        return _CAUTION * (slowest[-2] if len(slowest) >= _REMEMBERED // 2 else slowest[-1])

    def start(self, deadline: float | None, kind: object) -> None:
        """A plan begins. `deadline`: instant of `time.monotonic()`, s, or None. Times are kept from plan to
        plan as long as `kind`, what an iteration's cost depends on, stays the same."""
        if kind != self._kind:
            self._times.clear()
            self._kind = kind
        self._deadline, self._started = deadline, None

    def fits(self, pending: Tensor) -> bool:
        """True when one more iteration may start; ends the timing of the one before.

        Waits for the device that computes `pending`, except without a deadline on a device that works
        asynchronously: those iterations are not timed.
        """
        first = self._started is None
        if not self._measure(pending) or self._deadline is None or self._started is None:
            return True
        left = self._deadline - self._started
        fits = left > 0.0 and self.expected + self._reserve <= left
        if fits:
            self._skipped = 0
            return True
        self._started = None  # no iteration runs that `end` could time
        if first and left > 0.0:
            self._skipped += 1
            if self._skipped > self._patience:
                self._times.remove(max(self._times))
        return False

    def end(self, pending: Tensor) -> None:
        """The last iteration, which computed `pending`, is over."""
        if self._started is not None:
            self._measure(pending)
        self._started = None

    def _measure(self, pending: Tensor) -> bool:
        """Time the iteration that runs, if one does, and start timing the next; False where none is timed."""
        if pending.device.type != "cpu":
            if self._deadline is None:
                return False
            pending.flatten()[0].item()
        now = time.monotonic()
        if self._started is not None:
            self._times.append(now - self._started)
            late = self._deadline is not None and now > self._deadline
            self._patience = min(2 * self._patience, _MOST_PATIENCE) if late else _PATIENCE
        self._started = now
        return True

    @property
    def _reserve(self) -> float:
        return _RETURN if self._times else 0.0
