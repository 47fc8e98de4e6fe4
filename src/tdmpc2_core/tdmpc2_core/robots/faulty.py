"""Messages and drives with the faults of `robots/faults.py`, in arrays.

Simulation node and relay send through a `Line` per source; the simulated robot moves by `Drives`. Times are
of any one clock, s; the same seed and inputs give the same faults.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.config import closest
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.faults import DRIVES, Request
from tdmpc2_core.robots.messages import Reading

Array = NDArray[np.float64]

_ROUNDING = 1e-6  # s, far below any period: what is due at a time is due there
_HOUR = 3600.0  # s, within which a clock that says garbage jumps


class Line:
    """The messages of one source on their way through a fault. Any thread may change the fault.

    Args:
        names: of the entries that a message names, such as joints; empty where it names none.
    """

    def __init__(self, source: str, names: Sequence[str] = (), seed: int = 0) -> None:
        self.source, self._names, self._seed = source, tuple(names), seed
        self._lock = threading.Lock()
        self._request = Request(source, "", "ok", None)
        self._restart()

    def _restart(self) -> None:
        self._rng = np.random.default_rng(self._seed)
        self._since = self._sent = -math.inf
        self._first: Reading | None = None
        self._waiting: deque[tuple[float, Reading]] = deque()

    @property
    def active(self) -> bool:
        """Whether there is a fault; without one messages need not pass here."""
        return self._request.fault != "ok"

    def check(self, request: Request) -> None:
        """Raise UserError where the request names a joint that messages of this source do not."""
        if request.joint and request.joint not in self._names:
            near = closest(request.joint, self._names)
            raise UserError(f"{request.component}: no joint {request.joint!r}{near}")
        if request.fault in ("shuffled", "renamed") and not self._names:
            raise UserError(f"{request.component}: {request.fault} is for messages that name their values")

    def set(self, request: Request) -> None:
        """Change the fault; what waits to be sent is dropped."""
        with self._lock:
            self._request = request
            self._restart()

    def take(self, now: float, reading: Reading) -> list[Reading]:
        """What goes out at `now` after a message came: none, it, others."""
        with self._lock:
            if self._since == -math.inf:
                self._since = now
            due = self._due(now)
            if self._passes(now):
                due += self._timed(now, self._altered(now, reading))
            return due

    def due(self, now: float) -> list[Reading]:
        """What goes out at `now` without a new message."""
        with self._lock:
            return self._due(now)

    def _due(self, now: float) -> list[Reading]:
        found = []
        while self._waiting and self._waiting[0][0] <= now + _ROUNDING:
            found.append(self._waiting.popleft()[1])
        return found

    def _passes(self, now: float) -> bool:
        """Whether the whole message goes on."""
        _, joint, fault, size = self._request
        if fault == "slow":
            late = now - self._sent >= (size or 0.0) - _ROUNDING
            self._sent = now if late else self._sent
            return late
        return bool(joint) or not self._is_off(now)

    def _is_off(self, now: float) -> bool:
        fault, size = self._request.fault, self._request.size or math.inf
        return fault == "off" or (
            fault == "intermittent" and int((now - self._since + _ROUNDING) / size) % 2 == 0
        )

    def _timed(self, now: float, reading: Reading) -> list[Reading]:
        """The message at its time: at once, later, or behind the next one."""
        fault, size = self._request.fault, self._request.size
        if fault == "delayed":
            self._waiting.append((now + (size or 0.0), reading))
        elif fault == "older" and self._first is None:
            self._first = reading
        elif fault == "older":
            (before, self._first) = (self._first, None)
            assert before is not None
            return [reading, before]
        else:
            return [reading]
        return []

    def _altered(self, now: float, reading: Reading) -> Reading:
        """The message with other values, names or order."""
        joint, fault = self._request.joint, self._request.fault
        names = list(reading.names or ())
        if joint and joint not in names:
            return reading  # of others, such as a gripper
        where = names.index(joint) if joint in names else slice(None)
        if fault == "stuck":
            return self._stuck(reading, where)
        if fault == "shuffled":
            order = self._rng.permutation(len(names))
            return _entries(reading, [names[k] for k in order], order)
        if fault == "renamed" and names:
            names[where if isinstance(where, int) else 0] += "_renamed"
            return reading._replace(names=names)
        if joint and self._is_off(now):
            return _entries(
                reading, [n for n in names if n != joint], np.delete(np.arange(len(names)), where)
            )
        if fault in ("garbage", "wrong", "nan"):
            fields = {name: np.array(values, np.float64) for name, values in reading.fields.items()}
            getattr(self, f"_{fault}")(fields, where)
            return reading._replace(fields=fields)
        return reading

    def _stuck(self, reading: Reading, where: int | slice) -> Reading:
        first = self._first = self._first or reading
        if isinstance(where, slice):
            return reading._replace(fields=first.fields, names=first.names)
        at = list(first.names or ()).index(self._request.joint)
        fields = {name: np.array(values, np.float64) for name, values in reading.fields.items()}
        for name, values in fields.items():
            if len(values):
                values[where] = np.asarray(first.fields[name])[at]
        return reading._replace(fields=fields)

    def _garbage(self, fields: dict[str, Array], where: int | slice) -> None:
        for values in fields.values():
            size = values[where].size if len(values) else 0
            drawn = self._rng.choice((-1.0, 1.0), size) * 10.0 ** self._rng.uniform(-3.0, 6.0, size)
            if size:
                values[where] = drawn if isinstance(where, slice) else drawn[0]

    def _wrong(self, fields: dict[str, Array], where: int | slice) -> None:
        size = self._request.size or 0.0
        turned = [name for name in fields if name.endswith("orientation")]
        for name in turned:
            x, y, z, w = fields[name]
            s, c = math.sin(size / 2.0), math.cos(size / 2.0)
            fields[name][:] = c * x + s * w, c * y - s * z, c * z + s * y, c * w - s * x
        if not turned and fields:
            next(iter(fields.values()))[where] += size

    def _nan(self, fields: dict[str, Array], where: int | slice) -> None:
        values = next((values for values in fields.values() if len(values)), None)
        if values is not None:
            values[where if isinstance(where, int) else self._rng.integers(len(values))] = np.nan


def _entries(reading: Reading, names: Sequence[str], places: NDArray[np.intp]) -> Reading:
    """A reading of the entries at `places` alone, in that order."""
    fields = {
        name: np.asarray(values)[places] if len(np.asarray(values)) else values
        for name, values in reading.fields.items()
    }
    return reading._replace(fields=fields, names=list(names))


class ClockLine(Line):
    """The time, as stamps of readings without fields."""

    def _altered(self, now: float, reading: Reading) -> Reading:
        fault, size = self._request.fault, self._request.size or 0.0
        first = self._first = self._first or reading
        stamp, start = reading.stamp or 0.0, first.stamp or 0.0
        if fault == "stuck":
            stamp = start
        elif fault == "wrong":
            stamp += size
        elif fault == "slow":
            stamp = start + size * (stamp - start)
        elif fault == "garbage":
            stamp += self._rng.uniform(-_HOUR, _HOUR)
        return reading._replace(stamp=max(0.0, stamp))

    def _passes(self, now: float) -> bool:
        return self._request.fault == "slow" or not self._is_off(now)


class Drives:
    """The drives of a robot with their faults. Any thread may change them, one calls `targets`."""

    def __init__(self, robot: Embodiment, seed: int = 0) -> None:
        self._robot, self._rng = robot, np.random.default_rng(seed)
        self._faults: dict[int, _Drive] = {}
        self._past: deque[tuple[float, Array]] = deque()
        self._drawn, self._draw_at = robot.default_position.copy(), -math.inf

    @property
    def active(self) -> bool:
        """Whether any drive has a fault."""
        return bool(self._faults)

    def check(self, request: Request) -> None:
        """Raise UserError where the request names a joint that the robot has not."""
        names = self._robot.joint_names
        if request.joint and request.joint not in names:
            raise UserError(f"{DRIVES}: no joint {request.joint!r}{closest(request.joint, names)}")

    def set(self, request: Request) -> None:
        """Change the fault of one joint or of all."""
        names = self._robot.joint_names
        joints = [names.index(request.joint)] if request.joint else range(len(names))
        changed = dict(self._faults)
        for joint in joints:
            changed.pop(joint, None)
            if request.fault != "ok":
                changed[joint] = _Drive(request.fault, request.size or 0.0)
        self._faults = changed  # whole: another thread reads it

    def targets(self, time: float, wanted: Array) -> tuple[Array, Array]:
        """What the drives do at simulated `time`, s, where they are told `wanted` (J,), rad.

        Returns:
            Targets (J,), rad, and the share of its effort limit that each has (J,).
        """
        faults, result, effort = self._faults, wanted.copy(), np.ones(len(wanted))
        self._remember(time, wanted, faults)
        for joint, drive in faults.items():
            if drive.since is None:
                drive.since, drive.held = time, wanted[joint]
            off = drive.fault == "off"
            if drive.fault == "intermittent":
                off = int((time - drive.since + _ROUNDING) / drive.size) % 2 == 0
            if off:
                effort[joint] = 0.0
            elif drive.fault == "slow":
                effort[joint] = drive.size
            elif drive.fault == "stuck":
                result[joint] = drive.held
            elif drive.fault == "wrong":
                result[joint] += drive.size
            elif drive.fault == "garbage":
                result[joint] = self._drawn[joint]
            elif drive.fault == "delayed":
                result[joint] = self._at(time - drive.size)[joint]
        return result, effort

    def _remember(self, time: float, wanted: Array, faults: Mapping[int, _Drive]) -> None:
        late = max((drive.size for drive in faults.values() if drive.fault == "delayed"), default=0.0)
        self._past.append((time, wanted.copy()))
        while len(self._past) > 1 and self._past[1][0] <= time - late + _ROUNDING:
            self._past.popleft()
        if time - self._draw_at >= self._robot.control_period - _ROUNDING:
            self._draw_at = time
            self._drawn = self._rng.uniform(self._robot.lower, self._robot.upper)

    def _at(self, time: float) -> Array:
        """Targets of that time, or the oldest that are known."""
        known = [targets for when, targets in self._past if when <= time + _ROUNDING]
        return known[-1] if known else self._past[0][1]


class _Drive:
    """The fault of one drive: since when, and the target that it had then."""

    def __init__(self, fault: str, size: float) -> None:
        self.fault, self.size = fault, size
        self.since: float | None = None
        self.held = 0.0
