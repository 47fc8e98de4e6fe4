"""Course and score of the quickstart, without processes."""

from __future__ import annotations

import numpy as np
import pytest

from tdmpc2_core.errors import UserError
from tdmpc2_core.files import shipped_bundle
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.scoring.course import Course
from tdmpc2_core.scoring.walking import Motion, score_walk

ROBOT = Embodiment.load("quadruped")


def test_course_fills_the_time():
    for seconds in (6.0, 30.0, 600.0):
        parts = Course(ROBOT, seconds).segments
        assert [part.name for part in parts] == ["stand", "walk", "turn", "walk", "stop"]
        assert parts[0].start == 0.0 and parts[-1].end == pytest.approx(seconds)
        assert all(a.end == pytest.approx(b.start) for a, b in zip(parts, parts[1:], strict=False))
    with pytest.raises(UserError, match="--seconds is 5"):
        Course(ROBOT, 5.0)


def _motion(course: Course, share: float = 1.0, fall_at: float | None = None) -> Motion:
    """A robot that follows the course with `share` of the commanded speed."""
    time_ = np.arange(0.0, course.seconds, 0.01)
    commands = course.commands(time_)
    rows = len(time_)
    orientation = np.tile([0.0, 0.0, 0.0, 1.0], (rows, 1))
    position = np.tile([0.0, 0.0, 0.3], (rows, 1))
    if fall_at is not None:
        position[time_ > fall_at, 2] = 0.1
    linear = np.pad(share * commands[:, :2], ((0, 0), (0, 1)))
    angular = np.pad(commands[:, 2:], ((0, 0), (2, 0)))
    return Motion(time_, position, orientation, linear, angular)


def test_score_of_a_perfect_a_slow_and_a_fallen_robot():
    course = Course(ROBOT, 20.0)
    perfect = score_walk(_motion(course), course, ROBOT)
    assert perfect.followed
    assert perfect.covered == pytest.approx(1.0, abs=0.01)
    assert perfect.velocity_error < 0.03
    slow = score_walk(_motion(course, 0.7), course, ROBOT)
    assert not slow.followed and slow.covered == pytest.approx(0.7, abs=0.01)
    fallen = score_walk(_motion(course, fall_at=5.0), course, ROBOT)
    assert not fallen.followed and fallen.falls == 1


def test_score_of_a_robot_that_runs_on_or_is_lost():
    course = Course(ROBOT, 20.0)
    motion = _motion(course)
    motion.linear[motion.time > 17.0, 0] = 0.4
    assert not score_walk(motion, course, ROBOT).followed
    short = Motion(*(values[:500] for values in vars(_motion(course)).values()))
    assert not score_walk(short, course, ROBOT).complete


def test_robot_without_model_is_one_sentence():
    with pytest.raises(UserError, match="no trained bundle"):
        shipped_bundle("no_such_robot")
