"""What the planner tells about itself: /diagnostics, and ~/status where tdmpc2_msgs is there."""

from __future__ import annotations

import math
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

from tdmpc2_core.robots import Embodiment
from tdmpc2_ros import qos
from tdmpc2_ros.diagnostics import WINDOW, Statistics, StopCause, diagnostic_message, resident_megabytes
from tdmpc2_ros.planner_decision import MODES
from tdmpc2_ros.planner_thread import ControlThread

try:
    from tdmpc2_msgs.msg import PlannerStatus
except ImportError:
    PlannerStatus = None


class Reporter:
    """Publishes the node's state; `publish` is called once a second and at changes of state."""

    def __init__(self, node: Node, statistics: Statistics, cause: StopCause) -> None:
        self._node, self._statistics, self._cause = node, statistics, cause
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", qos.STATUS)
        self._status = None
        if PlannerStatus is None:
            node.get_logger().info("tdmpc2_msgs is not here: no ~/status, all else works")
        else:
            self._status = node.create_publisher(PlannerStatus, "~/status", qos.LATCHED)
        self._missed_before = self._late_before = 0

    def publish(
        self,
        state: str,
        thread: ControlThread | None,
        embodiment: Embodiment | None,
        model: str,
        stale: list[str],
        refused: dict[str, str],
        deadline: float,
    ) -> None:
        """Tell the lifecycle `state`, what the thread does and which sources are `stale` or `refused`."""
        mode, reason = (thread.mode, thread.reason) if thread else ("idle", "")
        level, text = self._judge(state, mode, reason, stale, refused)
        values: dict[str, Any] = {
            "state": state,
            "mode": mode,
            "reason": reason,
            "model": model,
            "stop_cause": self._cause.text,
            "stale_sources": "; ".join(stale),
            "refused": refused,
            **self._statistics.summary(WINDOW),
            "memory_mb": resident_megabytes(),
        }
        stamp = self._node.get_clock().now().to_msg()
        name = f"{self._node.get_fully_qualified_name().lstrip('/')}: control"
        robot = embodiment.name if embodiment else ""
        self._diagnostics.publish(diagnostic_message(stamp, name, robot, level, text, values))
        if self._status is not None and embodiment is not None:
            self._status.publish(self._status_message(stamp, thread, embodiment, model, stale, deadline))

    def _judge(
        self, state: str, mode: str, reason: str, stale: list[str], refused: dict[str, str]
    ) -> tuple[bytes, str]:
        """REP-107 level and summary."""
        total = self._statistics
        missed, self._missed_before = total.missed - self._missed_before, total.missed
        late, self._late_before = total.late_plans - self._late_before, total.late_plans
        if state != "active":
            if self._cause.text.startswith("fault"):
                return DiagnosticStatus.ERROR, f"{state}: {self._cause.text}"
            return DiagnosticStatus.OK, f"{state}: {self._cause.text}" if self._cause.text else state
        problems = "; ".join([*refused.values(), *stale])
        if mode == "estop":
            return DiagnosticStatus.ERROR, "emergency stop; call ~/clear_estop to go on"
        if mode == "hold":
            return DiagnosticStatus.ERROR, f"holding: {problems or reason}"
        if mode == "idle" or refused:
            return DiagnosticStatus.WARN, f"{reason or 'refused messages'}: {problems}"
        if missed > 0 or late > 0:
            return (
                DiagnosticStatus.WARN,
                f"in the last second {late} plans were late, {missed} commands missed",
            )
        return DiagnosticStatus.OK, reason or "planning"

    def _status_message(
        self,
        stamp: Any,
        thread: ControlThread | None,
        embodiment: Embodiment,
        model: str,
        stale: list[str],
        deadline: float,
    ) -> Any:
        message, total = PlannerStatus(), self._statistics
        summary = total.summary(WINDOW)
        message.header.stamp = stamp
        message.robot, message.task, message.model = embodiment.name, embodiment.task, model
        message.fingerprint, message.stale_sources, message.deadline = embodiment.fingerprint, stale, deadline
        if thread:
            message.mode, message.reason = MODES.index(thread.mode), thread.reason
        if thread and thread.last:
            message.ended_by = thread.last.ended_by
        rows = total.last(1)
        message.latency, message.planning_time = map(float, rows[0, 1:]) if len(rows) else (math.nan,) * 2
        message.decisions, message.late_plans = total.commands, total.late_plans
        message.missed_commands, message.safety_interventions = total.missed, total.filtered
        message.latency_p50 = summary["latency_ms"]["p50"] * 1e-3
        message.latency_p99 = summary["latency_ms"]["p99"] * 1e-3
        return message
