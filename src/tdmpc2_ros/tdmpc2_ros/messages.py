"""Messages to SensorState, arrays to messages. SI units, radians (REP-103), quaternions xyzw (REP-145).

What reads a message raises SensorError with one sentence when it cannot be used; nothing is stored then.
"""

from __future__ import annotations

import array
from collections.abc import Iterable, Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots.sensors import SensorState

Array = NDArray[np.float64]
_NANO = 1_000_000_000


# ---- time ----


def to_seconds(stamp: Time | Duration) -> float:
    """Time or Duration as float seconds (resolution 0.24 us for dates of this century)."""
    return stamp.sec + stamp.nanosec * 1e-9


def to_time(seconds: float) -> Time:
    """Seconds, not negative, as a Time, rounded to the nearest nanosecond."""
    sec, nanosec = divmod(round(seconds * _NANO), _NANO)
    return Time(sec=sec, nanosec=nanosec)


def to_duration(seconds: float) -> Duration:
    """Seconds as a Duration, rounded to the nearest nanosecond."""
    sec, nanosec = divmod(round(seconds * _NANO), _NANO)
    return Duration(sec=sec, nanosec=nanosec)


# ---- sensors in ----


def store_joint_state(message: JointState, sensors: SensorState) -> float:
    """Store a joint state under its header stamp (s), which is returned; names in any order.

    Raises SensorError.
    """
    stamp = to_seconds(message.header.stamp)
    sensors.set_joints(stamp, message.name, np.array(message.position), np.array(message.velocity))
    return stamp


def store_imu(message: Imu, sensors: SensorState) -> float:
    """Store an IMU sample under its header stamp (s), which is returned.

    Raises SensorError; also when a covariance of -1 says that the part is not measured (REP-145).
    """
    for part in ("orientation", "angular_velocity"):
        if getattr(message, f"{part}_covariance")[0] == -1.0:
            raise SensorError(
                f"imu: {part} is marked as not measured ({part}_covariance[0] is -1); it is needed"
            )
    stamp, q, w = to_seconds(message.header.stamp), message.orientation, message.angular_velocity
    sensors.set_imu(stamp, (q.x, q.y, q.z, q.w), (w.x, w.y, w.z))
    return stamp


def store_twist(
    message: Twist | TwistStamped, now: float, names: Sequence[str], sensors: SensorState
) -> float:
    """Store the components `names` (linear_x ... angular_z) of a twist; its stamp (s) is returned.

    A Twist, and a TwistStamped whose stamp is zero, count as given at `now` (s). Raises SensorError.
    """
    stamp, twist = now, message
    if isinstance(message, TwistStamped):
        stamp, twist = to_seconds(message.header.stamp) or now, message.twist
    sensors.set_command(stamp, twist_values(twist, names))
    return stamp


def twist_values(twist: Twist, names: Sequence[str]) -> Array:
    """Components `names` of a twist (m/s, rad/s), such as linear_x and angular_z, in that order."""
    parts = (name.split("_") for name in names)
    return np.array([getattr(getattr(twist, vector), axis) for vector, axis in parts])


def goal_values(message: PoseStamped, frame: str) -> Array:
    """Position (m) and quaternion xyzw (7,) of a pose in `frame`; a leading namespace of its frame is fine.

    Raises SensorError when the pose is in another frame; the values are as they came.
    """
    given = message.header.frame_id
    if given.strip("/").rpartition("/")[2] != frame:
        raise SensorError(f"goal: frame is {given!r}, must be {frame!r}; transform the pose first")
    p, q = message.pose.position, message.pose.orientation
    return np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])


# ---- sensors out ----


def joint_state_message(
    stamp: float, names: Sequence[str], position: ArrayLike, velocity: ArrayLike, effort: ArrayLike = ()
) -> JointState:
    """JointState of joints `names` at `stamp` (s): rad, rad/s, N m."""
    message = JointState(name=list(names), position=_doubles(position), velocity=_doubles(velocity))
    message.effort = _doubles(effort)
    message.header.stamp = to_time(stamp)
    return message


def imu_message(
    stamp: float,
    frame: str,
    orientation_xyzw: Iterable[float],
    angular_velocity: Iterable[float],
    acceleration: Iterable[float],
) -> Imu:
    """Imu at `stamp` (s) in `frame`: unit quaternion xyzw, rad/s, m/s^2 (gravity included, REP-145)."""
    message = Imu()
    message.header.stamp, message.header.frame_id = to_time(stamp), frame
    q, w, a = message.orientation, message.angular_velocity, message.linear_acceleration
    q.x, q.y, q.z, q.w = map(float, orientation_xyzw)
    w.x, w.y, w.z = map(float, angular_velocity)
    a.x, a.y, a.z = map(float, acceleration)
    return message


def odometry_message(
    stamp: float,
    child_frame: str,
    position: Iterable[float],
    orientation_xyzw: Iterable[float],
    linear: Iterable[float],
    angular: Iterable[float],
) -> Odometry:
    """Odometry at `stamp` (s): pose of `child_frame` in odom (m, xyzw), twist in `child_frame` (REP-105)."""
    message = Odometry(child_frame_id=child_frame)
    message.header.stamp, message.header.frame_id = to_time(stamp), "odom"
    pose, twist = message.pose.pose, message.twist.twist
    p, q, v, w = pose.position, pose.orientation, twist.linear, twist.angular
    p.x, p.y, p.z = map(float, position)
    q.x, q.y, q.z, q.w = map(float, orientation_xyzw)
    v.x, v.y, v.z = map(float, linear)
    w.x, w.y, w.z = map(float, angular)
    return message


def pose_message(stamp: float, frame: str, pose: ArrayLike) -> PoseStamped:
    """PoseStamped at `stamp` (s) in `frame` of a pose (7,): m, unit quaternion xyzw."""
    message = PoseStamped()
    message.header.stamp, message.header.frame_id = to_time(stamp), frame
    p, q = message.pose.position, message.pose.orientation
    p.x, p.y, p.z, q.x, q.y, q.z, q.w = map(float, np.asarray(pose))
    return message


def twist_message(values: ArrayLike, names: Sequence[str]) -> Twist:
    """Twist with the components `names` (linear_x ... angular_z) set, m/s and rad/s; the others are zero."""
    message = Twist()
    for name, value in zip(names, np.asarray(values, dtype=np.float64), strict=True):
        vector, axis = name.split("_")
        setattr(getattr(message, vector), axis, float(value))
    return message


# ---- commands out ----


def trajectory_message(names: Sequence[str], targets: Array, dt: float) -> JointTrajectory:
    """JointTrajectory of targets (H, J), rad, reached dt, 2 dt, ... H dt (s) after arrival.

    The header stamp is zero, which tells joint_trajectory_controller to start now; positions only, because it
    refuses a last point with a velocity.
    """
    message = JointTrajectory(joint_names=list(names))
    message.points = [
        JointTrajectoryPoint(positions=_doubles(row), time_from_start=to_duration((k + 1) * dt))
        for k, row in enumerate(targets)
    ]
    return message


def position_message(targets: ArrayLike) -> Float64MultiArray:
    """Command of a forward position controller: targets (J,), rad, in the order of its `joints` parameter."""
    return Float64MultiArray(data=_doubles(targets))


def _doubles(values: ArrayLike) -> array.array[float]:
    """The type rclpy's float64[] fields hold; assigning it skips their element-wise check."""
    return array.array("d", np.asarray(values, dtype=np.float64).tobytes())
