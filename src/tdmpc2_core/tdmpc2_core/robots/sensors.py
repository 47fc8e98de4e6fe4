"""SensorState: the newest sample of every source. Callbacks write, one planner or control thread reads.

A sample holds read-only arrays, the fields of its source's row in `terms.SOURCES`. A write replaces the whole
sample, which Python does atomically, and no sample changes once it is stored. A reader therefore sees either
the old or the new one, never a mixture, without a lock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.errors import FrozenSource, SensorError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.rotations import rotate
from tdmpc2_core.robots.terms import SOURCES, TERMS, Field, Source, quaternion_length

if TYPE_CHECKING:
    from tdmpc2_core.robots.plausibility import Plausibility

Array = NDArray[np.float64]

_GRAVITY = 9.80665  # m/s^2
_AVERAGED = 1.0  # s, more than a stride
_UPRIGHT = math.cos(math.radians(45.0))  # no robot accelerates sideways as hard as gravity pulls for long

ROUNDING = 1e-9
"""Seconds by which an age may exceed its limit, so that whole control periods do not depend on rounding."""


class Sample(SimpleNamespace):
    """The newest values of a source: an attribute per field, such as `position` (J,), rad, of joints."""

    stamp: float  # s, of the oldest entry
    stamps: Array | None  # (J,) s, of each, where they came in several messages; NaN: never


class Snapshot(SimpleNamespace):
    """The samples of all sources at one instant: an attribute per source, None where nothing was received."""


class SensorState:
    """Newest sample of every source with its stamp (s, of whichever clock the caller uses throughout).

    Args:
        plausible: judges every sample before it is stored, on a robot; None takes what is well formed.
    """

    def __init__(self, embodiment: Embodiment, plausible: Plausibility | None = None) -> None:
        self.embodiment, self._plausible = embodiment, plausible
        self._slots = {row.name: _Slot(row, embodiment) for row in SOURCES.values() if row.fields}
        self._max_ages = tuple(embodiment.observation.max_ages.items())
        self._samples: dict[str, Sample | None] = {}
        self._parts: dict[str, Sample] = {}  # what came so far of sources that are not whole yet
        self._strangers: dict[str, Sequence[str]] = {}  # names in a message without any of the robot's
        self._refused: dict[str, SensorError] = {}  # of the newest reading
        self.clear()

    def clear(self) -> None:
        """Forget every sample, as at activation or after the clock jumped."""
        self._samples = dict.fromkeys(self._slots)
        self._parts.clear()
        self._strangers.clear()
        self._refused.clear()
        if self._plausible is not None:
            self._plausible.restart()

    def store(
        self, source: str, stamp: float, fields: Mapping[str, ArrayLike], names: Sequence[str] | None = None
    ) -> bool:
        """Store a reading: an array per field of the source's row in `terms.SOURCES`, other keys are ignored.

        `names` of joints say which values stand for which: in any order, others than the robot's are ignored.
        A reading of some of them renews these alone; each keeps its own stamp. Without names the values are
        in the robot's order.

        Returns:
            Whether the reading says anything about the robot: a gripper's joints beside an arm's do not.

        Raises:
            SensorError: a field is missing, a length is wrong, an entry is there twice, one of the robot's
                values is not finite where it is needed, or a quaternion not of length 1; with `plausible`
                also where the stamp is before that of the sample in use. Nothing is stored then.
        """
        try:
            part = self._slots[source].sample(stamp, fields, names)
            if part is None:
                self._strangers[source] = list(names or ())
                return False
            if self._plausible is not None:
                self._check_order(source, part)
                self._plausible.check(source, part, fields)
        except SensorError as problem:
            self.refuse(source, problem)
            raise
        self._refused.pop(source, None)
        if part.stamps is not None:
            part = _merged(self._parts.get(source) or self._samples[source], part)
            if math.isnan(part.stamp):
                self._parts[source] = part
                return True
        self._samples[source] = part
        self._parts.pop(source, None)
        return True

    def refuse(self, source: str, problem: SensorError) -> None:
        """Note why a reading of the source was not stored; `stale` says it until one is."""
        self._refused[source] = problem

    def _check_order(self, source: str, part: Sample) -> None:
        """Raise SensorError where a sample is older than what is in use of its entries."""
        before = self._parts.get(source) or self._samples[source]
        if before is None:
            return
        newest = before.stamp
        if before.stamps is not None:
            known = before.stamps if part.stamps is None else before.stamps[np.isfinite(part.stamps)]
            newest = float(np.fmax.reduce(known))
        if part.stamp < newest:  # not NaN: entries that never came
            raise SensorError(
                f"{source}: stamped {newest - part.stamp:.3g} s before the sample in use, which stays; check "
                "for a second sender, or a clock that went back"
            )

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
        self._parts.clear()

    def stale(self, now: float) -> list[str]:
        """One text per source that an observation needs and that is missing, too old or from the future."""
        return self.stale_in(self.snapshot(), now)

    def stale_in(self, snapshot: Snapshot, now: float) -> list[str]:
        """As `stale`, for a snapshot taken before. A command is never stale: silence counts as zero."""
        problems, samples = [], vars(snapshot)
        for source, max_age in self._max_ages:
            sample, refused = samples[source], self._refused.get(source)
            if sample is None:
                problems.append(self._never(source) if refused is None else str(refused))
                continue
            age = now - sample.stamp
            if isinstance(refused, FrozenSource):
                problems.append(str(refused))
            elif age > max_age + ROUNDING:
                which = self._slots[source].named(sample.stamps, now - max_age - ROUNDING)
                why = f" ({refused})" if refused else ""
                problems.append(f"{source}: {which}{age:.3g} s old, at most {max_age:g} s{why}")
            elif age < -max_age - ROUNDING:
                problems.append(f"{source}: stamped {-age:.3g} s in the future, at most {max_age:g} s")
        return problems

    def _never(self, source: str) -> str:
        """Why there is no sample of a source."""
        part, strangers = self._parts.get(source), self._strangers.get(source)
        if part is not None:
            assert part.stamps is not None
            return f"{source}: missing {self._slots[source].never(part.stamps)}"
        if strangers is not None:
            return f"{source}: never received; messages name none of them, but {_some(strangers)}"
        return f"{source}: never received"

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


def _some(names: Sequence[str], most: int = 4) -> str:
    """The first names of a list, as text."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") or "nothing"


