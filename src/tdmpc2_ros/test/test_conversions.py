"""Messages and numpy; and that a live message stream gives the observations of the same samples offline."""

from __future__ import annotations

import math

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from random_agent import ROBOT
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Imu

from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots import ObservationAssembler, SensorState
from tdmpc2_core.robots.messages import to_seconds
from tdmpc2_ros import messages as conversions

NAMES = ROBOT.joint_names
JOINTS = conversions.SOURCE_TOPICS["joint_states"]
IMU = conversions.SOURCE_TOPICS["imu_sensor_broadcaster/imu"]
TWIST = conversions.SOURCE_TOPICS["cmd_vel"]


def never() -> float:
    raise AssertionError("the message has a stamp of its own")


@pytest.mark.parametrize("seconds", [0.0, 0.02, 1.5, 1795496400.123456, 59.9999999999])
def test_time_survives_the_round_trip(seconds):
    stamp = conversions.to_time(seconds)
    assert 0 <= stamp.nanosec < 10**9
    assert to_seconds(stamp) == pytest.approx(seconds, abs=3e-7)
    assert to_seconds(conversions.to_duration(seconds)) == pytest.approx(seconds, abs=3e-7)


def test_joint_state_is_mapped_by_name_and_keeps_its_stamp():
    position, velocity = np.arange(12.0) / 10, np.arange(12.0)
    order = np.argsort(NAMES)
    message = conversions.joint_state_message(
        5.25, [NAMES[i] for i in order], position[order], velocity[order]
    )
    sensors = SensorState(ROBOT)
    assert JOINTS.store(message, sensors, never) == 5.25
    sample = sensors.snapshot().joints
    assert sample.stamp == 5.25
    assert np.array_equal(sample.position, position) and np.array_equal(sample.velocity, velocity)


def test_a_joint_that_is_left_out_is_waited_for_by_name():
    sensors = SensorState(ROBOT)
    some = conversions.joint_state_message(1.0, NAMES[:-1], np.zeros(11), np.zeros(11))
    assert JOINTS.store(some, sensors, never) == 1.0
    assert sensors.snapshot().joints is None and f"joints: missing {NAMES[-1]}" in sensors.stale(1.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"position": [math.nan] + [0.0] * 11}, "nan"),
        ({"position": [0.0] * 3}, "3 values"),
        ({"velocity": []}, "velocity"),
    ],
)
def test_bad_joint_states_are_refused_and_not_stored(change, reason):
    message = conversions.joint_state_message(1.0, NAMES, np.zeros(12), np.zeros(12))
    for field, value in change.items():
        setattr(message, field, list(value))
    sensors = SensorState(ROBOT)
    with pytest.raises(SensorError, match=reason):
        JOINTS.store(message, sensors, never)
    assert sensors.snapshot().joints is None


def test_imu_is_xyzw_and_unmeasured_parts_are_refused():
    sensors = SensorState(ROBOT)
    message = conversions.imu_message(
        2.0, "imu_link", (0.6, 0.0, 0.0, 0.8), (1.0, 2.0, 3.0), (0.0, 0.0, 9.81)
    )
    assert message.orientation.w == 0.8 and message.linear_acceleration.z == 9.81
    IMU.store(message, sensors, never)
    sample = sensors.snapshot().imu
    assert np.array_equal(sample.orientation, (0.6, 0.0, 0.0, 0.8))
    assert np.array_equal(sample.angular_velocity, (1.0, 2.0, 3.0))
    for part in ("orientation", "angular_velocity"):
        blind = Imu(orientation=message.orientation)
        getattr(blind, f"{part}_covariance")[0] = -1.0
        with pytest.raises(SensorError, match=part):
            IMU.store(blind, sensors, never)
    message.angular_velocity.x = math.nan
    with pytest.raises(SensorError, match="angular velocity"):
        IMU.store(message, sensors, never)


def test_twist_in_the_order_of_the_command_terms():
    names = ("angular_z", "linear_x", "linear_y")
    message = conversions.twist_message((0.3, 0.5, -0.1), names)
    assert (message.linear.x, message.linear.y, message.angular.z) == (0.5, -0.1, 0.3)
    sensors = SensorState(ROBOT)
    assert TWIST.store(message, sensors, lambda: 7.0) == 7.0
    assert np.array_equal(sensors.snapshot().command.values, (0.5, -0.1, 0.3))
    stamped = TwistStamped(twist=message)
    assert TWIST.store(stamped, sensors, lambda: 7.0) == 7.0
    stamped.header.stamp = conversions.to_time(6.5)
    assert TWIST.store(stamped, sensors, lambda: 7.0) == 6.5
    message.linear.x = math.inf
    with pytest.raises(SensorError):
        TWIST.store(message, sensors, lambda: 7.0)


def test_trajectory_and_position_messages():
    targets = np.arange(36.0).reshape(3, 12)
    message = conversions.trajectory_message(NAMES, targets, 0.02)
    assert [list(p.positions) for p in message.points] == targets.tolist()
    assert [to_seconds(p.time_from_start) for p in message.points] == pytest.approx([0.02, 0.04, 0.06])
    assert list(conversions.position_message(targets[1]).data) == targets[1].tolist()


def test_live_messages_give_the_offline_observations_bit_for_bit():
    """The same samples through DDS serialisation and the conversions, and straight into the sensor slots."""
    rng = np.random.default_rng(3)
    live, offline = SensorState(ROBOT), SensorState(ROBOT)
    assemblers = ObservationAssembler(ROBOT), ObservationAssembler(ROBOT)
    order = np.argsort(NAMES)
    names = [NAMES[i] for i in order]
    for k in range(60):
        stamp = to_seconds(conversions.to_time(1795496400.0 + 0.02 * k))
        position, velocity, gyro, action = (rng.normal(size=n) for n in (12, 12, 3, 12))
        quaternion = rng.normal(size=4)
        quaternion /= np.linalg.norm(quaternion)
        command = rng.uniform(-1.0, 1.0, 3) * (k % 20 > 4)

        over_the_wire(conversions.joint_state_message(stamp, names, position[order], velocity[order]), live)
        over_the_wire(conversions.imu_message(stamp, "imu_link", quaternion, gyro, np.zeros(3)), live)
        over_the_wire(conversions.twist_message(command, ROBOT.command.names), live, stamp)
        offline.set_joints(stamp, NAMES, position, velocity)
        offline.set_imu(stamp, quaternion, gyro)
        offline.set_command(stamp, command)

        now = stamp + 0.004
        observed = []
        for assembler, sensors in zip(assemblers, (live, offline), strict=True):
            if k in (0, 40):
                assembler.reset(sensors, now)
            observed.append(assembler.assemble(sensors, now))
            assembler.record_action(np.clip(action, -1.0, 1.0))
        assert observed[0].tobytes() == observed[1].tobytes()


def over_the_wire(message, sensors, now=0.0):
    """Serialise, deserialise and store as the planner's callbacks do."""
    received = deserialize_message(serialize_message(message), type(message))
    row = next(row for row in conversions.SOURCE_TOPICS.values() if row.message is type(received))
    row.store(received, sensors, lambda: now)
