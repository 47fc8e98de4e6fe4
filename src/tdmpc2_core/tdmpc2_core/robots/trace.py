"""What a live decision was made from and came to: enough to make its observation again from a recording.

It travels as named rows of numbers, a float64 each, so that a message of std_msgs carries it exactly.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.robots.sensors import Snapshot

Array = NDArray[np.float64]

MODES = ("idle", "plan", "replay", "policy", "hold", "estop", "no_controller")
"""What a decision can come to, by number."""

_NOTHING = np.empty(0)
_NUMBERS = ("now", "sent", "first", "mode", "value", "digest")
_ARRAYS = ("clock", "command", "told", "action", "target", "mean", "std")


class DecisionTrace(NamedTuple):
    """One decision; arrays are empty where there is nothing."""

    now: float  # s of the node's clock, that ages count from
    sent: float  # s of the node's clock
    first: float  # 1 where the observation began a new history
    mode: float  # index in `MODES`
    value: float  # the planner's estimate; NaN where there is none
    digest: float  # `digest` of the observation; NaN where there was none
    clock: Array  # (3,) `ObservationAssembler.clock` after the observation
    command: Array  # stamp, s, and values as received
    told: Array  # (C,) `ObservationAssembler.command` of the observation
    action: Array  # (A,) sent, in [-1, 1]
    target: Array  # (J,) rad, of the first period
    mean: Array  # (A,) of the plan
    std: Array  # (A,)
    samples: Mapping[str, Array]  # by source: stamps, s, of oldest and newest entry of its sample

    def rows(self) -> list[tuple[str, Array]]:
        """Names and numbers, in the order in which they travel."""
        numbers = [(name, np.array([getattr(self, name)])) for name in _NUMBERS]
        return [*numbers, *((name, getattr(self, name)) for name in _ARRAYS), *self.samples.items()]

    @staticmethod
    def of_rows(sizes: Sequence[tuple[str, int]], data: Sequence[float]) -> DecisionTrace:
        """From names and sizes of the rows, and all numbers. Raises ValueError where they do not fit."""
        numbers = np.asarray(data, dtype=np.float64)
        ends = np.cumsum([size for _, size in sizes])
        if not len(ends) or ends[-1] != len(numbers):
            raise ValueError(f"{len(numbers)} numbers do not fill the rows {[name for name, _ in sizes]}")
        parts = np.split(numbers, ends[:-1])
        rows = {name: part for (name, _), part in zip(sizes, parts, strict=True)}
        missing = [name for name in _NUMBERS if rows.get(name, _NOTHING).shape != (1,)]
        if missing:
            raise ValueError(f"no number {missing[0]!r}")
        first = [float(rows.pop(name)[0]) for name in _NUMBERS]
        arrays = [rows.pop(name, _NOTHING) for name in _ARRAYS]
        samples = {name: row for name, row in rows.items() if len(row) == 2}
        return DecisionTrace._make([*first, *arrays, samples])

    @property
    def mode_name(self) -> str:
        """The mode, in words."""
        return MODES[int(self.mode)] if 0 <= self.mode < len(MODES) else "unknown"


def digest(observation: NDArray[np.float32]) -> float:
    """A number that differs between observations with other bits."""
    return float(zlib.crc32(np.ascontiguousarray(observation).tobytes()))


def sample_stamps(snapshot: Snapshot) -> dict[str, Array]:
    """Stamps, s, of the oldest and the newest entry of every sample but the command's."""
    stamps = {}
    for source, sample in vars(snapshot).items():
        if sample is not None and source != "command":
            newest = sample.stamp if sample.stamps is None else float(np.max(sample.stamps))
            stamps[source] = np.array([sample.stamp, newest])
    return stamps


def command_row(snapshot: Snapshot) -> Array:
    """Stamp and values of the command; empty without one."""
    sample = snapshot.command
    return _NOTHING if sample is None else np.array([sample.stamp, *sample.values])
