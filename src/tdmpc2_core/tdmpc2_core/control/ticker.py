"""When to decide: at the control rate, right after a fresh sensor sample, without drift."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

_FOLLOW = 0.05  # share of the distance to a sample's arrival by which the schedule follows the sensors
_SMOOTH = 0.05  # share of a new sample interval in the mean interval
_GRACE = 0.1  # control periods that a sample may come late before the tick goes without it
_POLL = 0.005  # s, longest sleep: a clock other than the monotonic one may jump


class Tick(NamedTuple):
    """One decision is due; `missed` control periods before it went without one."""

    time: float
    missed: int


class Ticker:
    """A schedule at the control period that locks to the sensors' phase.

    Ticks come once per period. Within half a sample interval around its scheduled instant a tick waits for a
    sample, so that it acts on fresh data; the schedule then follows the arrival by a small share, which
    keeps the two clocks from drifting apart. Without samples it ticks by the clock alone.

    Args:
        period: control period, s.
        clock: time in s, monotonic or of the simulation; the same thread-safe function for both threads.
    """

    def __init__(self, period: float, clock: Callable[[], float]) -> None:
        self._period, self._clock = period, clock
        self._condition = threading.Condition()
        self._stopped = False
        self._arrival: float | None = None
        self._fresh = False
        self._interval = period
        self.restart()

    @property
    def period(self) -> float:
        """Control period, s."""
        return self._period

    def restart(self) -> None:
        """Start the schedule anew at the next sample."""
        self._due: float | None = None
        self._last = -float("inf")

    def stop(self) -> None:
        """End `wait`, now and for ever."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def arrived(self) -> None:
        """A fresh sample has been stored. Called from the sensor callbacks; cheap."""
        now = self._clock()
        with self._condition:
            if self._arrival is not None:
                gap = min(max(now - self._arrival, 0.0), 2.0 * self._period)
                self._interval += _SMOOTH * (gap - self._interval)
            self._arrival, self._fresh = now, True
            self._condition.notify_all()

    def wait(self) -> Tick | None:
        """Until the next decision is due; None after `stop`."""
        with self._condition:
            while not self._stopped:
                now = self._clock()
                if now < self._last:
                    self.restart()
                if self._ready(now):
                    return self._take(now)
                self._condition.wait(min(_POLL, max(self._wake(now) - now, 0.0002)))
        return None

    @property
    def _slack(self) -> float:
        return 0.5 * min(self._interval, self._period)

    def _timeout(self, due: float) -> float:
        return due + self._slack + _GRACE * self._period

    def _ready(self, now: float) -> bool:
        if self._due is None:
            return self._fresh
        if now < self._last + 0.5 * self._period:
            return False
        arrival = self._arrival if self._fresh else None
        return (arrival is not None and arrival >= self._due - self._slack) or now >= self._timeout(self._due)

    def _wake(self, now: float) -> float:
        if self._due is None:
            return now + _POLL
        return max(self._timeout(self._due), self._last + 0.5 * self._period)

    def _take(self, now: float) -> Tick:
        """Count the periods that went by, follow the sensors' phase and schedule the next tick."""
        due = now if self._due is None else self._due
        missed = max(0, int((now - due) / self._period + 1e-6))
        due += missed * self._period
        if self._fresh and self._arrival is not None:
            slack = self._slack
            due += _FOLLOW * min(max(self._arrival - due, -slack), slack)
        self._due, self._last, self._fresh = due + self._period, now, False
        return Tick(now, missed)
