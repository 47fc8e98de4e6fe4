"""Course of velocities and how it is judged, in a quickstart and in training, on made-up motions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from planning_support import small_model

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.scoring.course import Course
from tdmpc2_core.scoring.evaluation import evaluate_robot, evaluation_table
from tdmpc2_core.scoring.walking import Motion, score_walk, tracking_errors

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
    assert json.loads(json.dumps(fallen.to_dict()))["falls"] == 1


def test_score_of_a_robot_that_runs_on_or_is_lost():
    course = Course(ROBOT, 20.0)
    motion = _motion(course)
    motion.linear[motion.time > 17.0, 0] = 0.4
    assert not score_walk(motion, course, ROBOT).followed
    short = Motion(*(values[:500] for values in vars(_motion(course)).values()))
    assert not score_walk(short, course, ROBOT).complete


def test_sway_within_a_gait_cycle_is_no_velocity_error():
    time = np.arange(0.0, 10.0, 0.02)
    commands = np.tile([0.5, 0.0, 0.3], (len(time), 1))
    sway = 0.3 * np.sin(2.0 * np.pi * 2.0 * time)[:, None]  # at 2 Hz, of a robot that follows
    velocity_error, yaw_rate_error = tracking_errors(time, commands + sway, commands)
    assert velocity_error < 0.03 and yaw_rate_error < 0.02
    velocity_error, yaw_rate_error = tracking_errors(time, commands + [0.1, 0.0, -0.2], commands)
    assert velocity_error == pytest.approx(0.1) and yaw_rate_error == pytest.approx(0.2)


def test_training_and_quickstart_judge_alike(monkeypatch):
    """A robot that does 0.4 m/s where 0.5 are asked for, and sways by 0.3 within each step."""

    def sway(time):
        return 0.3 * np.sin(4.0 * np.pi * time)

    def velocity(simulation):
        return np.array([0.4 + sway(simulation.time), 0.0, 0.0]), np.zeros(3)

    agent = Agent(small_model(ROBOT.observation_dim, ROBOT.action_dim, seed=0), "policy", embodiment=ROBOT)
    monkeypatch.setattr(Simulation, "base_velocity", velocity)
    monkeypatch.setattr(Simulation, "fallen", lambda simulation: False)
    trained = evaluate_robot(agent, ROBOT, seconds=9.0, episodes=1)
    assert trained.velocity_error == pytest.approx(0.1, abs=0.01)
    assert trained.distance_ratio == pytest.approx(0.8, abs=0.01)
    course = Course(ROBOT, 60.0)
    motion = _motion(course, share=0.8)
    motion.linear[:, 0] += sway(motion.time)
    parts = [(part.end - part.start, 0.2 * part.command[0]) for part in course.segments]
    expected = sum(seconds * error for seconds, error in parts) / course.seconds
    assert score_walk(motion, course, ROBOT).velocity_error == pytest.approx(expected, abs=0.01)


def without_command(folder: Path) -> Embodiment:
    """The robot as one that nobody tells where to go, in files of its own."""
    mapping = ROBOT.to_dict()
    for key in ("command", "clock"):
        mapping.pop(key)
    terms = mapping["observation"]["terms"]
    mapping["observation"]["terms"] = [t for t in terms if t["name"] not in ("command", "gait_phase")]
    mapping["reward"] = {"terms": [{"name": "stand_pose", "weight": -1.0}]}
    mapping.pop("demonstrator", None)
    shutil.copytree(ROBOT.directory, folder)
    (folder / "embodiment.yaml").write_text(json.dumps(mapping))
    return Embodiment.load(str(folder))


def test_a_robot_without_commands_has_no_columns_of_following(tmp_path):
    robot = without_command(tmp_path / "robot")
    agent = Agent(small_model(robot.observation_dim, robot.action_dim, seed=0), "policy", embodiment=robot)
    table = evaluation_table({"policy": evaluate_robot(agent, robot, seconds=0.1, episodes=2)})
    assert table.splitlines()[0].split() == ["planner", "reward/step", "falls"]
    assert "nan" not in table and "0/2" in table


def test_an_episode_too_short_to_follow_shows_dashes():
    agent = Agent(small_model(ROBOT.observation_dim, ROBOT.action_dim, seed=0), "policy", embodiment=ROBOT)
    table = evaluation_table({"policy": evaluate_robot(agent, ROBOT, seconds=0.1, episodes=1)})
    assert "nan" not in table and table.splitlines()[1].split().count("-") == 3
