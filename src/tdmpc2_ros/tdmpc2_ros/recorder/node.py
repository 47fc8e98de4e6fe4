"""Recorder node `recorder`: writes a rosbag2 of all that learning from a run needs.

Subscribes, as raw CDR, to the sensors, the command from the operator, the commands to the controllers, the
ground truth of a simulation, the clock, the diagnostics, and what the planner says of itself. Ends the bag at
SIGINT or SIGTERM. Every second makes all that came before a complete bag on disk, so that a killed recorder
loses a second at most.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.clock import Clock as SteadyClock
from rclpy.clock import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_core.config import setting
from tdmpc2_ros.messages import SOURCE_TOPICS, other_types, type_name
from tdmpc2_ros.parameters import Parameters
from tdmpc2_ros.process import Stop, run_node
from tdmpc2_ros.recorder.bag import BagWriter

try:
    from tdmpc2_msgs.msg import PlanChunk, PlannerStatus
except ImportError:
    PlanChunk = PlannerStatus = None

_DEPTH = 500  # messages per topic that may wait while the disk is busy
_CHECKPOINT = 1.0  # s
_LATCHED = ("planner/status",)


def _definition(kind: str) -> str:
    """Content of the .msg file of this suite's own types; empty for others, which every reader knows."""
    package, _, name = kind.split("/")
    if package != "tdmpc2_msgs":
        return ""
    return (Path(get_package_share_directory(package)) / "msg" / f"{name}.msg").read_text(encoding="utf-8")


@dataclass(frozen=True)
class RecorderParameters:
    """All of them are read-only: they are given at start."""

    output: str = setting(
        "", why="folder of the bag, which must not exist yet; empty makes one named after the time"
    )
    cmd_vel_stamped: bool = setting(False, why="cmd_vel is a TwistStamped, not a Twist")


class Recorder(Node):
    """The node. Raises UserError when the folder exists or cannot be written."""

    def __init__(self) -> None:
        super().__init__("recorder")
        settings = Parameters(self, RecorderParameters).values
        self.bag = BagWriter(settings.output or datetime.now().strftime("rosbag2_%Y_%m_%d-%H_%M_%S"))
        self._kinds = {
            **{row.topic: row.kind(settings.cmd_vel_stamped) for row in SOURCE_TOPICS.values()},
            "planner/decision": Float64MultiArray,
            "simulator/tool_pose": PoseStamped,
            "joint_trajectory_controller/joint_trajectory": JointTrajectory,
            "forward_position_controller/commands": Float64MultiArray,
            "simulator/floating_base_state": Odometry,
            "/diagnostics": DiagnosticArray,
            "/clock": Clock,
        }
        if PlannerStatus is not None:
            self._kinds |= {"planner/status": PlannerStatus, "planner/plan": PlanChunk}
        self._inputs = {topic: self._subscribe(topic, ReliabilityPolicy.RELIABLE) for topic in self._kinds}
        self._numbers: dict[str, int] = {}
        self._warned: set[str] = set()
        for topic, kind in self._kinds.items():
            name = type_name(kind)
            self._numbers[topic] = self.bag.add_topic(self._inputs[topic].topic_name, name, _definition(name))
        self.bag.checkpoint()
        steady = SteadyClock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_CHECKPOINT, self._checkpoint, clock=steady)
        self.get_logger().info(f"recording into {self.bag.path}")

    def _subscribe(self, topic: str, reliability: ReliabilityPolicy) -> Subscription:
        profile = QoSProfile(depth=_DEPTH, history=HistoryPolicy.KEEP_LAST, reliability=reliability)
        if topic in _LATCHED:
            profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
        return self.create_subscription(
            self._kinds[topic], topic, partial(self._store, topic), profile, raw=True
        )

    def _store(self, topic: str, data: bytes) -> None:
        self.bag.write(self._numbers[topic], self.get_clock().now().nanoseconds, data)

    def _checkpoint(self) -> None:
        self.bag.checkpoint()
        for topic, subscription in list(self._inputs.items()):
            others = other_types(self, subscription.topic_name, self._kinds[topic])
            if others and topic not in self._warned:
                self._warned.add(topic)
                wanted = type_name(self._kinds[topic])
                self.get_logger().warning(
                    f"{subscription.topic_name}: {', '.join(others)} is not recorded, {wanted} is"
                )
            self._match_best_effort(topic, subscription)

    def _match_best_effort(self, topic: str, subscription: Subscription) -> None:
        """A reliable subscription hears no best-effort publisher: where there is one, ask for best effort."""
        if subscription.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT:
            return
        publishers = self.get_publishers_info_by_topic(subscription.topic_name)
        if any(info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for info in publishers):
            self.destroy_subscription(subscription)
            self._inputs[topic] = self._subscribe(topic, ReliabilityPolicy.BEST_EFFORT)

    def run(self, stop: Stop) -> None:
        """Record until `stop` is set."""
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        try:
            while not stop.is_set():
                executor.spin_once(timeout_sec=0.1)
        finally:
            executor.shutdown(timeout_sec=1.0)
            self.bag.close()
        self.get_logger().info(f"recorded {sum(self.bag.counts.values())} messages into {self.bag.path}")


def main(arguments: list[str] | None = None) -> int:
    """Run the node; 0 after a stop by signal, 2 after a user's mistake."""
    return run_node(Recorder, Recorder.run, arguments)


if __name__ == "__main__":
    sys.exit(main())
