"""The planner's subscriptions: callbacks that only store the newest sample, or note why it was refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import Twist, TwistStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Imu, JointState

from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots import Embodiment, SensorState
from tdmpc2_ros import qos
from tdmpc2_ros.messages import store_imu, store_joint_state, store_twist
from tdmpc2_ros.process import Companion

_LOG_EVERY = 2.0  # s between log lines about refused messages


class SensorInput:
    """Subscribes, in a node of its own beside `node`, to what the observation needs; writes it into `state`.

    `fresh` is called when the oldest of the samples that an observation needs became newer. Messages that
    cannot be used are dropped; `refused` holds the latest reason per source until a good message follows.
    """

    def __init__(
        self, node: Node, embodiment: Embodiment, now: Callable[[], float], cmd_vel_stamped: bool = False
    ) -> None:
        self.state, self.refused = SensorState(embodiment), dict[str, str]()
        self.fresh: Callable[[], None] = lambda: None
        self._node, self._now = node, now
        self._needed = tuple(embodiment.observation.max_ages)
        self._imu_frame, self._frame_checked = embodiment.imu_frame, False
        self._command_names = embodiment.twist_command.names if embodiment.twist_command else ()
        self._oldest = float("-inf")
        self._companion = Companion(node, "sensors")
        self._subscribe(JointState, "joint_states", self._on_joints, qos.SENSOR_INPUT)
        if "imu" in self._needed:
            self._subscribe(Imu, "imu_sensor_broadcaster/imu", self._on_imu, qos.SENSOR_INPUT)
        if self._command_names:
            kind = TwistStamped if cmd_vel_stamped else Twist
            self._subscribe(kind, "cmd_vel", self._on_command, qos.COMMAND)
        self._companion.start()

    def _subscribe(
        self, kind: type, topic: str, callback: Callable[[Any], None], profile: QoSProfile
    ) -> None:
        name = self._node.resolve_topic_name(topic)
        self._companion.node.create_subscription(kind, name, callback, profile)

    def clear(self) -> None:
        """Forget all samples, as at activation."""
        self.state.clear()
        self.refused.clear()
        self._oldest = float("-inf")

    def destroy(self) -> None:
        """Give the topics up."""
        self._companion.stop()

    def _on_joints(self, message: JointState) -> None:
        try:
            store_joint_state(message, self.state)
        except SensorError as problem:
            self._refuse("joints", problem)
        else:
            self._accepted("joints")

    def _on_imu(self, message: Imu) -> None:
        try:
            store_imu(message, self.state)
        except SensorError as problem:
            self._refuse("imu", problem)
        else:
            self._accepted("imu")
            if not self._frame_checked:
                self._check_frame(message.header.frame_id)

    def _on_command(self, message: Twist | TwistStamped) -> None:
        try:
            store_twist(message, self._now(), self._command_names, self.state)
        except SensorError as problem:
            self._refuse("command", problem)
        else:
            self.refused.pop("command", None)

    def _accepted(self, source: str) -> None:
        self.refused.pop(source, None)
        snapshot = self.state.snapshot()
        oldest = float("inf")
        for name in self._needed:
            sample = snapshot.joints if name == "joints" else snapshot.imu
            if sample is None:
                return
            oldest = min(oldest, sample.stamp)
        if oldest != self._oldest:
            self._oldest = oldest
            self.fresh()

    def _refuse(self, source: str, problem: SensorError) -> None:
        self.refused[source] = str(problem)
        log = self._node.get_logger()
        if source == "joints":  # each call has its own throttle, so that one source does not silence another
            log.error(f"refused joint_states: {problem}", throttle_duration_sec=_LOG_EVERY)
        elif source == "imu":
            log.error(f"refused imu: {problem}", throttle_duration_sec=_LOG_EVERY)
        else:
            log.error(f"refused cmd_vel: {problem}", throttle_duration_sec=_LOG_EVERY)

    def _check_frame(self, frame: str) -> None:
        self._frame_checked = True
        if frame and self._imu_frame and frame.strip("/").rpartition("/")[2] != self._imu_frame:
            self._node.get_logger().warning(
                f"imu: messages are in frame {frame!r}, the embodiment expects {self._imu_frame!r}; "
                "axes that differ make the robot fall"
            )
