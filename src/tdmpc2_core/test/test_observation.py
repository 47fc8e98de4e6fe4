"""The observation vector against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from small_robot import small_robot

from tdmpc2_core.errors import StaleSource
from tdmpc2_core.robots import Embodiment, ObservationAssembler, SensorState, rotations

ROBOT = small_robot()
UPRIGHT = [0.0, 0.0, 0.0, 1.0]


def feed(sensors, stamp, position=(0.1, -1.5), velocity=(0.0, 0.0), quaternion=UPRIGHT, gyro=(0, 0, 0)):
    sensors.set_joints(stamp, ["hip", "knee"], position, velocity)
    sensors.set_imu(stamp, quaternion, gyro)
    return sensors


def fresh(stamp=0.0, **values):
    return feed(SensorState(ROBOT), stamp, **values)


def block(observation, name):
    place = next(b for b in ROBOT.observation_layout if b.name == name)
    return observation[place.start : place.stop]


def test_every_term_by_hand():
    pitch = 0.3
    sensors = fresh(
        position=[0.3, -1.0],
        velocity=[2.0, -4.0],
        quaternion=rotations.from_roll_pitch_yaw(0, pitch, 1.0),
        gyro=[0.2, -0.4, 0.6],
    )
    sensors.set_command(0.0, [0.5, -0.2])
    observation = ObservationAssembler(ROBOT).assemble(sensors, 0.0)
    down = [math.sin(pitch), 0.0, -math.cos(pitch)]
    expected = (
        [0.1, -0.2, 0.3] * 2
        + down * 2
        + [0.2, 0.5] * 2
        + [0.5, -1.0] * 2
        + [0.0] * 4
        + [1.0, -0.4]
        + [0.0, 1.0]
    )
    assert observation.dtype == np.float32 and observation.shape == (28,)
    assert_allclose(observation, expected, atol=1e-6)


def test_history_is_newest_first_per_term():
    sensors, assembler = fresh(gyro=[2.0, 0, 0]), ObservationAssembler(ROBOT)
    assembler.reset(sensors, 0.0)
    assembler.assemble(sensors, 0.0)
    assembler.record_action([0.5, -2.0])
    feed(sensors, 0.02, gyro=[4.0, 0, 0], position=[0.2, -1.5])
    second = assembler.assemble(sensors, 0.02)
    assert_allclose(block(second, "gyro"), [2.0, 0, 0, 1.0, 0, 0])
    assert_allclose(block(second, "joint_position"), [0.1, 0, 0, 0], atol=1e-7)
    assert_allclose(block(second, "previous_action"), [0.5, -1.0, 0, 0])
    feed(sensors, 0.04, gyro=[6.0, 0, 0])
    assert_allclose(block(assembler.assemble(sensors, 0.04), "gyro"), [3.0, 0, 0, 2.0, 0, 0])


def test_reset_forgets_the_past():
    sensors, assembler = fresh(gyro=[2.0, 0, 0]), ObservationAssembler(ROBOT)
    sensors.set_command(0.0, [1.0, 0.0])
    first = assembler.assemble(sensors, 0.0)
    assembler.record_action([1.0, 1.0])
    assembler.assemble(feed(sensors, 0.02), 0.02)
    assembler.reset(feed(sensors, 0.0, gyro=[2.0, 0, 0]), 0.0)
    assert_array_equal(assembler.assemble(sensors, 0.0), first)


def test_gait_phase_advances_while_moving_and_restarts_after_standing():
    """12.5 Hz at 50 decisions per second: a quarter of a cycle per decision."""
    sensors, assembler = fresh(), ObservationAssembler(ROBOT)
    commands = [0.5, 0.5, 0.5, 0.5, 0.5, 0.05, 0.5, 0.5]
    expected = [(0, 1), (1, 0), (0, -1), (-1, 0), (0, 1), (0, 0), (0, 1), (1, 0)]
    phases = [0.0, 0.25, 0.5, 0.75, 0.0, None, 0.0, 0.25]
    for step, (command, phase, value) in enumerate(zip(commands, expected, phases, strict=True)):
        feed(sensors, 0.02 * step).set_command(0.02 * step, [command, 0.0])
        observation = assembler.assemble(sensors, 0.02 * step)
        assert_allclose(block(observation, "gait_phase"), phase, atol=1e-6)
        assert assembler.phase == value


@pytest.mark.parametrize(
    ("stop_cycles", "phases"),
    [
        (0, [None, 0.0, 0.25, None, None]),
        (1, [None, 0.0, 0.25, 0.5, 0.75, None, None]),
        (2, [None, 0.0, 0.25, 0.5, 0.75, 0.0, 0.25, 0.5, 0.75, None]),
    ],
)
def test_gait_phase_finishes_its_cycles_after_the_command(stop_cycles, phases):
    """Two decisions under command, a quarter of a cycle each, then none."""
    content = ROBOT.to_dict()
    content["clock"]["stop_cycles"] = stop_cycles
    sensors, assembler = fresh(), ObservationAssembler(Embodiment.from_dict(content))
    for step, value in enumerate(phases):
        feed(sensors, 0.02 * step).set_command(0.02 * step, [0.5 * (step in (1, 2)), 0.0])
        assembler.assemble(sensors, 0.02 * step)
        assert assembler.phase == value, step


def test_a_command_in_the_last_cycles_moves_on_without_a_jump():
    content = ROBOT.to_dict()
    content["clock"]["stop_cycles"] = 1
    sensors, assembler = fresh(), ObservationAssembler(Embodiment.from_dict(content))
    for step, (command, value) in enumerate(
        zip([0.5, 0.5, 0.0, 0.5, 0.5], [0, 0.25, 0.5, 0.75, 0.0], strict=True)
    ):
        feed(sensors, 0.02 * step).set_command(0.02 * step, [command, 0.0])
        assembler.assemble(sensors, 0.02 * step)
        assert assembler.phase == value


def test_command_deadband_range_and_timeout():
    sensors, assembler = fresh(), ObservationAssembler(ROBOT)
    assert_array_equal(block(assembler.assemble(sensors, 0.0), "command"), [0, 0])  # never received: stand
    for sent, used in [
        ([0.09, -0.09], [0, 0]),
        ([0.1, 0.0], [0.1, 0.0]),  # at the deadband it counts
        ([0.05, 0.5], [0.05, 0.5]),  # one term above it keeps both
        ([3.0, -3.0], [1.0, -1.0]),
    ]:
        sensors.set_command(0.0, sent)
        observation = assembler.assemble(sensors, 0.0)
        assert_allclose(block(observation, "command"), 2.0 * np.array(used), atol=1e-7)
        assert_array_equal(assembler.command, used)
    feed(sensors, 0.5)
    assert assembler.assemble(sensors, 0.5)[24] == 2.0
    feed(sensors, 0.52)
    assert_array_equal(
        block(assembler.assemble(sensors, 0.52), "command"), [0, 0]
    )  # silent: stand, not stale


def test_stale_sources_are_named_and_advance_nothing():
    sensors, assembler = SensorState(ROBOT), ObservationAssembler(ROBOT)
    assert sensors.stale(0.0) == ["imu: never received", "joints: never received"]
    with pytest.raises(StaleSource) as caught:
        assembler.reset(sensors, 0.0)
    assert caught.value.sources == ("imu: never received", "joints: never received")
    feed(sensors, 1.0)
    assert sensors.stale(1.04) == []
    assert sensors.stale(1.055) == ["joints: 0.055 s old, at most 0.05 s"]  # the smaller max_age of its terms
    with pytest.raises(StaleSource, match="imu: 0.31 s old, at most 0.06 s"):
        assembler.assemble(sensors, 1.31)
    assert sensors.stale(-2.0)[0] == "imu: stamped 3 s in the future, at most 0.06 s"
    twin = ObservationAssembler(ROBOT)
    assert_array_equal(assembler.assemble(sensors, 1.0), twin.assemble(sensors, 1.0))
    sensors.clear()
    assert len(sensors.stale(1.0)) == 2


@pytest.mark.parametrize("action", [[0.0], [math.nan, 0.0], np.zeros((2, 2))])
def test_unusable_actions_are_not_recorded(action):
    with pytest.raises(ValueError, match="2 finite values"):
        ObservationAssembler(ROBOT).record_action(action)


def test_same_inputs_same_bits_and_outputs_are_private():
    rng = np.random.default_rng(1)
    robot = Embodiment.load("quadruped")
    runs = []
    rows = [
        (rng.normal(size=12), rng.normal(size=12), rng.normal(size=4), rng.normal(size=3)) for _ in range(6)
    ]
    for spoil in (False, True):
        sensors, assembler, seen = SensorState(robot), ObservationAssembler(robot), []
        for step, (position, velocity, quaternion, gyro) in enumerate(rows):
            now = 0.02 * step
            sensors.set_joints(now, robot.joint_names, position, velocity)
            sensors.set_imu(now, quaternion / np.linalg.norm(quaternion), gyro)
            sensors.set_command(now, [0.5, 0.0, 0.1])
            observation = assembler.assemble(sensors, now)
            seen.append(observation.tobytes())
            assembler.record_action(np.tanh(position))
            if spoil:
                observation[:] = 7.0
        runs.append(seen)
    assert runs[0] == runs[1]


def test_noise_stays_within_its_width_and_touches_only_noisy_terms():
    """gyro: noise 0.1 rad/s times scale 0.5 is at most 0.05; every other term of this robot has none."""
    sensors, clean = fresh(gyro=[1.0, 2.0, 3.0]), ObservationAssembler(ROBOT)
    noisy = ObservationAssembler(ROBOT, noise=np.random.default_rng(0))
    differences = np.array([noisy.assemble(sensors, 0.0) - clean.assemble(sensors, 0.0) for _ in range(50)])
    assert_array_equal(differences[:, 6:], 0.0)
    assert 0.04 < np.abs(differences[:, :6]).max() <= 0.05 + 1e-6
    assert_allclose(differences[1:, 3:6], differences[:-1, :3], atol=1e-6)  # a noisy sample stays what it was
