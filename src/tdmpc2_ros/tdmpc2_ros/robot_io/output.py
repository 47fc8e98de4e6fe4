"""Where the planner's targets go: a trajectory controller or a forward position controller."""

from __future__ import annotations

from rclpy.duration import Duration
from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_core.robots import Embodiment
from tdmpc2_ros import qos
from tdmpc2_ros.messages import Array, other_types, position_message, trajectory_message, type_name
from tdmpc2_ros.naming import SUPERVISOR

_UNKNOWN = "_NODE_NAME_UNKNOWN_"  # of rclpy


class CommandOutput:
    """Publishes targets in the form that `kind` names: "joint_trajectory" or "forward_position".

    Topics are relative, so that namespaces and remapping apply. In shadow no publisher is made and nothing
    is sent.
    """

    def __init__(self, node: Node, kind: str, embodiment: Embodiment, shadow: bool = False) -> None:
        self._node, self._embodiment = node, embodiment
        self._before: Array | None = None  # first row sent before, to a forward controller
        self._trajectory = kind == "joint_trajectory"
        if self._trajectory:
            topic = "joint_trajectory_controller/joint_trajectory"
            self._kind: type = JointTrajectory
        else:
            topic = "forward_position_controller/commands"
            self._kind = Float64MultiArray
        self.topic: str = node.resolve_topic_name(topic)
        """Where the targets go, resolved."""
        self._publisher = None if shadow else node.create_publisher(self._kind, topic, qos.COMMAND)

    @property
    def controller(self) -> str:
        """Name of the controller that the topic belongs to."""
        return self.topic.split("/")[-2]

    def mismatch(self) -> str:
        """What is wrong when somebody listens for another type; else empty."""
        if self._publisher is None:
            return ""
        others = other_types(self._node, self.topic, self._kind, publishers=False)
        if not others:
            return ""
        return f"{self.topic}: somebody listens for {', '.join(others)}, {type_name(self._kind)} is sent"

    def others(self) -> list[str]:
        """Nodes that send to the same controller: all but this one, its supervisor, and a node of this one's
        name, which may have died without a word."""
        known = (self._node.get_name(), SUPERVISOR)
        found = {
            f"{info.node_namespace.rstrip('/')}/{info.node_name}"
            for info in self._node.get_publishers_info_by_topic(self.topic)
            if info.node_name not in known or info.node_namespace != self._node.get_namespace()
        }
        return sorted(name for name in found if _UNKNOWN not in name)  # not found out yet

    def publish(self, targets: Array, still: bool = False) -> None:
        """Send targets (H, J), rad, to be reached 1, 2, ... H control periods from now.

        A trajectory controller gets all rows. A forward controller jumps at once to what it gets, where a
        trajectory controller takes a period: it gets the mean of that period's straight way, from the first
        row before to this one. Jumping to the row itself is half a period early, which fells a humanoid.

        Args:
            still: the robot is to be held; no further command may follow, so it gets the row itself.
        """
        if self._publisher is None:
            return
        if self._trajectory:
            embodiment = self._embodiment
            message = trajectory_message(embodiment.joint_names, targets, embodiment.control_period)
        else:
            before = targets[0] if still or self._before is None else self._before
            self._before = targets[0]
            message = position_message(0.5 * (before + targets[0]))
        self._publisher.publish(message)

    def flush(self, seconds: float = 0.3) -> None:
        """Wait until the receivers have what was sent, at most `seconds`."""
        if self._publisher is not None:
            self._publisher.wait_for_all_acked(Duration(seconds=seconds))

    def destroy(self) -> None:
        """Give the topic up."""
        if self._publisher is None:
            return
        try:
            self._node.destroy_publisher(self._publisher)
        except InvalidHandle:
            return
