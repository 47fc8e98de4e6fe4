"""Keeps physics steps in time with a monotonic clock."""

from __future__ import annotations

_MAX_LAG = 0.1  # s of delay that is caught up; more is given up, and the real-time factor shows it
_BURST = 5  # steps made at once while catching up, so that commands and stops are still heard


class Pacer:
    """Says how many physics steps are due. Times are seconds of `time.monotonic`.

    Args:
        rate: physics steps per simulated second, Hz.
        factor: simulated seconds per second; 0 is as fast as possible.
    """

    def __init__(self, rate: float, factor: float, now: float) -> None:
        self._rate = rate * factor
        self._step_seconds = 1.0 / rate
        self._origin, self._made = now, 0
        self._report_time, self._report_steps, self._total = now, 0, 0

    def due(self, now: float) -> int:
        """Steps to make now; at most a burst."""
        if not self._rate:
            return _BURST
        behind = (now - self._origin) - self._made / self._rate
        if behind > _MAX_LAG:
            self._origin += behind
            behind = 0.0
        return min(_BURST, int(behind * self._rate + 1e-6))

    def made(self) -> None:
        """One step was made."""
        self._made += 1
        self._total += 1

    def lateness(self, now: float) -> float:
        """Seconds by which the step made last is behind its place in the schedule; 0 when there is none."""
        return max(0.0, now - self._origin - self._made / self._rate) if self._rate else 0.0

    def pause(self, now: float) -> float:
        """Seconds to sleep until the next step is due."""
        return max(0.0, self._origin + (self._made + 1) / self._rate - now) if self._rate else 0.0

    def real_time_factor(self, now: float) -> float:
        """Simulated seconds per second since the last call."""
        elapsed = max(1e-9, now - self._report_time)
        result = (self._total - self._report_steps) * self._step_seconds / elapsed
        self._report_time, self._report_steps = now, self._total
        return result
