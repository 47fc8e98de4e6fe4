"""SensorState: the newest sample of every source. Callbacks write, one planner or control thread reads.

A sample holds read-only arrays, the fields of its source's row in `terms.SOURCES`. A write replaces the whole
sample, which Python does atomically, and no sample changes once it is stored. A reader therefore sees either
the old or the new one, never a mixture, without a lock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.terms import SOURCES, TERMS, Field, Source, quaternion_length

Array = NDArray[np.float64]

ROUNDING = 1e-9
"""Seconds by which an age may exceed its limit, so that whole control periods do not depend on rounding."""


class Sample(SimpleNamespace):
    """One reading of a source: an attribute per field, such as `position` (J,), rad, of joints."""

    stamp: float  # s


class Snapshot(SimpleNamespace):
    """The samples of all sources at one instant: an attribute per source, None where nothing was received."""


class SensorState:
    """Newest sample of every source with its stamp (s, of whichever clock the caller uses throughout)."""

    def __init__(self, embodiment: Embodiment) -> None:
        self.embodiment = embodiment
        self._slots = {row.name: _Slot(row, embodiment) for row in SOURCES.values() if row.fields}
        self._max_ages = tuple(embodiment.observation.max_ages.items())
        self._samples: dict[str, Sample | None] = {}
        self.clear()

    def clear(self) -> None:
        """Forget every sample, as at activation or after the clock jumped."""
        self._samples = dict.fromkeys(self._slots)

    def store(
        self, source: str, stamp: float, fields: Mapping[str, ArrayLike], names: Sequence[str] | None = None
    ) -> None:
        """Store a sample: an array per field of the source's row in `terms.SOURCES`, other keys are ignored.

        `names` of joints say which values stand for which: in any order, others than the robot's are ignored.
        Without them the values are in the robot's order.
        Raises SensorError when a field or an entry is missing, a length is wrong, one of the robot's values
        is not finite or a quaternion not of length 1; the sample is then not stored.
        """
        self._samples[source] = self._slots[source].sample(stamp, fields, names)

    def set_joints(
        self, stamp: float, names: Sequence[str], position: ArrayLike, velocity: ArrayLike
    ) -> None:
        """Store a joint state, rad and rad/s, as long as `names`; velocity may be empty where no term reads
        it. See `store`."""
        self.store("joints", stamp, {"position": position, "velocity": velocity}, names)

    def set_imu(self, stamp: float, orientation_xyzw: ArrayLike, angular_velocity: ArrayLike) -> None:
        """Store an IMU sample: unit quaternion xyzw (4,), rad/s (3,). See `store`."""
        self.store("imu", stamp, {"orientation": orientation_xyzw, "angular_velocity": angular_velocity})

    def set_command(self, stamp: float, values: ArrayLike) -> None:
        """Store a command (C,) in the order of `command.names`: velocities, or a pose in the base frame. See
        `store`."""
        self.store("command", stamp, {"values": values})

    def clear_command(self) -> None:
        """Forget the command: a robot without one stands or holds."""
        self._samples["command"] = None

    def snapshot(self) -> Snapshot:
        """The samples of this instant; safe to keep, later writes do not change it."""
        return Snapshot(**self._samples)

    def restore(self, snapshot: Snapshot) -> None:
        """Hold the samples of a snapshot again."""
        self._samples = dict(vars(snapshot))

    def stale(self, now: float) -> list[str]:
        """One text per source that an observation needs and that is missing, too old or from the future."""
        return self.stale_in(self.snapshot(), now)

    def stale_in(self, snapshot: Snapshot, now: float) -> list[str]:
        """As `stale`, for a snapshot taken before. A command is never stale: silence counts as zero."""
        problems, samples = [], vars(snapshot)
        for source, max_age in self._max_ages:
            sample = samples[source]
            if sample is None:
                problems.append(f"{source}: never received")
                continue
            age = now - sample.stamp
            if age > max_age + ROUNDING:
                problems.append(f"{source}: {age:.3g} s old, at most {max_age:g} s")
            elif age < -max_age - ROUNDING:
                problems.append(f"{source}: stamped {-age:.3g} s in the future, at most {max_age:g} s")
        return problems

    def oldest_in(self, snapshot: Snapshot) -> float:
        """Stamp (s) of the oldest sample that an observation needs: -inf while one is missing, inf where the
        observation needs none."""
        samples, oldest = vars(snapshot), math.inf
        for source, _ in self._max_ages:
            sample = samples[source]
            if sample is None:
                return -math.inf
            oldest = min(oldest, sample.stamp)
        return oldest


class _Slot:
    """One source of one robot: the type of its samples, and the checks before one is made."""

    def __init__(self, row: Source, embodiment: Embodiment) -> None:
        self._row, self._embodiment = row, embodiment
        terms = [TERMS[term.name] for term in embodiment.observation.terms]
        read = {name for term in terms if term.source == row.name for name in term.reads}
        self._fields = [
            _CheckedField(row, field, embodiment, needed=not field.optional or field.name in read)
            for field in row.fields
        ]
        self._order: tuple[Sequence[str], NDArray[np.intp]] = ((), np.empty(0, np.intp))

    def sample(self, stamp: float, fields: Mapping[str, ArrayLike], names: Sequence[str] | None) -> Sample:
        """The sample of one reading. Raises SensorError."""
        index = None if names is None else self._places(names)
        count = None if names is None else len(names)
        stamp = float(stamp)
        if not math.isfinite(stamp):
            raise SensorError(f"{self._row.name}: stamp is {stamp}; seconds of the node's clock are needed")
        arrays = {part.name: part.array(fields.get(part.name), count, index) for part in self._fields}
        if self._row.check:
            self._row.check(self._embodiment, arrays)
        for array in arrays.values():
            if array is not None:
                array.setflags(write=False)
        return Sample(stamp=stamp, **arrays)

    def _places(self, names: Sequence[str]) -> NDArray[np.intp]:
        """Where each of the robot's entries stands in `names`."""
        known, index = self._order
        if not isinstance(names, (list, tuple)):
            names = list(names)
        if known != names:
            index = self._find(names)
            self._order = (names[:], index)
        return index

    def _find(self, names: Sequence[str]) -> NDArray[np.intp]:
        source, entry, wanted = self._row.name, self._row.named, self._fields[0].entries
        places = {name: i for i, name in enumerate(names)}
        missing = [name for name in wanted if name not in places]
        if missing:
            received = ", ".join(names) or f"no {entry}s"
            raise SensorError(f"{source}: missing {', '.join(missing)}; received {received}")
        twice = [name for name in wanted if list(names).count(name) > 1]
        if twice:
            twice_given = f"{', '.join(twice)} given more than once"
            raise SensorError(f"{source}: {twice_given}; each {entry} may appear once")
        return np.array([places[name] for name in wanted], dtype=np.intp)


