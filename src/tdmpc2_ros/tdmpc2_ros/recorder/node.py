"""Recorder node `recorder`: writes a rosbag2 of all that learning from a run needs.

Subscribes, as raw CDR, to the sensors, the command from the operator, the commands to the controllers, the
ground truth of a simulation, the clock, the diagnostics, what the planner says of itself and every change of
parameters. Ends the bag at SIGINT or SIGTERM. Every second makes all that came before a complete bag on disk,
so that a killed recorder loses a second at most. When the disk refuses, the bag is closed whole and the node
ends; nothing else of the robot waits for it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import ParameterEvent
from rclpy.clock import Clock as SteadyClock
from rclpy.clock import ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_core.config import setting
from tdmpc2_core.errors import UserError
from tdmpc2_ros.messages import SOURCE_TOPICS, other_types, type_name
from tdmpc2_ros.parameters import Parameters
from tdmpc2_ros.process import Stop, run_node
from tdmpc2_ros.recorder.bag import BagWriter, Splitting, Storage

try:
    from tdmpc2_msgs.msg import PlanChunk, PlannerStatus, TrustState
except ImportError:
    PlanChunk = PlannerStatus = TrustState = None
try:
    from rosbag2_interfaces.msg import MessagesLostEvent  # from Lyrical on
except ImportError:
    MessagesLostEvent = None

DEPTH = 500
"""Messages per topic that may wait while the disk is busy."""
_CHECKPOINT = 1.0  # s
LATCHED = ("planner/status", "planner/settings")
"""Topics that a late subscriber gets the last message of."""
_FOREIGN = ("tdmpc2_msgs", "rosbag2_interfaces")  # packages whose types rosbags does not know


def _definition(kind: str) -> str:
    """Content of the .msg file of a type that rosbags does not know; empty for others."""
    package, _, name = kind.split("/")
    if package not in _FOREIGN:
        return ""
    return (Path(get_package_share_directory(package)) / "msg" / f"{name}.msg").read_text(encoding="utf-8")


@dataclass(frozen=True)
class RecorderParameters:
    """All of them are read-only: they are given at start."""

    output: str = setting(
        "", why="folder of the bag, which must not exist yet; empty makes one named after the time"
    )
    storage: Storage = setting("mcap", why="format of the bag's files")
    max_bag_size: int = setting(0, unit="bytes", low=0, why="size after which a new file begins; 0: never")
    max_bag_duration: float = setting(0.0, unit="s", low=0, why="time after which one begins; 0: never")
    ring_minutes: float = setting(
        0.0, unit="min", low=0, high=1440, why="keep the last minutes only, for ~/save; 0 keeps all"
    )
    cmd_vel_stamped: bool = setting(False, why="cmd_vel is a TwistStamped, not a Twist")


def recorded_types(stamped: bool) -> dict[str, Any]:
    """Message types by topic, names as the nodes' own: what is recorded where tdmpc2_msgs is built."""
    kinds = {
        **{row.topic: row.kind(stamped) for row in SOURCE_TOPICS.values()},
        "simulator/tool_pose": PoseStamped,
        "joint_trajectory_controller/joint_trajectory": JointTrajectory,
        "forward_position_controller/commands": Float64MultiArray,
        "simulator/floating_base_state": Odometry,
        "/diagnostics": DiagnosticArray,
        "/clock": Clock,
        "/parameter_events": ParameterEvent,
        "planner/decision": Float64MultiArray,
        "planner/settings": String,
    }
    if PlannerStatus is not None:
        kinds |= {"planner/status": PlannerStatus, "planner/plan": PlanChunk, "planner/trust": TrustState}
    if MessagesLostEvent is not None:
        kinds["events/rosbag2_messages_lost"] = MessagesLostEvent
    return kinds


