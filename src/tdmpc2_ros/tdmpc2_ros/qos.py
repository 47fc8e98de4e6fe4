"""Quality of service of the suite's topics, after REP-2003 and what ros2_control offers and asks for."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(reliability: ReliabilityPolicy, durability: DurabilityPolicy, depth: int) -> QoSProfile:
    return QoSProfile(
        reliability=reliability, durability=durability, history=HistoryPolicy.KEEP_LAST, depth=depth
    )


SENSOR_INPUT = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 10)
"""Subscribing to sensors (REP-2003). Matches reliable publishers too. Several may share a topic, as an arm
and its gripper do: one of them must not push out the message that the other sent with it."""

SENSOR_OUTPUT = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 1)
"""Publishing sensors as ros2_control's broadcasters do, so that reliable subscribers match too."""

COMMAND = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 1)
"""Commands to controllers and from operators, both ends."""

CLOCK = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 1)
"""Publishing /clock, as rclpy and rclcpp subscribe to it."""

STATUS = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 10)
"""/diagnostics and other reports."""

LATCHED = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, 1)
"""Facts that a late subscriber needs too: robot_description, the node's status."""
