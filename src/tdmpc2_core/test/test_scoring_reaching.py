"""Course of goals, and what counts as reached and held, on made-up tool paths."""

from __future__ import annotations

import numpy as np
import pytest

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.course import ReachCourse
from tdmpc2_core.scoring.reaching import score_reach

ARM = Embodiment.load("arm")
TIME = np.arange(0.0, 20.0, 0.02)


def path(course, distance):
    """Tool poses at TIME, each `distance(s since its goal)` m above the goal, turned as it."""
    rows = []
    for time in TIME:
        goal = course.at(time)
        pose = np.array(goal.command)
        pose[2] += distance(time - goal.start)
        rows.append(pose)
    return np.array(rows)


def test_course_is_a_goal_every_four_seconds_and_repeats_with_the_seed():
    course = ReachCourse(ARM, 20.0, 3)
    assert len(course.segments) == 5 and course.at(7.9) is course.segments[1]
    assert course.segments == ReachCourse(ARM, 20.0, 3).segments != ReachCourse(ARM, 20.0, 4).segments
    with pytest.raises(UserError, match="--seconds is 2, must be from 4 to 3600"):
        ReachCourse(ARM, 2.0, 0)
    with pytest.raises(UserError, match="takes no goals"):
        ReachCourse(Embodiment.load("quadruped"), 20.0, 0)


@pytest.mark.parametrize(
    ("distance", "reached", "held", "passed"),
    [
        (lambda t: 0.3 * max(0.0, 1.0 - t), 5, 5, True),
        (lambda t: 0.3 * max(0.0, 1.0 - t / 3.0), 0, 0, False),  # there after 2.8 s
        (lambda t: 0.01 if t < 3.7 else 0.05, 5, 0, False),  # leaves before the goal's time is over
        (lambda t: 0.015 + 0.01 * np.sin(20.0 * t), 5, 0, False),  # swings through it, near on average
    ],
)
def test_goals_count_when_reached_in_time_and_held_to_the_end(distance, reached, held, passed):
    course = ReachCourse(ARM, 20.0, 0)
    score = score_reach(TIME, path(course, distance), course)
    assert (score.reached, score.held, score.followed) == (reached, held, passed)


def test_times_and_errors_are_those_of_the_path():
    course = ReachCourse(ARM, 20.0, 0)
    score = score_reach(TIME, path(course, lambda t: 0.01 if t >= 1.0 - 1e-9 else 0.5), course)
    assert score.reach_time == pytest.approx(1.0, abs=0.021)
    assert score.position_error == pytest.approx(0.01) and score.rotation_error == pytest.approx(
        0.0, abs=1e-6
    )
    half = score_reach(TIME[:500], path(course, lambda t: 0.0)[:500], course)
    assert not half.complete and "did not reach its end" in half.problems()[0]
