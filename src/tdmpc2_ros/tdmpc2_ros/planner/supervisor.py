"""What the planner hears of others that may stop it: its supervisor, other planners of the same robot."""

from __future__ import annotations

import os
import time

from rclpy.node import Node
from std_msgs.msg import Int64MultiArray, String

from tdmpc2_ros import qos
from tdmpc2_ros.planner.output import CommandOutput
from tdmpc2_ros.process import Companion

_PATIENCE = 0.5  # s without a word of the supervisor, which speaks ten times a second
_ALIVE = 0.5  # s since the last heartbeat of another planner


class Peers:
    """Listens, in a node of its own, to supervisor/state and planner/heartbeat; sends the latter.

    supervised: whether a supervisor is to be heard at all times.
    """

    def __init__(self, node: Node, output: CommandOutput, supervised: bool) -> None:
        self._node, self._output, self._supervised = node, output, supervised
        self._pid = os.getpid()
        self._stopped, self._spoke = "", time.monotonic()
        self._rival, self._rival_at = 0, -_ALIVE
        self._others = ""
        topic = node.resolve_topic_name("~/heartbeat")
        self._heartbeat = node.create_publisher(Int64MultiArray, topic, qos.SENSOR_OUTPUT)
        self._message = Int64MultiArray()
        self._companion = Companion(node, "peers")
        own = self._companion.node
        state = node.resolve_topic_name("supervisor/state")
        own.create_subscription(String, state, self._on_state, qos.STATUS)
        own.create_subscription(Int64MultiArray, topic, self._on_heartbeat, qos.SENSOR_INPUT)
        self._companion.start()

    def tell(self, state: int) -> None:
        """One heartbeat: a state of `tdmpc2_core.control.supervision`. From the control thread."""
        self._message.data = [self._pid, state]
        self._heartbeat.publish(self._message)

    def rival(self) -> str:
        """Who else commands the robot; empty for nobody."""
        if time.monotonic() - self._rival_at < _ALIVE:
            return (
                f"another planner, process {self._rival}, is alive on {self._heartbeat.topic_name}; end one"
            )
        return self._others

    def stopped(self) -> str:
        """Why the supervisor has taken over; empty while it has not."""
        return f"the supervisor stops the robot: {self._stopped}" if self._stopped else ""

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
        if len(message.data) == 2 and message.data[0] != self._pid and message.data[1]:
            self._rival, self._rival_at = int(message.data[0]), time.monotonic()
