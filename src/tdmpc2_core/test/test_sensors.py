"""SensorState: what it accepts, what it refuses by name, and that readers never see half a sample."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from small_robot import small_mapping, small_robot

from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots import Embodiment, ObservationAssembler, SensorState
from tdmpc2_core.robots.rotations import from_roll_pitch_yaw, rotate_inverse
from tdmpc2_core.robots.sensors import GravityCheck

ROBOT = small_robot()
UPRIGHT = [0.0, 0.0, 0.0, 1.0]


@settings(deadline=None)
@given(st.permutations(range(5)), st.lists(st.floats(-3, 3), min_size=5, max_size=5))
def test_joint_order_and_extra_joints_do_not_matter(order, values):
    names = ["hip", "knee", "wheel", "arm", "gripper"]
    straight, mixed = SensorState(ROBOT), SensorState(ROBOT)
    straight.set_joints(0.0, names, values, values[::-1])
    mixed.set_joints(
        0.0, [names[i] for i in order], [values[i] for i in order], [values[::-1][i] for i in order]
    )
    samples = (vars(sensors.snapshot().joints) for sensors in (straight, mixed))
    for a, b in zip(*(map(each.get, ("stamp", "position", "velocity")) for each in samples), strict=True):
        assert_array_equal(a, b)
    assert_array_equal(straight.snapshot().joints.position, values[:2])


def test_a_changed_joint_order_is_noticed():
    sensors, names = SensorState(ROBOT), ["hip", "knee"]
    sensors.set_joints(0.0, names, [0.2, -1.0], [0, 0])
    names.reverse()  # the same list object, as a message type may reuse it
    sensors.set_joints(0.0, names, [-1.0, 0.2], [0, 0])
    assert_array_equal(sensors.snapshot().joints.position, [0.2, -1.0])


@pytest.mark.parametrize(
    ("names", "position", "velocity", "text"),
    [
        (["hip", "knee", "hip"], [0, 0, 0], [0, 0, 0], "hip given more than once"),
        (["hip", "knee"], [0.0, math.nan], [0, 0], "position of knee is nan"),
        (["hip", "knee"], [math.inf, 0.0], [0, 0], "position of hip is inf"),
        (["hip", "knee"], [0.0, 0.0], [], "velocity has 0 values, 2 are needed"),
        (["hip", "knee"], [0.0], [0, 0], "position has 1 values, 2 are needed"),
        (["hip", "knee"], [0.0, 0.0], [math.nan, math.nan], "velocity of hip is nan, knee is nan"),
    ],
)
def test_bad_joint_states_are_refused_and_the_last_good_one_stays(names, position, velocity, text):
    sensors = SensorState(ROBOT)
    sensors.set_joints(0.0, ["hip", "knee"], [0.2, -1.0], [0, 0])
    with pytest.raises(SensorError, match=text):
        sensors.set_joints(1.0, names, position, velocity)
    assert sensors.snapshot().joints.stamp == 0.0


def test_halves_from_two_drivers_make_a_whole_of_the_older_stamp():
    sensors = SensorState(ROBOT)
    assert sensors.store("joints", 1.0, {"position": [0.2], "velocity": [0.5]}, ["hip"])
    assert sensors.snapshot().joints is None
    assert "joints: missing knee" in sensors.stale(1.0)
    sensors.set_joints(1.01, ["wheel", "knee"], [7.0, -1.0], [7.0, -0.5])
    first = sensors.snapshot().joints
    assert_array_equal([first.position, first.velocity], [[0.2, -1.0], [0.5, -0.5]])
    assert first.stamp == 1.0
    sensors.set_joints(1.02, ["hip"], [0.3], [0.0])
    second = sensors.snapshot().joints
    assert_array_equal(second.position, [0.3, -1.0])
    assert second.stamp == 1.01 and first.position[0] == 0.2


def test_a_half_that_stops_is_named_and_a_whole_message_heals_it():
    sensors = SensorState(ROBOT)
    sensors.set_imu(2.0, UPRIGHT, [0, 0, 0])
    for stamp in (1.0, 2.0):
        sensors.set_joints(stamp, ["hip"], [0.0], [0.0])
        if stamp == 1.0:
            sensors.set_joints(stamp, ["knee"], [-1.0], [0.0])
    assert sensors.stale(2.0) == ["joints: knee: 1 s old, at most 0.05 s"]
    sensors.set_joints(2.0, ["hip", "knee"], [0.1, -1.1], [0.0, 0.0])
    assert sensors.stale(2.0) == []
    sensors.set_joints(2.05, ["knee"], [-1.2], [0.0])
    assert_array_equal(sensors.snapshot().joints.position, [0.1, -1.2])


def test_a_restored_sample_takes_halves_and_clearing_forgets_them():
    sensors = SensorState(ROBOT)
    sensors.set_joints(0.0, ["hip", "knee"], [0.2, -1.0], [0, 0])
    kept = sensors.snapshot()
    sensors.clear()
    sensors.set_joints(0.5, ["hip"], [0.0], [0.0])
    sensors.restore(kept)
    sensors.set_joints(0.6, ["knee"], [-0.9], [0.0])
    assert_array_equal(sensors.snapshot().joints.position, [0.2, -0.9])
    sensors.clear()
    sensors.set_joints(1.0, ["knee"], [-1.0], [0.0])
    assert sensors.snapshot().joints is None


def test_joints_of_something_else_change_nothing_and_explain_silence():
    sensors = SensorState(ROBOT)
    fingers = {"position": [0.0, math.nan], "velocity": []}
    assert not sensors.store("joints", 0.0, fingers, ["finger_left", "finger_right"])
    assert not sensors.store("joints", 0.0, {"position": [], "velocity": []}, [])
    assert not sensors.store("joints", 0.0, fingers, ["finger_left", "finger_right"])
    assert any("finger_left, finger_right" in each for each in sensors.stale(0.0))
    sensors.set_joints(1.0, ["hip", "knee"], [0.2, -1.0], [0, 0])
    sensors.store("joints", 2.0, fingers, ["finger_left", "finger_right"])
    assert sensors.snapshot().joints.stamp == 1.0


def test_nan_of_a_joint_that_is_not_ours_is_ignored():
    SensorState(ROBOT).set_joints(0.0, ["wheel", "hip", "knee"], [math.nan, 0, 0], [math.nan, 0, 0])


def test_velocity_may_be_absent_when_no_term_needs_it():
    mapping = small_mapping()
    mapping["observation"]["terms"].pop(3)
    robot = Embodiment.from_dict(mapping)
    for velocity in ([], [math.nan, math.nan], [0.0, math.nan]):
        sensors = SensorState(robot)
        sensors.set_joints(0.0, ["hip", "knee"], [0, -1], velocity)
        sensors.set_imu(0.0, UPRIGHT, [0, 0, 0])
        assert sensors.snapshot().joints.velocity is None
        assert ObservationAssembler(robot).assemble(sensors, 0.0).shape == (24,)
    sensors = SensorState(robot)
    sensors.set_joints(0.0, ["hip"], [0.1], [0.5])
    sensors.set_joints(0.0, ["knee"], [-1.0], [math.nan])
    assert sensors.snapshot().joints.velocity is None
    assert_array_equal(sensors.snapshot().joints.position, [0.1, -1.0])


@pytest.mark.parametrize(
    ("quaternion", "gyro", "text"),
    [
        ([math.nan] * 4, [0, 0, 0], "orientation: x is nan"),
        ([0, 0, 0, 0], [0, 0, 0], "unit quaternion"),
        (UPRIGHT, [0, math.inf, 0], "angular velocity: y is inf"),
        (UPRIGHT, [0, 0], "angular velocity has 2 values, 3 are needed"),
    ],
)
def test_bad_imu_samples_are_refused(quaternion, gyro, text):
    with pytest.raises(SensorError, match=text):
        SensorState(ROBOT).set_imu(0.0, quaternion, gyro)


def test_bad_commands_and_stamps_are_refused():
    sensors = SensorState(ROBOT)
    with pytest.raises(SensorError, match="command: angular_z is nan"):
        sensors.set_command(0.0, [0.0, math.nan])
    with pytest.raises(SensorError, match="command has 3 values, 2 are needed"):
        sensors.set_command(0.0, [0, 0, 0])
    with pytest.raises(SensorError, match="imu: stamp is nan"):
        sensors.set_imu(math.nan, UPRIGHT, [0, 0, 0])


def test_one_writer_and_one_reader_never_mix_samples():
    """The writer stores position = velocity = stamp; a torn read would show two different numbers."""
    sensors, stop, torn = SensorState(ROBOT), threading.Event(), []
    sensors.set_joints(0.0, ["hip", "knee"], [0, 0], [0, 0])

    def read():
        while not stop.is_set():
            sample = sensors.snapshot().joints
            if {sample.stamp, *sample.position, *sample.velocity} != {sample.stamp}:
                torn.append(sample)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(5000):
        value = float(i)
        sensors.set_joints(value, ["hip", "knee"], [value, value], [value, value])
    stop.set()
    reader.join()
    assert torn == []


def turned(roll, yaw):
    """What a right IMU says in this attitude: orientation xyzw, and acceleration at rest."""
    orientation = from_roll_pitch_yaw(roll, 0.2, yaw)
    return orientation, rotate_inverse(orientation, [0.0, 0.0, 9.81])


@pytest.mark.parametrize("yaw", [0.0, 1.0, -2.0])
@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda q, a: (q[[3, 0, 1, 2]], a), "x, y, z, w, not w, x, y, z"),
        (lambda q, a: (q * [-1, -1, -1, 1], a), "body to world"),
        (lambda q, a: (q, -a), "z axis points up"),
    ],
)
def test_an_orientation_in_another_convention_is_refused_and_named(yaw, spoil, text):
    right = turned(0.9, yaw)
    GravityCheck().check(0.0, *right)
    with pytest.raises(SensorError, match="contradicts the accelerometer") as caught:
        GravityCheck().check(0.0, *spoil(*right))
    assert text in str(caught.value)


def test_bumps_and_missing_accelerometers_are_no_contradiction():
    check, (orientation, still) = GravityCheck(), turned(0.1, 0.5)
    rng = np.random.default_rng(0)
    for k in range(500):
        bump = 40.0 * rng.normal(size=3) if k % 50 in (1, 2) else np.zeros(3)  # footfalls
        check.check(0.004 * k, orientation, still + bump)
    upside_down = [1.0, 0.0, 0.0, 0.0]
    for nothing in ([0.0, 0.0, 0.0], [math.nan] * 3):
        GravityCheck().check(0.0, upside_down, nothing)
