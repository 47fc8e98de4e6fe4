"""What a robot and its planner say of themselves on their topics: the newest of each, for whoever draws it.

    subscribes  joint_states, imu_sensor_broadcaster/imu, cmd_vel or goal_pose; in simulation
                simulator/floating_base_state; of the planner ~/plan, ~/status, ~/trust (tdmpc2_msgs)

Callbacks keep the newest message; whoever draws calls the rest.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.subscription import Subscription

from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.messages import base_state, prefixed
from tdmpc2_core.robots.trace import MODES
from tdmpc2_ros import qos
from tdmpc2_ros.messages import SourceTopic, source_topics
from tdmpc2_ros.view.geometry import Seen

try:
    from tdmpc2_msgs.msg import PlanChunk, PlannerStatus, TrustState
except ImportError:
    PlanChunk = PlannerStatus = TrustState = None

_OLD = 0.5  # s after which a plan, a command or a figure is not shown
_LEVELS = ("ok", "warn", "error")  # of TrustState


@dataclass
class Heard:
    """The newest message of a topic, and when it came, s of the steady clock."""

    message: Any = None
    at: float = -math.inf


class RobotWatch:
    """Listens for a node, until `destroy`.

    Args:
        node: whose topics are relative to its namespace.
        robot: what is watched.
        prefix: before every joint name in messages.
        planner: name of the planner node.
        cmd_vel_stamped: cmd_vel is a TwistStamped.
    """

    def __init__(
        self, node: Node, robot: Embodiment, prefix: str, planner: str, cmd_vel_stamped: bool
    ) -> None:
        self._node, self._robot, self._named = node, robot, prefixed(robot, prefix)
        self._subscriptions: list[Subscription] = []
        self._joints = dict(zip(self._named.joint_names, robot.default_position, strict=True))
        self._heard: dict[str, Heard] = {}
        self._sources: dict[str, SourceTopic] = {}
        for row in source_topics(robot):
            self._sources[row.source] = row
            self._listen(row.source, row.kind(cmd_vel_stamped), row.topic, row.profile)
        self._listen("odometry", Odometry, "simulator/floating_base_state", qos.SENSOR_INPUT)
        if PlanChunk is None:
            node.get_logger().info("tdmpc2_msgs is not built: neither plan, value nor trust is shown")
        else:
            for name, kind, profile in (
                ("plan", PlanChunk, qos.COMMAND),
                ("status", PlannerStatus, qos.LATCHED),
                ("trust", TrustState, qos.COMMAND),
            ):
                self._listen(name, kind, f"{planner}/{name}", profile)

    def destroy(self) -> None:
        """Listen no longer."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _listen(self, name: str, kind: type, topic: str, profile: Any) -> None:
        heard = self._heard[name] = Heard()

        def keep(message: Any) -> None:
            if heard.message is None:
                self._node.get_logger().info(f"heard: {topic}")
            heard.message, heard.at = message, time.monotonic()
            if name == "joints":  # several senders may share the topic
                self._joints.update(self._known(message))

        self._subscriptions.append(self._node.create_subscription(kind, topic, keep, profile))

    def _known(self, message: Any) -> dict[str, float]:
        """Positions, rad, of this robot's joints in a message, by name; what is not finite is left out."""
        pairs = zip(message.name, message.position, strict=False)
        return {name: at for name, at in pairs if name in self._joints and math.isfinite(at)}

    def _newest(self, name: str, most: float = _OLD) -> Any:
        """The newest message of a topic, None where it is older than `most` s."""
        heard = self._heard.get(name, Heard())
        return heard.message if time.monotonic() - heard.at <= most else None

    def _reading(self, source: str, field: str, most: float = _OLD) -> np.ndarray | None:
        """A field of the newest message of a source; None without one that can be read."""
        message = self._newest(source, most)
        if message is None:
            return None
        try:
            values = np.array(self._sources[source].decode(message, self._named).fields[field])
        except SensorError:
            return None
        return values if np.isfinite(values).all() else None

    # ---- what is drawn ----

    def seen(self) -> Seen:
        """The robot, its plan and its command now; at the origin where no odometry tells its place."""
        robot = self._robot
        position, orientation = np.array([0.0, 0.0, robot.reset.base_height or 0.0]), np.array([0.0, 0, 0, 1])
        if (odometry := self._newest("odometry", math.inf)) is not None:
            base = base_state(odometry)
            position, orientation = np.array(base.position), np.array(base.orientation)
        elif (measured := self._reading("imu", "orientation", math.inf)) is not None:
            orientation = measured
        goal = self._reading("command", "values", math.inf) if robot.pose_command else None
        return Seen(
            position=position,
            orientation=orientation,
            joints=np.array([self._joints[name] for name in self._named.joint_names]),
            plan=self._plan(),
            command=self._command(),
            goal=goal,
        )

    def _command(self) -> np.ndarray:
        """x and y, m/s, and yaw rate, rad/s."""
        twist, command = self._robot.twist_command, np.zeros(3)
        values = self._reading("command", "values") if twist else None
        if twist and values is not None:
            for index, name in enumerate(("linear_x", "linear_y", "angular_z")):
                if name in twist.names:
                    command[index] = values[twist.names.index(name)]
        return command

    def _plan(self) -> np.ndarray:
        """Set-points (H, J), rad, in embodiment order; (0, J) without a plan that fits."""
        message, names = self._newest("plan"), self._named.joint_names
        if message is None or message.kind != PlanChunk.KIND_POSITION or set(message.names) != set(names):
            return np.zeros((0, len(names)))
        values = np.array(message.values)
        if values.size != message.horizon * len(names) or not np.isfinite(values).all():
            return np.zeros((0, len(names)))
        order = [list(message.names).index(name) for name in names]
        return values.reshape(message.horizon, len(names))[:, order]

    def text(self, seen: Seen) -> dict[str, str]:
        """What there is to read, by name."""
        text, status, trust = {"robot": self._robot.name}, self._newest("status", 3.0), self._newest("trust")
        if status is not None:
            mode = MODES[status.mode] if status.mode < len(MODES) else str(status.mode)
            text |= {"task": status.task, "mode": f"{mode} {status.reason}", "plan ended by": status.ended_by}
            text["latency"] = f"p50 {1e3 * status.latency_p50:.1f}, p99 {1e3 * status.latency_p99:.1f} ms"
            text["decisions"] = f"{status.decisions}, {status.late_plans} late"
            text["stale"] = "; ".join(status.stale_sources) or "none"
        elif PlannerStatus is not None:
            text["mode"] = "no planner is heard"
        if self._robot.twist_command:
            text["command"] = "{:+.2f} {:+.2f} m/s {:+.2f} rad/s".format(*seen.command)
        elif seen.goal is not None:
            text["goal"] = "({:.2f}, {:+.2f}, {:.2f}) m".format(*seen.goal[:3])
        if trust is not None:
            level = _LEVELS[trust.level] if trust.level < len(_LEVELS) else str(trust.level)
            text["trust"] = f"{level} {trust.reason}"
        return text

    def figures(self) -> dict[str, float]:
        """The plan's value and the model's trust, as far as they are known."""
        plan, trust = self._newest("plan"), self._newest("trust")
        figures = {} if plan is None else {"value": plan.value}
        return (
            figures
            if trust is None
            else {**figures, "disagreement": trust.disagreement, "trust": trust.trust}
        )
