"""What ROS messages say, as numpy: readings of sources, the state of the base. No ROS in here.

Messages are read by the names of their attributes, so that those of rclpy and those that `rosbags` makes of a
bag serve alike. Raises SensorError with one sentence for a message that cannot be used. `SOURCE_INPUTS` has
the topics of every source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.sensors import SensorState
from tdmpc2_core.robots.terms import CommandKind

Array = NDArray[np.float64]


def to_seconds(stamp: Any) -> float:
    """A Time or Duration as float seconds (resolution 0.24 us for dates of this century)."""
    return stamp.sec + stamp.nanosec * 1e-9


class Reading(NamedTuple):
    """What a message says about its source, as `SensorState.store` takes it."""

    stamp: float | None  # s; None for a message without one, which counts as given on arrival
    fields: Mapping[str, ArrayLike]
    names: Sequence[str] | None = None


def decode_joint_state(message: Any, robot: Embodiment) -> Reading:
    """Positions, rad, and velocities, rad/s, as many as names, which come in any order."""
    fields = {"position": np.array(message.position), "velocity": np.array(message.velocity)}
    return Reading(to_seconds(message.header.stamp), fields, message.name)


def decode_imu(message: Any, robot: Embodiment) -> Reading:
    """Orientation xyzw and angular velocity, rad/s; acceleration, m/s^2, where it is measured.

    Raises SensorError when a covariance of -1 says that a part is not measured (REP-145).
    """
    for part in ("orientation", "angular_velocity"):
        if getattr(message, f"{part}_covariance")[0] == -1.0:
            raise SensorError(
                f"imu: {part} is marked as not measured ({part}_covariance[0] is -1); it is needed"
            )
    q, w, a = message.orientation, message.angular_velocity, message.linear_acceleration
    fields = {"orientation": (q.x, q.y, q.z, q.w), "angular_velocity": (w.x, w.y, w.z)}
    if message.linear_acceleration_covariance[0] != -1.0:
        fields["acceleration"] = (a.x, a.y, a.z)
    return Reading(to_seconds(message.header.stamp), fields)


def decode_twist(message: Any, robot: Embodiment) -> Reading:
    """The components of a twist that the robot's command has.

    A Twist, and a TwistStamped whose stamp is zero, count as given on arrival.
    """
    stamp, twist = None, message
    if hasattr(message, "header"):  # a TwistStamped
        stamp, twist = to_seconds(message.header.stamp) or None, message.twist
    names = robot.twist_command.names if robot.twist_command else ()
    return Reading(stamp, {"values": twist_values(twist, names)})


def decode_goal(message: Any, robot: Embodiment) -> Reading:
    """A goal for the tool, given on arrival. Raises SensorError when it is not in the base frame."""
    return Reading(None, {"values": goal_values(message, robot.base_frame)})


def twist_values(twist: Any, names: Sequence[str]) -> Array:
    """Components `names` of a twist (m/s, rad/s), such as linear_x and angular_z, in that order."""
    parts = (name.split("_") for name in names)
    return np.array([getattr(getattr(twist, vector), axis) for vector, axis in parts])


def goal_values(message: Any, frame: str) -> Array:
    """Position (m) and quaternion xyzw (7,) of a pose in `frame`; a leading namespace of its frame is fine.

    Raises SensorError when the pose is in another frame; the values are as they came.
    """
    given = message.header.frame_id
    if given.strip("/").rpartition("/")[2] != frame:
        raise SensorError(f"goal: frame is {given!r}, must be {frame!r}; transform the pose first")
    p, q = message.pose.position, message.pose.orientation
    return np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])


class BaseState(NamedTuple):
    """What an Odometry says of the base: pose in odom (m, xyzw), velocities in its own frame (REP-105)."""

    stamp: float  # s
    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float]
    linear: tuple[float, float, float]  # m/s
    angular: tuple[float, float, float]  # rad/s


def base_state(message: Any) -> BaseState:
    """Read an Odometry."""
    p, q = message.pose.pose.position, message.pose.pose.orientation
    v, w = message.twist.twist.linear, message.twist.twist.angular
    return BaseState(
        to_seconds(message.header.stamp),
        position=(p.x, p.y, p.z),
        orientation=(q.x, q.y, q.z, q.w),
        linear=(v.x, v.y, v.z),
        angular=(w.x, w.y, w.z),
    )


_ANOTHER_CLOCK = 86400.0  # s by which stamps of one clock never differ
EPOCH = 1e9
"""s; system time is beyond it, simulated time and time since a start are below."""


def check_stamp(what: str, stamp: float, now: float) -> None:
    """Raise SensorError when a stamp (s) cannot be of the clock that says `now` (s)."""
    if stamp == 0.0:
        raise SensorError(f"{what}: the stamp is zero; the sender must stamp its messages when it measures")
    if abs(now - stamp) < _ANOTHER_CLOCK:
        return
    if stamp < EPOCH <= now:
        raise SensorError(
            f"{what}: stamped {stamp:.0f} s, which is simulated time or time since a start, while this node "
            "takes system time; set its use_sim_time where /clock is published, or stamp with system time"
        )
    if now < EPOCH <= stamp:
        raise SensorError(
            f"{what}: stamped with system time, while this node follows /clock; set use_sim_time of the "
            "sender too, or of no node"
        )
    where = "ahead of" if stamp > now else "behind"
    raise SensorError(
        f"{what}: stamped {abs(now - stamp) / _ANOTHER_CLOCK:.0f} days {where} this clock; synchronise the "
        "clocks of both machines (chrony)"
    )


@dataclass(frozen=True)
class SourceInput:
    """How a source of `terms.SOURCES` travels. `decode` reads a message for one robot.

    Message types are names such as sensor_msgs/msg/Imu, or the classes of rclpy.
    """

    source: str
    topic: str  # relative
    message: Any
    decode: Callable[[Any, Embodiment], Reading]
    stamped: Any = None  # type instead of `message` where operators send stamps
    command: CommandKind | None = None  # kind of command that it carries
    frame: str = ""  # key of the embodiment file with the frame that its messages must be in

    def store(
        self,
        message: Any,
        sensors: SensorState,
        now: Callable[[], float],
        check: Callable[[Reading], None] = lambda reading: None,
    ) -> float | None:
        """Store what a message says under its stamp (s); `now` is asked where it has none.

        Args:
            check: a further look at the reading before it is stored; raises SensorError.

        Returns:
            The stamp; None where the message says nothing about the robot.

        Raises:
            SensorError: the message cannot be used; nothing is stored.
        """
        reading = self.decode(message, sensors.embodiment)
        stamp = now() if reading.stamp is None else reading.stamp
        check(reading)
        return stamp if sensors.store(self.source, stamp, reading.fields, reading.names) else None

    def check_time(self, stamp: float | None, now: float, robot: Embodiment) -> None:
        """Raise SensorError when a reading's stamp (s), where it has one, cannot be of the clock that says
        `now` (s), or is that of a command that its timeout ended before it came."""
        if stamp is None:
            return
        check_stamp(self.source, stamp, now)
        if self.command != "twist" or robot.twist_command is None:
            return
        most = robot.twist_command.timeout
        if abs(now - stamp) > most:
            when = "ago" if stamp < now else "ahead of this clock"
            raise SensorError(
                f"command: stamped {abs(now - stamp):.3g} s {when}, at most {most:g} s; synchronise the "
                "clocks, or send zero stamps"
            )


SOURCE_INPUTS: dict[str, SourceInput] = {
    row.topic: row
    for row in (
        SourceInput("joints", "joint_states", "sensor_msgs/msg/JointState", decode_joint_state),
        SourceInput(
            "imu", "imu_sensor_broadcaster/imu", "sensor_msgs/msg/Imu", decode_imu, frame="imu_frame"
        ),
        SourceInput(
            "command",
            "cmd_vel",
            "geometry_msgs/msg/Twist",
            decode_twist,
            stamped="geometry_msgs/msg/TwistStamped",
            command="twist",
        ),
        SourceInput("command", "goal_pose", "geometry_msgs/msg/PoseStamped", decode_goal, command="pose"),
    )
}
"""The topics of every source, by name."""


def prefixed(embodiment: Embodiment, prefix: str) -> Embodiment:
    """The embodiment as messages name it: `prefix` before its joints and frames, all else the same.

    It is for reading and writing messages; its joints are not those of the MJCF.
    """
    if not prefix:
        return embodiment
    joints = tuple(replace(joint, name=prefix + joint.name) for joint in embodiment.joints)
    imu = prefix + embodiment.imu_frame if embodiment.imu_frame else None
    posture = {prefix + name: target for name, target in embodiment.safety.posture.items()}
    safety = replace(embodiment.safety, posture=posture)
    base = prefix + embodiment.base_frame
    return replace(embodiment, joints=joints, safety=safety, base_frame=base, imu_frame=imu)
