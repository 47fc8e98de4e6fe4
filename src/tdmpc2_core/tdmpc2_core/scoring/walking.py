"""Walking: how well velocities are followed, and whether the robot fell, from a simulation's ground truth.

Velocity errors are those of velocities averaged over a gait cycle: the trunk of a robot that follows its
command perfectly still sways within each step, and an error of single instants is mostly that sway.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.rotations import tilt
from tdmpc2_core.robots.trajectory import windowed_mean
from tdmpc2_core.scoring.course import Course

Array = NDArray[np.floating[Any]]
_GAIT_SECONDS = 0.5  # s: velocities are averaged over this, about a gait cycle
MIN_COVERED, MAX_STOP_SPEED = 0.8, 0.1  # share of the commanded distance; m/s in the last second


@dataclass(frozen=True)
class Motion:
    """Ground truth over time: s since the start, m, quaternion xyzw, and velocities in the base frame.

    The ground is z = 0: that of the worlds that quickstarts run in.
    """

    time: Array  # (T,)
    position: Array  # (T, 3)
    orientation: Array  # (T, 4)
    linear: Array  # (T, 3)
    angular: Array  # (T, 3)


@dataclass(frozen=True)
class WalkScore:
    """SI units; errors are means over the course."""

    commanded_distance: float
    distance: float  # along the commanded direction
    covered: float  # share of the commanded distance
    velocity_error: float
    yaw_rate_error: float
    falls: int
    stop_speed: float  # mean over the last second
    complete: bool  # the robot was observed to the end of the course

    @property
    def followed(self) -> bool:
        """Stayed up, covered the distance and stopped when told to."""
        stopped = self.stop_speed < MAX_STOP_SPEED
        return self.complete and not self.falls and self.covered >= MIN_COVERED and stopped

    def problems(self) -> list[str]:
        """What keeps the run from passing."""
        problems = [] if self.complete else ["the run did not reach its end"]
        if self.falls:
            problems.append("the robot fell")
        if self.covered < MIN_COVERED:
            problems.append(f"less than {100 * MIN_COVERED:.0f} % of the commanded distance")
        if self.stop_speed >= MAX_STOP_SPEED:
            problems.append(f"faster than {MAX_STOP_SPEED:g} m/s after stop")
        return problems

    def rows(self) -> list[tuple[str, str]]:
        """Lines of the table."""
        share = f"{100 * self.covered:.0f} %"
        return [
            ("distance", f"{self.distance:.2f} m of {self.commanded_distance:.2f} m ({share})"),
            ("velocity error", f"{self.velocity_error:.3f} m/s (mean)"),
            ("yaw rate error", f"{self.yaw_rate_error:.3f} rad/s (mean)"),
            ("falls", str(self.falls)),
            ("speed after stop", f"{self.stop_speed:.3f} m/s (last second)"),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for results.json."""
        return {**asdict(self), "followed": self.followed}


class FallCounter:
    """Counts how often the embodiment's termination condition begins to hold."""

    def __init__(self, embodiment: Embodiment) -> None:
        self._limits, self._down, self.count = embodiment.termination, False, 0

    def add(self, height: float, orientation_xyzw: Array) -> None:
        """One sample: height of the base above the ground, m, and its orientation."""
        down = bool(self._limits.reached(height, tilt(orientation_xyzw)))
        self.count += down and not self._down
        self._down = down


def score_walk(motion: Motion, course: Course, embodiment: Embodiment) -> WalkScore:
    """Judge a run; samples outside the course are left out."""
    inside = (motion.time >= 0.0) & (motion.time <= course.seconds)
    time = motion.time[inside]
    if len(time) < 2:
        return WalkScore(course.distance, 0.0, 0.0, 0.0, 0.0, 0, 0.0, False)
    linear, angular = motion.linear[inside, :2], motion.angular[inside, 2]
    commands = course.commands(time)
    falls = FallCounter(embodiment)
    for height, orientation in zip(motion.position[inside, 2], motion.orientation[inside], strict=True):
        falls.add(float(height), orientation)
    distance = along(time, linear, commands)
    last = time >= course.seconds - 1.0
    velocity_error, yaw_rate_error = tracking_errors(time, np.column_stack([linear, angular]), commands)
    return WalkScore(
        commanded_distance=course.distance,
        distance=distance,
        covered=distance / course.distance,
        velocity_error=velocity_error,
        yaw_rate_error=yaw_rate_error,
        falls=falls.count,
        stop_speed=float(np.linalg.norm(linear[last], axis=1).mean()) if last.any() else float("inf"),
        complete=bool(time[-1] > course.seconds - 0.5),
    )


def along(time: Array, linear: Array, commands: Array) -> float:
    """Distance (m) along the commanded direction with horizontal velocities (T, 2) at times (T,), s."""
    speed = np.linalg.norm(commands[:, :2], axis=1)
    direction = commands[:, :2] / np.maximum(speed, 1e-9)[:, None]
    return float(np.sum(np.sum(linear * direction, axis=1) * np.diff(time, append=time[-1])))


def path_length(time: Array, linear: Array) -> float:
    """Way of the base (m), without its sway, from horizontal velocities (T, 2) at times (T,), s."""
    speed = np.linalg.norm(windowed_mean(time, linear, _GAIT_SECONDS), axis=1)
    return float(np.sum(speed * np.diff(time, append=time[-1])))


def tracking_errors(time: Array, velocity: Array, commands: Array) -> tuple[float, float]:
    """Mean errors of horizontal velocity (m/s) and yaw rate (rad/s), averaged over a gait cycle.

    velocity, commands: (T, 3) forward, lateral, yaw at times (T,), s.
    """
    error = windowed_mean(time, velocity, _GAIT_SECONDS) - commands
    return float(np.linalg.norm(error[:, :2], axis=1).mean()), float(np.abs(error[:, 2]).mean())
