"""Reaching: whether a tool comes to its goals in time and holds them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.robots.embodiment import PoseCommandSpec
from tdmpc2_core.scoring.course import ReachCourse

Array = NDArray[np.floating[Any]]
MIN_HELD = 0.8  # share of the goals
_HOLD_SECONDS = 0.5  # at the end of a goal's time, in which the tool must stay within the tolerance
_LAST_SAMPLE = 0.5  # s that the last sample may come before the end


class GoalScore(NamedTuple):
    """One goal. Held: within the tolerance in time, and at every sample of the last half second; a mean would
    forgive a tool that swings through its goal. Errors are means over that half second, m and rad."""

    reached: bool
    held: bool
    reach_time: float  # s; NaN when it was not reached
    position_error: float
    rotation_error: float


def score_goal(since: Array, distance: Array, angle: Array, spec: PoseCommandSpec) -> GoalScore:
    """Judge the samples (T,) of one goal: s since it was given, m and rad from it."""
    close = np.flatnonzero((distance <= spec.position_tolerance) & (since <= spec.reach_seconds))
    end = since >= since[-1] - _HOLD_SECONDS
    reached = bool(len(close))
    return GoalScore(
        reached=reached,
        held=reached and bool((distance[end] <= spec.position_tolerance).all()),
        reach_time=float(since[close[0]]) if reached else float("nan"),
        position_error=float(distance[end].mean()),
        rotation_error=float(angle[end].mean()),
    )


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
    goals: list[GoalScore] = []
    for goal in course.segments:
        inside = (time >= goal.start) & (time < goal.end)
        if inside.any():
            errors = course.error(tool[inside], goal)
            goals.append(score_goal(time[inside] - goal.start, *errors, course.spec))
    times = [goal.reach_time for goal in goals if goal.reached]
    nothing = float("nan")
    return ReachScore(
        goals=len(course.segments),
        reached=sum(goal.reached for goal in goals),
        held=sum(goal.held for goal in goals),
        reach_time=float(np.mean(times)) if times else nothing,
        position_error=float(np.mean([goal.position_error for goal in goals])) if goals else nothing,
        rotation_error=float(np.mean([goal.rotation_error for goal in goals])) if goals else nothing,
        complete=bool(len(time) and time[-1] > course.seconds - _LAST_SAMPLE),
    )