class _CheckedField:
    """One field of a source of one robot: from what is given to a checked array of its own."""

    def __init__(self, row: Source, field: Field, embodiment: Embodiment, needed: bool) -> None:
        self.name, self.entries = field.name, field.entry_names(embodiment)
        self._count = len(self.entries)
        self._needed, self._quaternion, self._named = needed, field.quaternion, row.named
        self._what = f"{row.name}: {field.name.replace('_', ' ')}" if len(row.fields) > 1 else row.name

    def array(
        self, given: ArrayLike | None, count: int | None, index: NDArray[np.intp] | None
    ) -> Array | None:
        """The robot's values, taken at `index` from `count` given ones, or all in the robot's order; None
        where the field may be empty and is."""
        given = () if given is None else given
        if not self._needed and not np.size(given):
            return None
        count = self._count if count is None else count
        array = np.array(given, np.float64) if index is None else np.asarray(given, np.float64)
        if array.shape != (count,):
            entries = f", one per {self._named} name" if self._named else f" ({', '.join(self.entries)})"
            raise SensorError(f"{self._what} has {array.size} values, {count} are needed{entries}")
        if index is not None:
            array = array[index]
        if not np.logical_and.reduce(np.isfinite(array)):
            pairs = zip(self.entries, array, strict=True)
            bad = ", ".join(f"{name} is {value}" for name, value in pairs if not math.isfinite(value))
            joint = " of " if self._named else ": "
            raise SensorError(f"{self._what}{joint}{bad}; finite values are needed")
        if self._quaternion:
            quaternion_length(array, self._what)
        return array