def _merged(before: Sample | None, part: Sample) -> Sample:
    """`before` with the entries that came in `part`; its values elsewhere, NaN where there are none."""
    assert part.stamps is not None
    came = np.isfinite(part.stamps)
    stamps = part.stamps
    if before is not None:
        older = np.full(came.shape, before.stamp) if before.stamps is None else before.stamps
        stamps = np.where(came, stamps, older)
    merged = Sample(stamp=float(stamps.min()), stamps=stamps)
    for name, values in vars(part).items():
        if name not in ("stamp", "stamps"):
            other = getattr(before, name, None)
            known = values if other is None or values is None else np.where(came, values, other)
            if known is not None and not np.isfinite(known[np.isfinite(stamps)]).all():
                known = None  # an optional field that one of the senders does not measure
            setattr(merged, name, known)
            if known is not None:
                known.setflags(write=False)
    return merged


class GravityCheck:
    """Whether an IMU's orientation agrees with its own accelerometer.

    At rest, and on average also in motion, an accelerometer measures gravity's counterforce, upwards in the
    world (REP-145). The mean over about `_AVERAGED` s, turned into the world by the orientation, must point
    there; else quaternion or axes are in another convention and a robot that follows them falls.
    """

    def __init__(self) -> None:
        self._mean = np.zeros(3)
        self.restart()

    def restart(self) -> None:
        """Forget the mean."""
        self._mean.fill(0.0)
        self._stamp = -math.inf

    def check(self, stamp: float, orientation_xyzw: ArrayLike, acceleration: ArrayLike) -> bool:
        """Take up one sample: s, unit quaternion (4,), m/s^2 (3,).

        Returns:
            Whether they agree; False where acceleration, or its mean, is far from gravity in size or not
            finite, which says nothing.

        Raises:
            SensorError: they do not; it says what would fit.
        """
        q, a = np.asarray(orientation_xyzw, np.float64), np.asarray(acceleration, np.float64)
        share = min(max((stamp - self._stamp) / _AVERAGED, 0.0), 1.0)
        strength = math.sqrt(a @ a) / _GRAVITY
        if not (0.5 < strength < 1.5 and np.isfinite(q).all()):  # an impact, a fall, garbage, nothing
            self._stamp = max(self._stamp, stamp if share < 1.0 else -math.inf)
            return False
        self._stamp = stamp
        self._mean += share * (rotate(q, a) - self._mean)
        size = float(np.linalg.norm(self._mean))
        if not 0.5 < size / _GRAVITY < 1.5:
            return False
        if self._mean[2] >= _UPRIGHT * size:
            return True
        x, y, z, w = q
        fitting = [
            what
            for what, up in (
                ("its components in the order x, y, z, w, not w, x, y, z", rotate([y, z, w, x], a)[2]),
                ("its inverse: body to world", rotate([-x, -y, -z, w], a)[2]),
                ("a world whose z axis points up (ENU, not NED)", -rotate(q, a)[2]),
            )
            if up >= _UPRIGHT * np.linalg.norm(a)
        ]
        angle = math.degrees(math.acos(self._mean[2] / size))
        right = " or ".join(fitting) or "axes of the frame that imu_frame names (REP-145)"
        raise SensorError(
            f"imu: orientation contradicts the accelerometer, whose mean points {angle:.0f} deg away from "
            f"up; right would be {right}"
        )