class Recorder(Node):
    """The node. Raises UserError when the folder exists or cannot be written."""

    def __init__(self) -> None:
        super().__init__("recorder")
        settings = Parameters(self, RecorderParameters).values
        splitting = Splitting(settings.max_bag_size, settings.max_bag_duration, 60.0 * settings.ring_minutes)
        output = settings.output or datetime.now().strftime("rosbag2_%Y_%m_%d-%H_%M_%S")
        self.bag = BagWriter(output, settings.storage, splitting)
        self._lost: Counter[str] = Counter()
        self._kinds = recorded_types(settings.cmd_vel_stamped)
        self._inputs = {topic: self._subscribe(topic, ReliabilityPolicy.RELIABLE) for topic in self._kinds}
        self._numbers: dict[str, int] = {}
        self._warned: set[str] = set()
        for topic, kind in self._kinds.items():
            name, resolved = type_name(kind), self._inputs[topic].topic_name
            number = self.bag.add_topic(resolved, name, _definition(name), repeat=topic in LATCHED)
            self._numbers[topic] = number
        self.bag.checkpoint()
        steady = SteadyClock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_CHECKPOINT, self._checkpoint, clock=steady)
        self.create_service(Trigger, "~/save", self._on_save)
        self.get_logger().info(f"recording into {self.bag.path}")

    def _subscribe(self, topic: str, reliability: ReliabilityPolicy) -> Subscription:
        profile = QoSProfile(depth=DEPTH, history=HistoryPolicy.KEEP_LAST, reliability=reliability)
        if topic in LATCHED:
            profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
        events = SubscriptionEventCallbacks(message_lost=partial(self._on_lost, topic))
        return self.create_subscription(
            self._kinds[topic], topic, partial(self._store, topic), profile, raw=True, event_callbacks=events
        )

    def _store(self, topic: str, data: bytes) -> None:
        self.bag.write(self._numbers[topic], self.get_clock().now().nanoseconds, data)

    def _drain(self, topics: Collection[str] = ()) -> None:
        """Take what DDS has received and the executor has not come to, of all topics where none is named.

        A queue holds `DEPTH` messages: no more are taken, so that a fast publisher does not keep this busy.
        """
        for topic in topics or self._inputs:
            subscription = self._inputs[topic]
            with subscription.handle:
                for _ in range(DEPTH):
                    if (taken := subscription.handle.take_message(subscription.msg_type, True)) is None:
                        break
                    self._store(topic, taken[0])

    def _on_lost(self, topic: str, event: Any) -> None:
        """DDS gave messages up before this node took them: the bag says so, as it cannot hold them."""
        self._lost[topic] += event.total_count_change
        self.bag.remarks[f"lost {self._inputs[topic].topic_name}"] = str(self._lost[topic])
        self.get_logger().warning(
            f"{self._lost[topic]} messages of {topic} were lost before they could be recorded",
            throttle_duration_sec=5.0,
        )

    def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        target = self.bag.path.with_name(datetime.now().strftime(f"{self.bag.path.name}_saved_%H_%M_%S"))
        try:
            self._drain()  # what came before this call belongs to it
            count = self.bag.save(target, self.get_clock().now().nanoseconds)
        except UserError as problem:
            response.message = str(problem)
            if self.bag.closed:
                raise
        else:
            response.success, response.message = True, f"{count} messages in {target}"
        self.get_logger().info(f"save: {response.message}")
        return response

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
            self._drain([topic])
            self.destroy_subscription(subscription)
            self._inputs[topic] = self._subscribe(topic, ReliabilityPolicy.BEST_EFFORT)

    def run(self, stop: Stop) -> int:
        """Record until `stop` is set, or the disk refuses: then 2, once the bag is closed."""
        executor, problem = SingleThreadedExecutor(), ""
        executor.add_node(self)
        try:
            while not stop.is_set():
                executor.spin_once(timeout_sec=0.1)
            self._drain()
        except UserError as error:
            problem = str(error)
        executor.shutdown(timeout_sec=1.0)
        try:
            self.bag.close()
        except UserError as error:
            problem = str(error)
        if problem:
            self.get_logger().error(problem)
            return 2
        self.get_logger().info(f"recorded {sum(self.bag.counts.values())} messages into {self.bag.path}")
        return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the node; 0 after a stop by signal, 2 after a user's mistake."""
    return run_node(Recorder, Recorder.run, arguments)


if __name__ == "__main__":
    sys.exit(main())
