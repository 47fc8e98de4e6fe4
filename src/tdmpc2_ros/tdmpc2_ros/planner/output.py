"""Where the planner's targets go: a trajectory controller or a forward position controller."""

from __future__ import annotations

from rclpy.duration import Duration
from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_core.robots import Embodiment
from tdmpc2_ros import qos
from tdmpc2_ros.messages import Array, position_message, trajectory_message


class CommandOutput:
    """Publishes targets in the form that `kind` names: "joint_trajectory" or "forward_position".

    Topics are relative, so that namespaces and remapping apply.
    """

    def __init__(self, node: Node, kind: str, embodiment: Embodiment) -> None:
        self._node, self._embodiment = node, embodiment
        self._trajectory = kind == "joint_trajectory"
        if self._trajectory:
            topic = "joint_trajectory_controller/joint_trajectory"
            self._publisher = node.create_publisher(JointTrajectory, topic, qos.COMMAND)
        else:
            topic = "forward_position_controller/commands"
            self._publisher = node.create_publisher(Float64MultiArray, topic, qos.COMMAND)

    def publish(self, targets: Array) -> None:
        """Send targets (H, J), rad, to be reached 1, 2, ... H control periods from now.

        A trajectory controller gets all rows, a forward controller the first one.
        """
        if self._trajectory:
            embodiment = self._embodiment
            message = trajectory_message(embodiment.joint_names, targets, embodiment.control_period)
        else:
            message = position_message(targets[0])
        self._publisher.publish(message)

    def flush(self, seconds: float = 0.3) -> None:
        """Wait until the receivers have what was sent, at most `seconds`."""
        self._publisher.wait_for_all_acked(Duration(seconds=seconds))

    def destroy(self) -> None:
        """Give the topic up."""
        try:
            self._node.destroy_publisher(self._publisher)
        except InvalidHandle:
            return
