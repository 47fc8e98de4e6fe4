"""Counting what a control loop does: latencies, percentiles, causes of stops, memory."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 500
"""Commands that diagnostics look back on: 10 s at 50 Hz."""

_KEPT = 1 << 17  # commands that a report looks back on: 43 min at 50 Hz, 2 MB


class Statistics:
    """Counts and latencies of a control loop. One thread writes, any thread reads."""

    def __init__(self) -> None:
        self._rows = np.zeros((_KEPT, 3))  # time of the command, latency, planning time; s
        self.clear()

    def clear(self) -> None:
        """Start anew, as at activation."""
        self.commands = self.ticks = self.missed = self.late_plans = self.filtered = 0
        self.modes: Counter[str] = Counter()
        self.ended_by: Counter[str] = Counter()
        self.interventions: Counter[str] = Counter()

    def command(self, time: float, latency: float, planning: float) -> None:
        """A command left at `time`, s, `latency` s after the oldest sample it is made from was measured."""
        self._rows[self.commands % _KEPT] = time, latency, planning
        self.commands += 1

    def last(self, count: int = _KEPT) -> NDArray[np.float64]:
        """Time, latency and planning time (n, 3), s, of the last `count` commands."""
        total = self.commands
        index = np.arange(max(0, total - min(count, _KEPT)), total) % _KEPT
        return self._rows[index]

    def summary(self, count: int = _KEPT) -> dict[str, Any]:
        """Counts since `clear`, and percentiles over the last `count` commands, ms; rate in Hz."""
        rows = self.last(count)
        span = rows[-1, 0] - rows[0, 0] if len(rows) > 1 else 0.0
        return {
            "ticks": self.ticks,
            "commands": self.commands,
            "missed": self.missed,
            "late_plans": self.late_plans,
            "rate_hz": (len(rows) - 1) / span if span > 0.0 else 0.0,
            "latency_ms": percentiles(rows[:, 1]),
            "planning_ms": percentiles(rows[:, 2]),
            "modes": dict(self.modes),
            "ended_by": dict(self.ended_by),
            "safety_interventions": dict(self.interventions),
        }


def percentiles(seconds: NDArray[np.float64]) -> dict[str, float]:
    """p50, p99 and max in ms of finite values in s; NaN when there are none."""
    finite = seconds[np.isfinite(seconds)]
    if not finite.size:
        return {"p50": math.nan, "p99": math.nan, "max": math.nan}
    low, high = np.percentile(finite, (50, 99))
    return {"p50": 1e3 * float(low), "p99": 1e3 * float(high), "max": 1e3 * float(finite.max())}


class StopCause:
    """Why a node stopped: the first cause that is recorded counts, until `clear`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.text = ""

    def record(self, cause: str) -> bool:
        """True when `cause` is the first."""
        with self._lock:
            first = not self.text
            self.text = self.text or cause
            return first

    def clear(self) -> None:
        """Forget it, as at activation."""
        with self._lock:
            self.text = ""


def resident_megabytes() -> float:
    """Physical memory of this process, MB; NaN where /proc is not there."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return math.nan
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
