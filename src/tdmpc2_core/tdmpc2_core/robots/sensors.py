"""SensorState: the newest sample of every source. Callbacks write, one planner or control thread reads.

Each source is one attribute that holds an immutable tuple of read-only arrays; a write replaces the whole
tuple, which Python does atomically. A reader therefore sees either the old or the new sample, never a
mixture, without a lock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots.embodiment import Embodiment

Array = NDArray[np.float64]

ROUNDING = 1e-9
"""Seconds by which an age may exceed its limit, so that whole control periods do not depend on rounding."""


class JointSample(NamedTuple):
    """Positions (J,) rad, velocities (J,) rad/s in embodiment order; velocity None where no term needs it."""

    stamp: float
    position: Array
    velocity: Array | None


class ImuSample(NamedTuple):
    """Orientation (4,) xyzw of the IMU in a z-up world, angular velocity (3,) rad/s, its frame (REP-145)."""

    stamp: float
    orientation: Array
    angular_velocity: Array


class CommandSample(NamedTuple):
    """Command values (C,) in the order of `command.names`, as received."""

    stamp: float
    values: Array


class Snapshot(NamedTuple):
    """The samples of all sources at one instant; None where nothing was received."""

    joints: JointSample | None
    imu: ImuSample | None
    command: CommandSample | None


class SensorState:
    """Newest sample of every source with its stamp (s, of whichever clock the caller uses throughout)."""

    def __init__(self, embodiment: Embodiment) -> None:
        self._names = embodiment.joint_names
        self._command_names = embodiment.command.names if embodiment.command else ()
        self._pose_command = embodiment.pose_command is not None
        self._max_ages = tuple(embodiment.observation.max_ages.items())
        self._velocity_needed = embodiment.observation.has("joint_velocity")
        self._order: tuple[Sequence[str], NDArray[np.intp]] = ((), np.empty(0, np.intp))
        self._joints: JointSample | None = None
        self._imu: ImuSample | None = None
        self._command: CommandSample | None = None

    def clear(self) -> None:
        """Forget every sample, as at activation or after the clock jumped."""
        self._joints = self._imu = self._command = None

    def set_joints(
        self, stamp: float, names: Sequence[str], position: ArrayLike, velocity: ArrayLike
    ) -> None:
        """Store a joint state; names in any order, others than the robot's are ignored.

        position and velocity are as long as names (rad, rad/s). Raises SensorError when a joint is missing, a
        length is wrong or a value of one of the robot's joints is not finite; the sample is then not stored.
        """
        if not isinstance(names, (list, tuple)):
            names = list(names)
        known, index = self._order
        if known != names:
            index = self._index(names)
            self._order = (names[:], index)
        stamp = _stamp(stamp, "joints")
        placed = self._ordered(position, "position", len(names), index)
        speed = None
        if self._velocity_needed or np.size(velocity):
            speed = self._ordered(velocity, "velocity", len(names), index)
        self._joints = JointSample(stamp, placed, speed)

    def set_imu(self, stamp: float, orientation_xyzw: ArrayLike, angular_velocity: ArrayLike) -> None:
        """Store an IMU sample: unit quaternion xyzw (4,), rad/s (3,). SensorError for anything else."""
        stamp = _stamp(stamp, "imu")
        orientation = _vector(orientation_xyzw, ("x", "y", "z", "w"), "imu: orientation")
        gyro = _vector(angular_velocity, ("x", "y", "z"), "imu: angular velocity")
        norm = math.sqrt(float(orientation @ orientation))
        if not 0.9 <= norm <= 1.1:
            raise SensorError(f"imu: orientation must be a unit quaternion, its length is {norm:.3g}")
        self._imu = ImuSample(stamp, orientation, gyro)

    def set_command(self, stamp: float, values: ArrayLike) -> None:
        """Store a command (C,) in the order of `command.names`: velocities, or a pose in the base frame.

        Raises SensorError when it is not finite, or the quaternion of a pose is not a unit one.
        """
        stamp = _stamp(stamp, "command")
        command = _vector(values, self._command_names, "command")
        if self._pose_command:
            norm = math.sqrt(float(command[3:] @ command[3:]))
            if not 0.9 <= norm <= 1.1:
                raise SensorError(f"command: orientation must be a unit quaternion, its length is {norm:.3g}")
            command = np.concatenate([command[:3], command[3:] / norm])
            command.setflags(write=False)
        self._command = CommandSample(stamp, command)

    def clear_command(self) -> None:
        """Forget the command: a robot without one stands or holds."""
        self._command = None

    def snapshot(self) -> Snapshot:
        """The samples of this instant; safe to keep, later writes do not change it."""
        return Snapshot(self._joints, self._imu, self._command)

    def stale(self, now: float) -> list[str]:
        """One text per source that an observation needs and that is missing, too old or from the future."""
        return self.stale_in(self.snapshot(), now)

    def stale_in(self, snapshot: Snapshot, now: float) -> list[str]:
        """As `stale`, for a snapshot taken before. A command is never stale: silence counts as zero."""
        problems = []
        for source, max_age in self._max_ages:
            sample = snapshot.joints if source == "joints" else snapshot.imu
            if sample is None:
                problems.append(f"{source}: never received")
                continue
            age = now - sample.stamp
            if age > max_age + ROUNDING:
                problems.append(f"{source}: {age:.3g} s old, at most {max_age:g} s")
            elif age < -max_age - ROUNDING:
                problems.append(f"{source}: stamped {-age:.3g} s in the future, at most {max_age:g} s")
        return problems

    def _index(self, names: Sequence[str]) -> NDArray[np.intp]:
        places = {name: i for i, name in enumerate(names)}
        missing = [name for name in self._names if name not in places]
        if missing:
            received = ", ".join(names) or "no joints"
            raise SensorError(f"joints: missing {', '.join(missing)}; received {received}")
        twice = [name for name in self._names if list(names).count(name) > 1]
        if twice:
            raise SensorError(f"joints: {', '.join(twice)} given more than once; each joint may appear once")
        return np.array([places[name] for name in self._names], dtype=np.intp)

    def _ordered(self, values: ArrayLike, what: str, count: int, index: NDArray[np.intp]) -> Array:
        array = np.asarray(values, dtype=np.float64)
        if array.shape != (count,):
            raise SensorError(
                f"joints: {what} has {array.size} values, {count} are needed, one per joint name"
            )
        result = array[index]
        if not np.isfinite(result).all():
            bad = [f"{n} is {v}" for n, v in zip(self._names, result, strict=True) if not math.isfinite(v)]
            raise SensorError(f"joints: {what} of {', '.join(bad)}; finite values are needed")
        result.setflags(write=False)
        return result


def _stamp(stamp: float, source: str) -> float:
    stamp = float(stamp)
    if not math.isfinite(stamp):
        raise SensorError(f"{source}: stamp is {stamp}; seconds of the node's clock are needed")
    return stamp


def _vector(values: ArrayLike, names: tuple[str, ...], what: str) -> Array:
    result = np.array(values, dtype=np.float64)
    if result.shape != (len(names),):
        raise SensorError(f"{what} has {result.size} values, {len(names)} are needed ({', '.join(names)})")
    if not np.isfinite(result).all():
        bad = [f"{n} is {v}" for n, v in zip(names, result, strict=True) if not math.isfinite(v)]
        raise SensorError(f"{what}: {', '.join(bad)}; finite values are needed")
    result.setflags(write=False)
    return result
