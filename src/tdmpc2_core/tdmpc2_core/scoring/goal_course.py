"""The quickstart's course of an arm, goals one after the other, and how it is judged. No ROS imports."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.envs.robot.goals import GoalSampler
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.rotations import pose_error, to_matrix

Array = NDArray[np.float64]
MIN_HELD = 0.8  # share of the goals
_HOLD_SECONDS = 0.5  # at the end of a goal's time, in which the tool must stay within the tolerance
_LAST_SAMPLE = 0.5  # s that the last sample may come before the end


@dataclass(frozen=True)
class Goal:
    """From `start` to `end`, s, the tool is sent to `command`: m and quaternion xyzw in the base frame."""

    name: str
    start: float
    end: float
    command: tuple[float, ...]


class ReachCourse:
    """Random goals of the embodiment, each for its `resample_seconds`.

    Raises:
        UserError: the time is too short for one goal, or the robot takes none.
    """

    def __init__(self, embodiment: Embodiment, seconds: float, seed: int) -> None:
        sampler, spec = GoalSampler(embodiment), embodiment.pose_command
        assert spec is not None
        if not spec.resample_seconds <= seconds <= 3600.0:
            raise UserError(f"--seconds is {seconds:g}, must be from {spec.resample_seconds:g} to 3600")
        count, rng = int(seconds / spec.resample_seconds), np.random.default_rng(seed)
        self.seconds, self.tolerance, self.reach_seconds = (
            seconds,
            spec.position_tolerance,
            spec.reach_seconds,
        )
        times = np.linspace(0.0, seconds, count + 1)
        self.segments = [
            Goal(f"goal {k + 1}", float(times[k]), float(times[k + 1]), tuple(map(float, sampler.draw(rng))))
            for k in range(count)
        ]

    def at(self, time: float) -> Goal:
        """The goal at `time`, s since the start."""
        return next((goal for goal in self.segments if time < goal.end), self.segments[-1])

    def error(self, tool: Array, goal: Goal) -> tuple[Array, Array]:
        """Distances (m) and angles (rad) from tool poses (..., 7) to a goal."""
        offset, turn = pose_error(tool[..., :3], to_matrix(tool[..., 3:]), np.array(goal.command))
        return np.linalg.norm(offset, axis=-1), np.linalg.norm(turn, axis=-1)


@dataclass(frozen=True)
class ReachScore:
    """Errors are means over the end of each goal's time; m, rad, s."""

    goals: int
    reached: int  # within the tolerance in time
    held: int  # and still there at the end of the goal's time
    reach_time: float  # s, mean of those reached
    position_error: float
    rotation_error: float
    complete: bool  # the robot was observed to the end of the course

    @property
    def followed(self) -> bool:
        """Reached its goals in time and held them."""
        return not self.problems()

    def problems(self) -> list[str]:
        """What keeps the run from passing."""
        problems = [] if self.complete else ["the run did not reach its end"]
        if self.held < MIN_HELD * self.goals:
            problems.append(f"less than {100 * MIN_HELD:.0f} % of the goals reached and held")
        return problems

    def rows(self) -> list[tuple[str, str]]:
        """Lines of the table."""
        return [
            ("goals reached", f"{self.reached} of {self.goals}"),
            ("goals held", f"{self.held} of {self.goals}"),
            ("time to reach", f"{self.reach_time:.2f} s (mean)"),
            ("position error", f"{1000 * self.position_error:.1f} mm (holding, mean)"),
            ("rotation error", f"{self.rotation_error:.3f} rad (holding, mean)"),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for results.json."""
        return {**asdict(self), "followed": self.followed}


def score_reach(time: Array, tool: Array, course: ReachCourse) -> ReachScore:
    """Judge tool poses (T, 7) at times (T,), s since the start of the course."""
    reached, held, reach_times, ends = 0, 0, list[float](), list[tuple[float, float]]()
    for goal in course.segments:
        inside = (time >= goal.start) & (time < goal.end)
        if not inside.any():
            continue
        since = time[inside] - goal.start
        distance, angle = course.error(tool[inside], goal)
        close = np.flatnonzero((distance <= course.tolerance) & (since <= course.reach_seconds))
        end = since >= since[-1] - _HOLD_SECONDS
        ends.append((float(distance[end].mean()), float(angle[end].mean())))
        if len(close):
            reached += 1
            held += bool((distance[end] <= course.tolerance).all())
            reach_times.append(float(since[close[0]]))
    errors = np.mean(ends, axis=0) if ends else (float("nan"), float("nan"))
    return ReachScore(
        goals=len(course.segments),
        reached=reached,
        held=held,
        reach_time=float(np.mean(reach_times)) if reach_times else float("nan"),
        position_error=float(errors[0]),
        rotation_error=float(errors[1]),
        complete=bool(len(time) and time[-1] > course.seconds - _LAST_SAMPLE),
    )
