"""Arrays to messages. SI units, radians (REP-103), quaternions xyzw (REP-145).

`SOURCE_TOPICS` says how each source of a robot's control travels: planner, simulation node, recorder and
doctor take their topics from it. What reads a message, without ROS, is in `tdmpc2_core.robots.messages`.
"""

from __future__ import annotations

import array
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry
from numpy.typing import ArrayLike, NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray, Int64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.messages import SOURCE_INPUTS, SourceInput
from tdmpc2_ros import qos

Array = NDArray[np.float64]
_NANO = 1_000_000_000
_HEARTBEAT = 6  # numbers in a planner's sign of life


# ---- time ----


def to_time(seconds: float) -> Time:
    """Seconds, not negative, as a Time, rounded to the nearest nanosecond."""
    sec, nanosec = divmod(round(seconds * _NANO), _NANO)
    return Time(sec=sec, nanosec=nanosec)


def to_duration(seconds: float) -> Duration:
    """Seconds as a Duration, rounded to the nearest nanosecond."""
    sec, nanosec = divmod(round(seconds * _NANO), _NANO)
    return Duration(sec=sec, nanosec=nanosec)


# ---- sensors out ----


def joint_state_message(
    stamp: float, names: Sequence[str], position: ArrayLike, velocity: ArrayLike, effort: ArrayLike = ()
) -> JointState:
    """JointState of joints `names` at `stamp` (s): rad, rad/s, N m."""
    message = JointState(name=list(names), position=doubles(position), velocity=doubles(velocity))
    message.effort = doubles(effort)
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
        JointTrajectoryPoint(positions=doubles(row), time_from_start=to_duration((k + 1) * dt))
        for k, row in enumerate(targets)
    ]
    return message


def position_message(targets: ArrayLike) -> Float64MultiArray:
    """Command of a forward position controller: targets (J,), rad, in the order of its `joints` parameter."""
    return Float64MultiArray(data=doubles(targets))


def doubles(values: ArrayLike) -> array.array[float]:
    """The type rclpy's float64[] fields hold; assigning it skips their element-wise check."""
    return array.array("d", np.asarray(values, dtype=np.float64).tobytes())


# ---- diagnostics out ----


def heartbeat_message(pid: int, state: int, since: int, clock: Array) -> Int64MultiArray:
    """A planner's sign of life; clock: (3,) of its gait, in which NaN is sent as -1."""
    parts = [-1 if math.isnan(value) else round(value * _NANO) for value in clock]
    return Int64MultiArray(data=[pid, state, since, *parts])


def read_heartbeat(message: Int64MultiArray) -> tuple[int, int, int, Array] | None:
    """What `heartbeat_message` sends; None where it is something else."""
    if len(message.data) != _HEARTBEAT:
        return None
    pid, state, since, *parts = message.data
    return pid, state, since, np.array([math.nan if part < 0 else part / _NANO for part in parts])


def diagnostic_message(
    stamp: Time, name: str, hardware: str, level: bytes, text: str, values: Mapping[str, Any]
) -> DiagnosticArray:
    """One status for /diagnostics (REP-107). Nested mappings become keys such as "latency_ms.p99"."""
    status = DiagnosticStatus(level=level, name=name, message=text, hardware_id=hardware)
    status.values = [KeyValue(key=key, value=_text(value)) for key, value in _flat(values)]
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    result: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            result.extend(_flat(value, f"{prefix}{key}."))
        else:
            result.append((prefix + key, value))
    return result


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


# ---- the sources of control ----

Encode = Callable[[float, Mapping[str, Array]], Any]


def joint_state_encoder(robot: Embodiment) -> Encode:
    """JointState messages sorted by name, as joint_state_broadcaster publishes."""
    order = np.argsort(robot.joint_names)
    names = [robot.joint_names[i] for i in order]

    def encode(stamp: float, reading: Mapping[str, Array]) -> JointState:
        position, velocity, effort = (reading[key][order] for key in ("position", "velocity", "effort"))
        return joint_state_message(stamp, names, position, velocity, effort)

    return encode


def imu_encoder(robot: Embodiment) -> Encode:
    """Imu messages in the robot's IMU frame."""

    def encode(stamp: float, reading: Mapping[str, Array]) -> Imu:
        parts = (reading[key] for key in ("orientation", "angular_velocity", "acceleration"))
        return imu_message(stamp, robot.imu_frame or "", *parts)

    return encode


def other_types(node: Node, topic: str, kind: type, publishers: bool = True) -> list[str]:
    """Types other than `kind` that publishers, or else subscriptions, of a topic have: DDS joins neither."""
    look = node.get_publishers_info_by_topic if publishers else node.get_subscriptions_info_by_topic
    return sorted({info.topic_type for info in look(topic)} - {type_name(kind)})


def type_name(kind: type) -> str:
    """A message type as ROS names it, such as geometry_msgs/msg/Twist."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


@dataclass(frozen=True)
class SourceTopic(SourceInput):
    """How a source travels through rclpy.

    `encoder` makes, for one robot, what the simulation node publishes of a stamp (s) and a reading in its
    order.
    """

    encoder: Callable[[Embodiment], Encode] | None = None
    profile: QoSProfile = field(default_factory=lambda: qos.SENSOR_INPUT)  # of those who listen

    def kind(self, stamped: bool) -> type:
        """Type of its messages."""
        return self.stamped if stamped and self.stamped else self.message

    def mismatch(self, node: Node, topic: str, stamped: bool = False) -> str:
        """What is wrong when somebody publishes the source as another type, under the resolved name `topic`;
        else empty."""
        kind = self.kind(stamped)
        others = other_types(node, topic, kind)
        if not others:
            return ""
        advice = "remap one of them, or mend the sender"
        if self.stamped is not None and {type_name(self.message), type_name(self.stamped)} >= set(others):
            advice = (
                f"set the parameter cmd_vel_stamped to {'false' if stamped else 'true'}, or mend the sender"
            )
        return (
            f"{topic}: somebody sends {', '.join(others)}, which is not heard: {type_name(kind)} is taken; "
            f"{advice}"
        )


def _row(topic: str, message: type, **more: Any) -> SourceTopic:
    return SourceTopic(**vars(SOURCE_INPUTS[topic]) | {"message": message, **more})


SOURCE_TOPICS: dict[str, SourceTopic] = {
    row.topic: row
    for row in (
        _row("joint_states", JointState, encoder=joint_state_encoder),
        _row("imu_sensor_broadcaster/imu", Imu, encoder=imu_encoder),
        _row("cmd_vel", Twist, stamped=TwistStamped, profile=qos.COMMAND),
        _row("goal_pose", PoseStamped, profile=qos.COMMAND),
    )
}
"""The topics of every source, by name."""


def source_topics(robot: Embodiment) -> tuple[SourceTopic, ...]:
    """The topics that control of a robot listens to."""
    kind = robot.command.kind if robot.command else None
    rows = SOURCE_TOPICS.values()
    return tuple(row for row in rows if row.source in robot.sources and row.command in (None, kind))
