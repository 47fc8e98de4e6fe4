"""Whether the controller that the planner commands is active, as the controller manager tells."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node

from tdmpc2_ros import qos
from tdmpc2_ros.process import Companion

try:
    from controller_manager_msgs.msg import ControllerManagerActivity
    from controller_manager_msgs.srv import ListControllers
except ImportError:  # not among the wheels
    ControllerManagerActivity = ListControllers = None


class ControllerWatch:
    """Listens to `controller_manager/activity`, in a node of its own, and asks `list_controllers` at `ask`.

    A controller that is not active takes messages and drops them, so that a subscriber on the command topic
    tells nothing. Without a controller manager, as with a simulation in its place, nothing is known and
    nothing is wrong; so it is where controller_manager_msgs is not installed.
    """

    def __init__(self, node: Node, controller: str) -> None:
        self._node, self._name = node, controller
        self._state: str | None = None  # of the controller; "" where it is not loaded; None: not known
        self._gone = False
        self._companion: Companion | None = None
        if ControllerManagerActivity is None:
            node.get_logger().info(
                "controller_manager_msgs is not installed: whether the controller is active is not watched"
            )
            return
        self._companion = Companion(node, "controllers")
        self._topic = node.resolve_topic_name("controller_manager/activity")
        own = self._companion.node
        own.create_subscription(ControllerManagerActivity, self._topic, self._on_activity, qos.LATCHED)
        name = node.resolve_service_name("controller_manager/list_controllers")
        self._client = own.create_client(ListControllers, name)
        self._companion.start()

    def problem(self) -> str:
        """Why commands have no effect; empty where they have, or nothing is known."""
        if self._gone:
            return "the controller manager is gone"
        if self._state in (None, "active"):
            return ""
        if not self._state:
            return f"{self._name} is not loaded; ros2 run controller_manager spawner {self._name}"
        return f"{self._name} is {self._state}; ros2 control switch_controllers --activate {self._name}"

    def ask(self) -> None:
        """Ask the controller manager, where one is there; the answer comes later."""
        if self._companion is not None and self._client.service_is_ready():
            self._client.call_async(ListControllers.Request()).add_done_callback(self._on_list)

    def look_around(self) -> None:
        """Note whether the controller manager is still there. Now and then."""
        if self._companion is not None and self._state is not None:
            self._gone = not self._node.count_publishers(self._topic) and not self._client.service_is_ready()

    def destroy(self) -> None:
        """Listen no longer."""
        if self._companion is not None:
            self._companion.stop()

    def _on_activity(self, message: Any) -> None:
        self._take({each.name: each.state.label for each in message.controllers})

    def _on_list(self, future: Any) -> None:
        self._take({each.name: each.state for each in future.result().controller})

    def _take(self, states: dict[str, str]) -> None:
        self._state, self._gone = states.get(self._name, ""), False
