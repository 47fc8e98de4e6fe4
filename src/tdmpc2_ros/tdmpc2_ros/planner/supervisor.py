"""What the planner hears of others that may stop it: its supervisor, other planners of the same robot."""

from __future__ import annotations

import os
import time

from rclpy.node import Node
from std_msgs.msg import Int64MultiArray, String

from tdmpc2_core.control.supervision import IDLE
from tdmpc2_ros import qos
from tdmpc2_ros.messages import Array, heartbeat_message, read_heartbeat
from tdmpc2_ros.process import Companion
from tdmpc2_ros.robot_io.output import CommandOutput

_PATIENCE = 0.5  # s without a word of the supervisor, which speaks ten times a second
_HEARD = 0.5  # s after which DDS has found who else is there
_ALIVE = 0.5  # s since the last heartbeat of another planner


class Peers:
    """Listens, in a node of its own, to supervisor/state and planner/heartbeat; sends the latter.

    supervised: whether a supervisor is to be heard at all times. shadow: the planner commands nothing, so
    nobody is a rival, and nobody need know that it lives.
    """

    def __init__(self, node: Node, output: CommandOutput, supervised: bool, shadow: bool = False) -> None:
        self._node, self._output, self._shadow = node, output, shadow
        self._supervised = supervised and not shadow
        self._pid, self._made = os.getpid(), time.monotonic()
        self._since = 0  # ms of the system's clock, when this planner was activated; 0 before
        self._stopped, self._spoke = "", time.monotonic()
        self._rival, self._rival_at = 0, -_ALIVE
        self._others = ""
        topic = node.resolve_topic_name("~/heartbeat")
        self._heartbeat = node.create_publisher(Int64MultiArray, topic, qos.SENSOR_OUTPUT)
        self._companion = Companion(node, "peers")
        own = self._companion.node
        state = node.resolve_topic_name("supervisor/state")
        # best effort: it is repeated, and after a standstill a reliable reader waits for what it missed
        own.create_subscription(String, state, self._on_state, qos.SENSOR_INPUT)
        own.create_subscription(Int64MultiArray, topic, self._on_heartbeat, qos.SENSOR_INPUT)
        self._companion.start()

    def activate(self) -> str:
        """Why this planner must not be activated; empty where it may. Waits until others have been heard."""
        time.sleep(max(0.0, self._made + _HEARD - time.monotonic()))
        self._since = time.time_ns() // 1_000_000
        self.look_around()
        return self.rival()

    def tell(self, state: int, clock: Array) -> None:
        """One heartbeat: a state of `control.supervision`, the gait clock (3,). From the control thread."""
        if not self._shadow:
            self._heartbeat.publish(heartbeat_message(self._pid, state, self._since, clock))

    def rival(self) -> str:
        """Who else commands the robot, and came first where it is a planner; empty for nobody."""
        if self._shadow:
            return ""
        if time.monotonic() - self._rival_at < _ALIVE:
            return (
                f"another planner, process {self._rival}, is alive on {self._heartbeat.topic_name}; end one"
            )
        return self._others

    @property
    def supervised(self) -> bool:
        """Whether there should be a supervisor."""
        return self._supervised

    def stopped(self) -> str:
        """Why the supervisor has taken over; empty while it has not."""
        stopped = self._stopped and not self._shadow
        return f"the supervisor stops the robot: {self._stopped}" if stopped else ""

    def unwatched(self) -> str:
        """Why the robot is not watched over as it should be; empty where it is."""
        if not self._supervised or time.monotonic() - self._spoke < _PATIENCE:
            return ""
        return "the supervisor is silent; start it: ros2 run tdmpc2_ros supervisor"

    def look_around(self) -> None:
        """Note who else sends to the controller. Now and then."""
        others = self._output.others()
        self._others = (
            f"{self._output.topic} is also commanded by {', '.join(others)}; end one" if others else ""
        )

    def destroy(self) -> None:
        """Listen no longer."""
        self._companion.stop()
        self._node.destroy_publisher(self._heartbeat)

    def _on_state(self, message: String) -> None:
        self._stopped, self._spoke = message.data, time.monotonic()

    def _on_heartbeat(self, message: Int64MultiArray) -> None:
        heard = read_heartbeat(message)
        if heard is None or heard[0] == self._pid:
            return
        pid, state, since, _ = heard
        if state != IDLE and (not self._since or (since, pid) < (self._since, self._pid)):
            self._rival, self._rival_at = int(pid), time.monotonic()
