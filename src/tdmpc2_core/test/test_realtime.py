"""A walking robot whose planner falls silent, at every phase of its first second, its first leap included."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.robot.env import RobotEnv
from tdmpc2_core.envs.robot.realtime import LockStep, RobotOptions, SimulatedRobot, Viewer
from tdmpc2_core.files import shipped_bundle
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.rotations import tilt
from tdmpc2_core.robots.trajectory import Trajectory

ROBOTS, FIRST_CUT, CUTS = 240, 10, 45  # decisions after the start
PREDICTED = 0.04  # s, targets of the planner's last message that still play


@dataclass(frozen=True)
class Cut:
    """State of a walking robot at its last decision."""

    qpos: np.ndarray
    qvel: np.ndarray
    targets: np.ndarray


@pytest.fixture(scope="module")
def cuts() -> list[Cut]:
    """Robots of the shipped bundle under sensor noise, one cut each."""
    agent = Agent.load(shipped_bundle("quadruped"))
    agent = agent.fork(replace(agent.planner_config, method="policy"))
    environments = [RobotEnv(agent.embodiment, 100 + index) for index in range(ROBOTS)]
    names = agent.embodiment.command.names
    for env in environments:
        env.set_command(np.array([0.5 * (name == "linear_x") for name in names]))
    observations = np.array([env.reset() for env in environments])
    first, found = np.ones(ROBOTS, dtype=bool), []
    for step in range(FIRST_CUT + CUTS):
        actions = agent.act(observations, first, evaluate=True).action
        first[:] = False
        for index, env in enumerate(environments):
            observations[index] = env.step(actions[index]).observation
            if step == FIRST_CUT + index % CUTS:
                data = env.simulation.data
                found.append(Cut(data.qpos.copy(), data.qvel.copy(), env.targets.copy()))
    return found


def tilt_after_silence(robot: SimulatedRobot, cut: Cut, seconds: float = 3.0) -> float:
    """Angle of the base's z axis from the vertical, degrees, ``seconds`` after the last message."""
    robot.reset()
    robot.simulation.data.qpos[:], robot.simulation.data.qvel[:] = cut.qpos, cut.qvel
    robot.jump(cut.targets)
    robot.play(Trajectory(np.stack([cut.targets] * 2), np.array([0.0, PREDICTED])))
    for _ in range(round(seconds * robot.embodiment.physics_rate)):
        robot.step()
    return float(np.degrees(tilt(robot.measure().base_orientation)))


def test_default_pose_is_reached_upright_from_every_phase(cuts: list[Cut]) -> None:
    robot = SimulatedRobot(Embodiment.load("quadruped"), RobotOptions())
    tilts = [tilt_after_silence(robot, cut) for cut in cuts]
    assert max(tilts) < 15.0, np.round(tilts, 1)


def test_late_silence_tips_some_over(cuts: list[Cut]) -> None:
    robot = SimulatedRobot(Embodiment.load("quadruped"), RobotOptions(command_timeout=1.0))
    assert max(tilt_after_silence(robot, cut) for cut in cuts) > 30.0


def test_simulated_time_waits_for_an_answer_once_answers_have_come():
    gate = LockStep(lag=0.012, patience=1.0)
    gate.ask(1.0)
    assert not gate.blocked(1.02, now=0.0), "nobody has ever answered"
    gate.answer()
    gate.ask(2.0)
    assert not gate.blocked(2.01, now=5.0)
    assert gate.blocked(2.012, now=5.0) and gate.blocked(2.012, now=5.7)
    gate.answer()
    assert not gate.blocked(2.012, now=5.7)
    assert (gate.waits, gate.waited) == (1, pytest.approx(0.7))
    gate.ask(2.02)
    gate.answer()
    assert not gate.blocked(2.04, now=6.0) and gate.waits == 1, "an answer in time is no wait"


def test_three_samples_without_an_answer_end_the_waiting():
    gate = LockStep(lag=0.012, patience=1.0)
    gate.answer()
    for count in range(3):
        gate.ask(float(count))
        assert gate.blocked(count + 0.012, now=10.0 * count)
        assert not gate.blocked(count + 0.012, now=10.0 * count + 1.1)
    gate.ask(4.0)
    assert not gate.blocked(4.5, now=50.0) and gate.unanswered == 3
    gate.answer()
    gate.ask(5.0)
    assert gate.blocked(5.012, now=60.0), "a controller that is back is waited for again"


# ---- ground that an episode shapes ----
def rough() -> Embodiment:
    """The quadruped on waves."""
    embodiment = Embodiment.load("quadruped")
    content = embodiment.to_dict()
    content["randomisation"] |= {"wave": [0.05, 0.1]}
    return Embodiment.from_dict(content, directory=embodiment.directory)


def test_a_seed_draws_the_same_ground_again_which_a_film_made_later_shows():
    options = RobotOptions(randomise=True, reset_noise=True)
    first, second, other = (SimulatedRobot(rough(), options, seed).simulation for seed in (3, 3, 4))
    assert np.ptp(first.terrain.heights) > 0.01
    np.testing.assert_array_equal(first.terrain.heights, second.terrain.heights)
    assert not np.array_equal(first.terrain.heights, other.terrain.heights)


def test_the_window_takes_heights_over_each_time_the_ground_changes_and_only_then(monkeypatch):
    taken: list[int] = []

    class Handle:
        is_running = staticmethod(lambda: True)
        update_hfield = staticmethod(taken.append)
        sync = staticmethod(lambda: None)

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("mujoco.viewer.launch_passive", lambda model, data: Handle())
    robot = SimulatedRobot(rough(), RobotOptions(randomise=True), seed=3)
    viewer = Viewer(robot.simulation, robot.lock, pytest.fail)
    for now in (0.0, 1.0):
        viewer.update(now)
    field = robot.simulation.terrain.field
    assert taken == [field]
    robot.reset()
    for now in (2.0, 3.0):
        viewer.update(now)
    assert taken == [field, field]
