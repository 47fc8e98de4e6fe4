"""What the planner tells about itself: /diagnostics, and ~/status where tdmpc2_msgs is there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

from tdmpc2_core.control.decision import MODES, NO_GOAL
from tdmpc2_core.control.statistics import WINDOW, Statistics, StopCause, resident_megabytes
from tdmpc2_core.robots import Embodiment
from tdmpc2_ros import qos
from tdmpc2_ros.messages import diagnostic_message
from tdmpc2_ros.planner.thread import ControlThread

if TYPE_CHECKING:
    from tdmpc2_core.control.trust import Trust


try:
    from tdmpc2_msgs.msg import PlannerStatus
except ImportError:
    PlannerStatus = None


@dataclass(frozen=True)
class Situation:
    """The node at the time of a report; `deadline` in s."""

    state: str
    deadline: float
    thread: ControlThread | None = None
    embodiment: Embodiment | None = None
    model: str = ""
    task: str = ""
    stale: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    trust: Trust | None = None


class Reporter:
    """Publishes the node's state: once a second, at changes of state, and ~/status at changes of mode."""

    def __init__(self, node: Node, statistics: Statistics, cause: StopCause) -> None:
        self._node, self._statistics, self._cause = node, statistics, cause
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", qos.STATUS)
        self._status = None
        if PlannerStatus is None:
            node.get_logger().info(
                "tdmpc2_msgs is not built: no ~/status, ~/plan, ~/trust, ~/latent, ~/load_model, ~/set_task; "
                "all else works"
            )
        else:
            self._status = node.create_publisher(PlannerStatus, "~/status", qos.LATCHED)
        self._missed_before = self._late_before = 0

    def publish(self, now: Situation) -> None:
        """Diagnostics and status."""
        mode, reason = (now.thread.mode, now.thread.reason) if now.thread else ("idle", "")
        level, text = self._judge(now, mode, reason)
        values: dict[str, Any] = {
            "state": now.state,
            "mode": mode,
            "reason": reason,
            "model": now.model,
            "task": now.task,
            "stop_cause": self._cause.text,
            "stale_sources": "; ".join(now.stale),
            "refused": now.refused,
            **self._statistics.summary(WINDOW),
            "memory_mb": resident_megabytes(),
        }
        if now.trust is not None:
            values["trust"] = vars(now.trust)
        stamp = self._node.get_clock().now().to_msg()
        name = f"{self._node.get_fully_qualified_name().lstrip('/')}: control"
        robot = now.embodiment.name if now.embodiment else ""
        self._diagnostics.publish(diagnostic_message(stamp, name, robot, level, text, values))
        self.publish_status(now)

    def publish_status(self, now: Situation) -> None:
        """~/status alone; nothing before the node is configured."""
        if self._status is not None and now.embodiment is not None:
            self._status.publish(self._status_message(now, now.embodiment))

    def _judge(self, now: Situation, mode: str, reason: str) -> tuple[bytes, str]:
        """REP-107 level and summary."""
        total = self._statistics
        missed, self._missed_before = total.missed - self._missed_before, total.missed
        late, self._late_before = total.late_plans - self._late_before, total.late_plans
        if now.state != "active":
            if self._cause.text.startswith("fault"):
                return DiagnosticStatus.ERROR, f"{now.state}: {self._cause.text}"
            return DiagnosticStatus.OK, f"{now.state}: {self._cause.text}" if self._cause.text else now.state
        problems = "; ".join([*now.refused.values(), *now.stale])
        if mode == "estop":
            return DiagnosticStatus.ERROR, "emergency stop; call ~/clear_estop to go on"
        if mode == "hold" and reason == NO_GOAL and not problems:
            return DiagnosticStatus.OK, f"holding: {NO_GOAL}"
        if mode == "hold":
            return DiagnosticStatus.ERROR, f"holding: {problems or reason}"
        if mode == "idle" or now.refused:
            return DiagnosticStatus.WARN, f"{reason or 'refused messages'}: {problems}"
        if now.trust is not None and now.trust.level == "error":
            return DiagnosticStatus.WARN, f"the model is outside what it learned from: {now.trust.reason}"
        if missed > 0 or late > 0:
            return (
                DiagnosticStatus.WARN,
                f"in the last second {late} plans were late, {missed} commands missed",
            )
        return DiagnosticStatus.OK, reason or "planning"

    def _status_message(self, now: Situation, robot: Embodiment) -> Any:
        message, total = PlannerStatus(), self._statistics
        summary = total.summary(WINDOW)
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.robot, message.task, message.model = robot.name, now.task, now.model
        message.fingerprint, message.stale_sources = robot.fingerprint, now.stale
        message.deadline, message.value = now.deadline, math.nan
        if now.thread:
            message.mode, message.reason = MODES.index(now.thread.mode), now.thread.reason
        if now.thread and (last := now.thread.last):
            message.ended_by = last.ended_by
            if last.plan is not None:
                message.value, message.iterations = last.plan.value, last.plan.iterations
        rows = total.last(1)
        message.latency, message.planning_time = map(float, rows[0, 1:]) if len(rows) else (math.nan,) * 2
        message.decisions, message.late_plans = total.commands, total.late_plans
        message.missed_commands, message.safety_interventions = total.missed, total.filtered
        message.latency_p50 = summary["latency_ms"]["p50"] * 1e-3
        message.latency_p99 = summary["latency_ms"]["p99"] * 1e-3
        return message
