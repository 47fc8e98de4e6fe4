"""What a control loop counts of itself: rates, latencies, modes, interventions, and why it stopped."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 500
"""Commands that diagnostics look back on: 10 s at 50 Hz."""

TIMING = np.dtype([("time", np.float64), ("latency", np.float64), ("planning", np.float64)])
"""Of one command: when it left, the age of its oldest sample, the duration of its search; s."""

_CAUSES = 20  # different causes of holds that are told apart
_KEPT = 1 << 17  # commands that a report looks back on: 43 min at 50 Hz, 3 MB


class Statistics:
    """Counts and latencies of a control loop. One thread writes, any thread reads."""

    def __init__(self) -> None:
        self._timings = np.zeros(_KEPT, TIMING)
        self.clear()

    def clear(self) -> None:
        """Start anew, as at activation."""
        self.commands = self.ticks = self.missed = self.late_plans = self.filtered = 0
        self.holds = self.stale_ticks = 0
        self.hold_causes: Counter[str] = Counter()
        self._stale: dict[str, tuple[int, str]] = {}
        self.filtered_in_a_row = 0  # newest commands that the safety filter changed
        self.modes: Counter[str] = Counter()
        self.ended_by: Counter[str] = Counter()
        self.interventions: Counter[str] = Counter()

    def command(self, time: float, latency: float, planning: float) -> None:
        """A command left at `time`, s, `latency` s after the oldest sample it is made from was measured."""
        self._timings[self.commands % _KEPT] = time, latency, planning
        self.commands += 1

    def without_sensors(self, sources: Sequence[str]) -> None:
        """A tick went without fresh samples of `sources`, texts such as "imu: 0.149 s old"."""
        self.stale_ticks += 1
        for text in sources:
            name = text.partition(":")[0]
            self._stale[name] = self._stale.get(name, (0, ""))[0] + 1, text

    def held(self, cause: str) -> None:
        """The robot began to be held because of a fault."""
        self.holds += 1
        self.hold_causes[cause if len(self.hold_causes) < _CAUSES else "others"] += 1

    @property
    def stale(self) -> dict[str, dict[str, Any]]:
        """By source: `ticks` that went without a fresh sample of it, and the `last` text about it."""
        return {name: {"ticks": ticks, "last": text} for name, (ticks, text) in dict(self._stale).items()}

    def safety(self, interventions: tuple[str, ...]) -> None:
        """The safety filter changed a command in these stages, or in none."""
        self.interventions.update(interventions)
        self.filtered += bool(interventions)
        self.filtered_in_a_row = self.filtered_in_a_row + 1 if interventions else 0

    def last(self, count: int = _KEPT) -> NDArray[np.void]:
        """Timings (n,) of the last `count` commands, of type `TIMING`."""
        total = self.commands
        index = np.arange(max(0, total - min(count, _KEPT)), total) % _KEPT
        return self._timings[index]

    def summary(self, count: int = _KEPT) -> dict[str, Any]:
        """Counts since `clear`, and percentiles over the last `count` commands, ms; rate in Hz."""
        timings = self.last(count)
        times = timings["time"]
        span = float(times[-1] - times[0]) if len(times) > 1 else 0.0
        return {
            "ticks": self.ticks,
            "commands": self.commands,
            "missed": self.missed,
            "late_plans": self.late_plans,
            "holds": self.holds,
            "hold_causes": dict(self.hold_causes),
            "stale_ticks": self.stale_ticks,
            "stale": self.stale,
            "rate_hz": (len(times) - 1) / span if span > 0.0 else 0.0,
            "latency_ms": percentiles(timings["latency"]),
            "planning_ms": percentiles(timings["planning"]),
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
