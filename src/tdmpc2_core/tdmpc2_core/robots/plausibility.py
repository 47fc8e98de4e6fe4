"""Plausibility: whether fresh samples can be true of this robot. Refuses those that cannot, with the reason.

Rules, each against the robot's own limits (section `plausibility` of the embodiment file):
  range    positions inside the joint limits and rates inside theirs, each by a margin;
  step     a position moves as its velocity says; where velocity is not measured, no faster than the limit;
  drift    the same over a second, which finds a velocity with a wrong sign or scale;
  turn     the IMU's gravity direction turns as its gyro says, and agrees with its accelerometer;
  frozen   a source whose values are bit for bit the same while another source moves.

A sample that jumped stays refused until it is back, not until the jump is forgotten: an encoder that is one
radian off is off as long as it is. `restart` forgets it, as does the operator who activates the robot anew. A
source that was frozen begins anew, as after silence: what it repeated was not measured.
No rule allocates arrays per sample, and none judges a robot at rest whose sensors have no noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.errors import FrozenSource, SensorError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.rotations import gravity_direction
from tdmpc2_core.robots.sensors import GravityCheck
from tdmpc2_core.robots.terms import SOURCES

Array = NDArray[np.float64]

_GAP = 0.2  # s between samples after which the one before explains nothing: the next begins anew
_MEMORY = 1.0  # s over which drift is summed up
_CONFIRMED = 1.0  # s for which an accelerometer must agree with a turned orientation before it counts
_ALIVE = 10  # changes after which a source is known to be no stand-in of constant values
_JOINT_MOVES, _GYRO_MOVES = 0.02, 0.1  # rad, rad/s: beyond an encoder's steps and an IMU's noise at rest


class Plausibility:
    """Judges the samples of one robot as they come, in order; for one thread."""

    def __init__(self, embodiment: Embodiment) -> None:
        self._joints = _JointRules(embodiment)
        self._imu = _ImuRules(embodiment)
        ages, spec = embodiment.observation.max_ages, embodiment.plausibility
        self._activity = {
            source: _Activity(row_size(embodiment, source), spec.frozen_seconds or age)
            for source, age in ages.items()
        }

    def restart(self) -> None:
        """Start anew from the next sample, as at activation."""
        self._forget("joints")
        self._forget("imu")

    def _forget(self, source: str) -> None:
        if source == "joints":
            self._joints.restart()
        elif source == "imu":
            self._imu.restart()

    def check(self, source: str, sample: Any, raw: Mapping[str, Any]) -> None:
        """Judge a sample before it is stored; `raw` are the fields that it came from.

        Raises:
            SensorError: the sample cannot be true; FrozenSource where it only repeats the ones before.
        """
        activity = self._activity.get(source)
        if activity is not None:  # first: what is frozen breaks other rules, too
            activity.see(sample, source)
            self._check_frozen(source, activity, sample.stamp)
        if source == "joints":
            self._joints.check(sample)
        elif source == "imu":
            self._imu.check(sample, raw.get("acceleration"))

    def _check_frozen(self, source: str, activity: _Activity, stamp: float) -> None:
        since = activity.changed
        if activity.changes < _ALIVE or not stamp - since > activity.patience:
            return
        others = {name: other.moved for name, other in self._activity.items() if name != source}
        moved, what = max(others.values(), default=-math.inf), " and ".join(others)
        if moved > since:
            self._forget(source)  # what it repeated was not measured then: the next sample begins anew
            raise FrozenSource(
                f"{source}: the same values for {stamp - since:.3g} s while {what} moved; "
                "its sensor or driver repeats them under fresh stamps"
            )


def row_size(embodiment: Embodiment, source: str) -> int:
    """Values in all fields of a sample of the source."""
    return sum(len(part.entry_names(embodiment)) for part in SOURCES[source].fields)


class _Anchor:
    """When values last moved by more than `significant` from where they were when they last did."""

    def __init__(self, size: int, significant: float) -> None:
        self._values, self._work = np.full(size, np.nan), np.empty(size)
        self._significant = significant
        self.moved = -math.inf  # s

    def see(self, stamp: float, values: Array) -> None:
        if math.isnan(self._values[0]):
            self._values[:] = values
            return
        np.subtract(values, self._values, out=self._work)
        np.abs(self._work, out=self._work)
        if np.fmax.reduce(self._work) > self._significant:  # NaN: a joint that did not come
            np.copyto(self._values, values)
            self.moved = stamp


class _Activity:
    """When a source last changed at all, and when it last moved."""

    def __init__(self, size: int, patience: float) -> None:
        self.patience, self.changes = patience, 0
        self.changed = -math.inf  # s
        self._values, self._new = np.zeros(size), np.zeros(size)
        self._anchor: _Anchor | None = None

    @property
    def moved(self) -> float:
        return -math.inf if self._anchor is None else self._anchor.moved

    def see(self, sample: Any, source: str) -> None:
        start, new = 0, self._new
        for part in SOURCES[source].fields:
            values = getattr(sample, part.name)
            if values is not None:
                came = np.isfinite(values)
                np.copyto(new[start : start + len(values)], values, where=came)
                start += len(values)
        if not np.array_equal(new, self._values):
            np.copyto(self._values, new)
            self.changed = sample.stamp
            self.changes += 1
        elif sample.stamp < self.changed:  # the clock went back
            self.changed = sample.stamp
        first = getattr(sample, SOURCES[source].fields[0].name)
        if self._anchor is None:
            self._anchor = _Anchor(len(first), _JOINT_MOVES if source == "joints" else _GYRO_MOVES)
        self._anchor.see(sample.stamp, first)


class _JointRules:
    """Range, step and drift of all joints at once."""

    def __init__(self, robot: Embodiment) -> None:
        spec, count = robot.plausibility, robot.num_joints
        self._names = robot.joint_names
        self._lower, self._upper = robot.lower - spec.limit_margin, robot.upper + spec.limit_margin
        self._fastest = spec.velocity_factor * robot.velocity_limit
        self._unmeasured = np.maximum(robot.velocity_limit, robot.safety.max_target_rate)
        self._share, self._slack = spec.velocity_error * robot.velocity_limit, spec.position_error
        self._drift_limit = robot.velocity_limit * robot.control_period + 2.0 * spec.position_error
        self._position, self._velocity, self._stamp = (np.zeros(count) for _ in range(3))
        self._shift, self._drift = np.zeros(count), np.zeros(count)
        self._dt, self._step, self._rest, self._allow, self._work = (np.zeros(count) for _ in range(5))
        self._bad, self._known = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        self._measures = np.zeros(count, np.bool_)  # velocities that have been other than zero
        self.restart()

    def restart(self) -> None:
        self._drifted = -math.inf, ""  # s, why
        self._stamp.fill(np.nan)
        self._shift.fill(0.0)
        self._drift.fill(0.0)

    def check(self, sample: Any) -> None:
        position, velocity = sample.position, sample.velocity
        self._check_range(position, velocity)
        stamps = sample.stamp if sample.stamps is None else sample.stamps
        self._follow(position, velocity, stamps)
        np.abs(self._shift, out=self._work)
        np.greater(self._work, 2.0 * self._slack, out=self._bad)
        if self._bad.any():
            k = int(np.argmax(self._work))
            raise SensorError(
                f"joints: {self._names[k]} jumped by {self._shift[k]:.3g} rad, which its velocity does not "
                "explain; it counts again once it is back, or the planner activated anew"
            )
        self._check_drift(sample.stamp)

    def _check_drift(self, stamp: float) -> None:
        """Raise SensorError from a drift on, until there has been none for as long as it is summed up."""
        np.abs(self._drift, out=self._work)
        np.greater(self._work, self._drift_limit, out=self._bad)
        if self._bad.any():
            k = int(np.argmax(self._work / self._drift_limit))
            self._drifted = (
                stamp,
                (
                    f"joints: position and velocity of {self._names[k]} disagree by {self._drift[k]:.3g} rad "
                    f"within {_MEMORY:g} s, at most {self._drift_limit[k]:.3g} rad; check sign and unit"
                ),
            )
        since, problem = self._drifted
        if 0.0 <= stamp - since < _MEMORY:
            raise SensorError(problem)

    def _check_range(self, position: Array, velocity: Array | None) -> None:
        np.less(position, self._lower, out=self._bad)
        np.greater(position, self._upper, out=self._known)
        np.logical_or(self._bad, self._known, out=self._bad)
        if self._bad.any():
            k = int(np.argmax(self._bad))
            raise SensorError(
                f"joints: {self._names[k]} at {position[k]:.3g} rad, must lie in "
                f"[{self._lower[k]:.3g}, {self._upper[k]:.3g}] (its limits and plausibility.limit_margin)"
            )
        if velocity is None:
            return
        np.abs(velocity, out=self._work)
        np.greater(self._work, self._fastest, out=self._bad)
        if self._bad.any():
            k = int(np.argmax(self._bad))
            raise SensorError(
                f"joints: {self._names[k]} moves at {velocity[k]:.3g} rad/s, at most "
                f"{self._fastest[k]:.3g} (its velocity limit times plausibility.velocity_factor)"
            )

    def _follow(self, position: Array, velocity: Array | None, stamps: Any) -> None:
        """Take up the sample: what of its step no velocity explains goes into `_shift` or `_drift`."""
        dt, step, rest, known = self._dt, self._step, self._rest, self._known
        np.subtract(stamps, self._stamp, out=dt)  # NaN for what did not come, and the first time
        np.less_equal(dt, _GAP, out=known)  # false for NaN
        np.copyto(dt, 0.0, where=~known)
        np.maximum(dt, 0.0, out=dt)
        np.subtract(position, self._position, out=step)
        np.copyto(rest, step)
        if velocity is not None:
            np.logical_or(self._measures, np.not_equal(velocity, 0.0), out=self._measures, where=known)
            np.add(velocity, self._velocity, out=self._work)
            self._work *= 0.5
            self._work *= dt
            rest -= self._work
        np.copyto(self._allow, self._unmeasured)
        np.copyto(self._allow, self._share, where=self._measures)
        self._allow *= dt
        self._allow += self._slack
        self._sort(known)
        if velocity is not None:
            np.copyto(self._velocity, velocity, where=np.isfinite(velocity))
        came = np.isfinite(position)
        np.copyto(self._position, position, where=came)
        np.copyto(self._stamp, stamps, where=came)

    def _sort(self, known: NDArray[np.bool_]) -> None:
        """Add rests beyond what is allowed to the shift, for good; others to the drift, which fades.

        A joint that is shifted comes back by a step that may fall short of what is allowed by a little.
        """
        rest, work, bad = self._rest, self._work, self._bad
        np.abs(self._shift, out=work)
        np.greater(work, 2.0 * self._slack, out=bad)
        np.copyto(self._allow, self._slack, where=bad)
        np.abs(rest, out=work)
        np.greater(work, self._allow, out=bad)
        np.logical_and(bad, known, out=bad)
        np.abs(self._step, out=work)
        bad &= work > self._allow  # a wrong velocity beside a right position drifts
        np.add(self._shift, rest, out=self._shift, where=bad)
        np.copyto(rest, 0.0, where=bad | ~known | ~self._measures)
        np.multiply(self._dt, -1.0 / _MEMORY, out=work)
        np.exp(work, out=work)
        self._drift *= work
        self._drift += rest


class _ImuRules:
    """Range and turn of an IMU, and its orientation against its accelerometer."""

    def __init__(self, robot: Embodiment) -> None:
        spec = robot.plausibility
        self._fastest, self._slack, self._error = spec.gyro_limit, spec.turn_error, spec.gyro_error
        self._down, self._rate = np.zeros(3), np.zeros(3)
        self._gravity = GravityCheck()
        self.restart()

    def restart(self) -> None:
        self._stamp, self._turned_at = math.nan, math.nan  # s
        self._gravity.restart()

    def check(self, sample: Any, acceleration: Any) -> None:
        rate, stamp = sample.angular_velocity, sample.stamp
        fastest = max(abs(rate[0]), abs(rate[1]), abs(rate[2]))
        if fastest > self._fastest:
            raise SensorError(
                f"imu: turns at {fastest:.3g} rad/s, at most {self._fastest:g} (plausibility.gyro_limit); "
                "rad/s are needed"
            )
        down = np.asarray(gravity_direction(sample.orientation))
        off = self._turn(stamp, down, rate)
        if off:
            confirmed = acceleration is not None and self._confirms(stamp, sample.orientation, acceleration)
            if not confirmed:
                raise SensorError(
                    f"imu: the orientation turned by {math.degrees(off):.0f} deg, which the gyro does not "
                    "explain; check its mounting, convention (ENU) and driver"
                )
            self._down[:], self._turned_at = down, math.nan
        if acceleration is not None:
            self._gravity.check(stamp, sample.orientation, acceleration)

    def _turn(self, stamp: float, down: Array, rate: Array) -> float:
        """Angle, rad, between gravity as measured and as the gyro carried it on; 0 where that is allowed."""
        dt = stamp - self._stamp
        self._stamp = stamp
        turned = not math.isnan(self._turned_at)
        if math.isnan(dt) or dt < 0.0 or (dt > _GAP and not turned):
            self._down[:], self._rate[:] = down, rate
            return 0.0
        (x, y, z), (p, q, r) = self._down, 0.5 * (rate + self._rate)
        self._rate[:] = rate
        carried = x + dt * (y * r - z * q), y + dt * (z * p - x * r), z + dt * (x * q - y * p)
        length = math.sqrt(sum(v * v for v in carried))
        cosine = (carried[0] * down[0] + carried[1] * down[1] + carried[2] * down[2]) / length
        angle = math.acos(min(max(cosine, -1.0), 1.0))
        if angle <= self._slack + self._error * dt:
            self._down[:] = down
            if turned:
                self._turned_at = math.nan
                self._gravity.restart()
            return 0.0
        for k in range(3):
            self._down[k] = carried[k] / length
        if not turned:
            self._turned_at = stamp
            self._gravity.restart()
        return angle

    def _confirms(self, stamp: float, orientation: Array, acceleration: Any) -> bool:
        """Whether the accelerometer has agreed with the turned orientation for long enough."""
        try:
            judged = self._gravity.check(stamp, orientation, acceleration)
        except SensorError:
            self._turned_at = stamp
            return False
        if not judged:
            self._turned_at = stamp
        return stamp - self._turned_at >= _CONFIRMED
