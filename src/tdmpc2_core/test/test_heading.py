"""Heading hold against a robot that turns by itself, turns computed by matrices, and what starts it anew."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from planning_support import small_model
from small_robot import small_robot

from tdmpc2_core.agent import Agent
from tdmpc2_core.robots import Embodiment, ObservationAssembler, SensorState
from tdmpc2_core.robots.heading import MOST, HeadingHold
from tdmpc2_core.robots.rotations import (
    axis_angle_matrix,
    from_matrix,
    from_roll_pitch_yaw,
    to_matrix,
    turn_between,
)
from tdmpc2_core.scoring.evaluation import evaluate_robot

QUADRUPED = Embodiment.load("quadruped")
PERIOD, FORWARD = QUADRUPED.control_period, (0.5, 0.0, 0.0)
UPRIGHT = np.array([0.0, 0.0, 0.0, 1.0])


class Walker:
    """A robot that turns at its commanded rate and `bias`, rad/s, and sways; its IMU lies as `mount` says."""

    def __init__(self, gain: float, bias: float = 0.1, mount: np.ndarray = UPRIGHT) -> None:
        self.hold, self.bias, self.mount = HeadingHold(QUADRUPED, gain), bias, to_matrix(mount)
        self.time = self.heading = 0.0
        self.told = np.zeros(3)

    def imu(self) -> SimpleNamespace:
        sway = 0.05 * np.sin(4.0 * np.pi * self.time), 0.05 * np.cos(4.0 * np.pi * self.time)
        base = to_matrix(from_roll_pitch_yaw(*sway, self.heading))
        return SimpleNamespace(orientation=from_matrix(base @ self.mount))

    def step(self, command=FORWARD, seen: bool = True) -> np.ndarray:
        self.told = np.array(command)
        self.hold.correct(self.told, self.imu() if seen else None, self.time)
        self.time += PERIOD
        self.heading += PERIOD * (self.told[2] + self.bias)
        return self.told

    def walk(self, seconds: float, command=FORWARD) -> float:
        """Mean yaw rate over the time, rad/s."""
        before = self.heading
        for _ in range(round(seconds / PERIOD)):
            self.step(command)
        return (self.heading - before) / seconds


@pytest.mark.parametrize(
    "mount", [UPRIGHT, from_roll_pitch_yaw(0.3, np.pi / 2, -2.0)], ids=["level", "upright"]
)
def test_a_robot_that_drifts_keeps_its_heading_however_its_imu_is_mounted(mount):
    assert Walker(0.0, mount=mount).walk(20.0) == pytest.approx(0.1)
    walker = Walker(1.0, mount=mount)
    walker.walk(10.0)
    assert walker.heading == pytest.approx(0.1, abs=0.02)  # what the gain needs to undo the drift
    assert abs(walker.walk(10.0)) < 0.003


def test_a_commanded_turn_is_made_over_several_revolutions():
    walker = Walker(1.0, bias=-0.15)
    assert walker.walk(30.0, (0.3, 0.0, 0.6)) == pytest.approx(0.6, abs=0.01)
    assert walker.heading > 2.0 * np.pi


def test_corrections_stay_below_their_limit_and_inside_the_commands_range():
    walker = Walker(1.0, bias=0.8)  # more than may be undone
    walker.walk(20.0)
    assert walker.told[2] == pytest.approx(-MOST)
    walker.bias = 0.0  # let go: what was missed is not made up for
    before = walker.heading
    walker.walk(10.0)
    assert before - walker.heading < MOST + 0.01
    fast = Walker(1.0, bias=-0.8)
    fast.walk(3.0, (0.3, 0.0, 0.9))
    assert fast.told[2] == 1.0  # the range's end


def leave(walker: Walker, how: str) -> None:
    if how == "zero command":
        assert not walker.step((0.0, 0.0, 0.0)).any()
    elif how == "no imu":
        assert walker.step(seen=False) == pytest.approx(FORWARD)
    elif how == "gap":
        walker.time += 0.2
    elif how == "jump":
        walker.heading += 1.0
    elif how == "clock back":
        walker.time -= 1.0
    else:
        walker.hold.restart()


@pytest.mark.parametrize("how", ["zero command", "no imu", "gap", "jump", "clock back", "restart"])
def test_the_wanted_heading_starts_anew(how):
    walker = Walker(1.0)
    walker.walk(5.0)
    assert walker.told[2] < -0.05
    leave(walker, how)
    assert walker.step()[2] == 0.0
    assert -0.02 < walker.step()[2] < 0.0


def test_a_missed_decision_now_and_then_costs_nothing():
    walker = Walker(1.0)
    for _ in range(20):
        walker.walk(0.5)
        walker.time += PERIOD  # in which it goes on as it was told
        walker.heading += PERIOD * (walker.told[2] + walker.bias)
    assert walker.heading == pytest.approx(0.1, abs=0.02)


def test_turns_equal_those_of_the_rotation_matrix_about_the_vertical():
    rng = np.random.default_rng(0)
    for _ in range(20):
        before = from_roll_pitch_yaw(*rng.uniform(-1.0, 1.0, 3))
        angle = rng.uniform(-np.pi, np.pi)
        after = from_matrix(axis_angle_matrix([0.0, 0.0, 1.0], angle) @ to_matrix(before))
        assert turn_between(before, after) == pytest.approx(angle)
        assert turn_between(before, -after) == pytest.approx(angle)


def observe(assembler: ObservationAssembler, robot: Embodiment, heading: float, tick: int) -> np.ndarray:
    sensors, now = SensorState(robot), tick * robot.control_period
    sensors.set_joints(now, robot.joint_names, robot.default_position, np.zeros(robot.num_joints))
    sensors.set_imu(now, from_roll_pitch_yaw(0.0, 0.0, heading), (0.0, 0.0, 0.0))
    sensors.set_command(now, FORWARD)
    return assembler.assemble(sensors, now)


def test_the_policy_is_told_the_correction_and_an_assembler_that_is_told_it_agrees_bit_for_bit():
    held = ObservationAssembler(QUADRUPED, heading=HeadingHold(QUADRUPED, 1.0))
    plain, copied = ObservationAssembler(QUADRUPED), ObservationAssembler(QUADRUPED)
    differ = 0
    for tick in range(20):
        seen = observe(held, QUADRUPED, 0.01 * tick, tick)
        copied.tell(held.command)
        assert np.array_equal(seen, observe(copied, QUADRUPED, 0.01 * tick, tick))
        differ += not np.array_equal(seen, observe(plain, QUADRUPED, 0.01 * tick, tick))
        assert held.command[0] == 0.5 and held.command[2] == pytest.approx(-0.01 * tick, abs=1e-9)
        assert plain.command[2] == 0.0
    assert differ == 19
    saved = held.state()
    first = observe(held, QUADRUPED, 0.3, 20)
    held.restore(saved)
    assert np.array_equal(first, observe(held, QUADRUPED, 0.3, 20))


def test_an_evaluation_with_a_gain_tells_the_policy_and_judges_by_the_command():
    model = small_model(QUADRUPED.observation_dim, QUADRUPED.action_dim, seed=0)
    agent, told = Agent(model, "policy", embodiment=QUADRUPED), []

    def look(step, steps, environments):
        told.append((environments[0].command.copy(), environments[0].assembler.command))

    for gain in (0.0, 1.0):
        told.clear()
        evaluate_robot(agent, QUADRUPED, 1.2, 1, spectator=look, heading_hold=gain)
        assert all(command.tolist() == [0.5, 0.0, 0.0] for command, _ in told)
        assert any(seen[2] for _, seen in told) == bool(gain)


def test_a_robot_without_a_turn_in_its_command_is_left_alone():
    robot = small_robot()
    spec = robot.twist_command
    assert spec is not None
    straight = replace(robot, command=replace(spec, terms=spec.terms[:1]))
    command = np.array([0.5])
    HeadingHold(straight, 1.0).correct(command, SimpleNamespace(orientation=UPRIGHT), 0.0)
    assert command == [0.5]
    arm = Embodiment.load("arm")
    goal = np.ones(7)
    HeadingHold(arm, 1.0).correct(goal, None, 0.0)
    assert goal.tolist() == [1.0] * 7