class _Places(NamedTuple):
    """Which of the given values stand for which of the robot's entries."""

    given: NDArray[np.intp]  # places in the message
    own: NDArray[np.intp]  # and in the robot's order
    whole: bool  # all of the robot's entries are there


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
        nowhere = np.empty(0, np.intp)
        self._order: tuple[Sequence[str], _Places] = ((), _Places(nowhere, nowhere, whole=False))

    def sample(
        self, stamp: float, fields: Mapping[str, ArrayLike], names: Sequence[str] | None
    ) -> Sample | None:
        """The sample of one reading; with `stamps` where it holds some of the entries, None where it holds
        none. Raises SensorError."""
        places = None if names is None else self._places(names)
        if places is not None and not len(places.given):
            return None
        count = None if names is None else len(names)
        stamp = float(stamp)
        if not math.isfinite(stamp):
            raise SensorError(f"{self._row.name}: stamp is {stamp}; seconds of the node's clock are needed")
        arrays = {part.name: part.array(fields.get(part.name), count, places) for part in self._fields}
        if self._row.check:
            self._row.check(self._embodiment, arrays)
        stamps = None
        if places is not None and not places.whole:
            stamps = np.full(len(self._fields[0].entries), np.nan)
            stamps[places.own] = stamp
        for array in arrays.values():
            if array is not None:
                array.setflags(write=False)
        return Sample(stamp=stamp, stamps=stamps, **arrays)

    def named(self, stamps: Array | None, since: float) -> str:
        """Names of the entries stamped before `since`, and a colon; empty where all are."""
        old = [] if stamps is None else self._older(stamps, since)
        return f"{', '.join(old)}: " if stamps is not None and len(old) < len(stamps) else ""

    def never(self, stamps: Array) -> str:
        """Names of the entries that never came."""
        return ", ".join(self._older(stamps, -math.inf))

    def _older(self, stamps: Array, since: float) -> list[str]:
        return [
            name for name, stamp in zip(self._fields[0].entries, stamps, strict=True) if not stamp >= since
        ]

    def _places(self, names: Sequence[str]) -> _Places:
        """Where the robot's entries stand in `names`."""
        known, places = self._order
        if not isinstance(names, (list, tuple)):
            names = list(names)
        if known != names:
            places = self._find(names)
            self._order = (names[:], places)
        return places

    def _find(self, names: Sequence[str]) -> _Places:
        wanted = self._fields[0].entries
        at = {name: i for i, name in enumerate(names)}
        twice = [name for name in wanted if list(names).count(name) > 1]
        if twice:
            twice_given = f"{', '.join(twice)} given more than once"
            raise SensorError(f"{self._row.name}: {twice_given}; each {self._row.named} may appear once")
        own = np.array([k for k, name in enumerate(wanted) if name in at], dtype=np.intp)
        given = np.array([at[wanted[k]] for k in own], dtype=np.intp)
        return _Places(given, own, whole=len(own) == len(wanted))


class _CheckedField:
    """One field of a source of one robot: from what is given to a checked array of its own."""

    def __init__(self, row: Source, field: Field, embodiment: Embodiment, needed: bool) -> None:
        self.name, self.entries = field.name, field.entry_names(embodiment)
        self._count = len(self.entries)
        self._needed, self._quaternion, self._named = needed, field.quaternion, row.named
        self._what = f"{row.name}: {field.name.replace('_', ' ')}" if len(row.fields) > 1 else row.name

    def array(self, given: ArrayLike | None, count: int | None, places: _Places | None) -> Array | None:
        """The robot's values, taken at `places` from `count` given ones, NaN where they hold none, or all in
        the robot's order; None where the field may be missing, and is empty or not finite."""
        given = () if given is None else given
        if not self._needed and not np.size(given):
            return None
        count = self._count if count is None else count
        array = np.array(given, np.float64) if places is None else np.asarray(given, np.float64)
        if array.shape != (count,):
            entries = f", one per {self._named} name" if self._named else f" ({', '.join(self.entries)})"
            raise SensorError(f"{self._what} has {array.size} values, {count} are needed{entries}")
        if places is not None:
            array = array[places.given]
        if not np.logical_and.reduce(np.isfinite(array)):
            if not self._needed:  # hardware that does not measure it sends NaN
                return None
            own = range(self._count) if places is None else places.own
            pairs = zip((self.entries[k] for k in own), array, strict=True)
            bad = ", ".join(f"{name} is {value}" for name, value in pairs if not math.isfinite(value))
            joint = " of " if self._named else ": "
            raise SensorError(f"{self._what}{joint}{bad}; finite values are needed")
        if self._quaternion:
            quaternion_length(array, self._what)
        if places is not None and not places.whole:
            whole = np.full(self._count, np.nan)
            whole[places.own] = array
            return whole
        return array
