"""What the planner tells: of every decision ~/decision, ~/plan, ~/latent, ~/trust; of itself /diagnostics and
~/status.

All but ~/decision and /diagnostics need tdmpc2_msgs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import Float64MultiArray, MultiArrayDimension

from tdmpc2_core.control.decision import NO_GOAL, Decision, DecisionOptions
from tdmpc2_core.control.statistics import WINDOW, Statistics, StopCause, resident_megabytes
from tdmpc2_core.control.trust import UNLIMITED, Insight, Trust
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.trace import MODES, DecisionTrace, command_row, digest, sample_stamps
from tdmpc2_ros import qos
from tdmpc2_ros.messages import diagnostic_message, doubles, to_time

if TYPE_CHECKING:
    from tdmpc2_core.agent import Agent
    from tdmpc2_ros.planner.thread import ControlThread


try:
    from tdmpc2_msgs.msg import LatentState, PlanChunk, PlannerStatus, TrustState
except ImportError:
    LatentState = PlanChunk = PlannerStatus = TrustState = None


# ---- of every decision ----


class Telemetry:
    """Publishes what somebody subscribes to; keeps the newest `trust` for the diagnostics.

    `decided` is called in the control thread, `inspected` in the planning thread.
    """

    def __init__(self, node: Node, agent: Agent, names: Sequence[str], options: DecisionOptions) -> None:
        self._node, self._names, self._options = node, list(names), options
        self.latent = False  # as the parameter publish_latent says
        self.trust: Trust | None = None
        self.listener: Callable[[Decision], None] | None = None  # to every decision; cheap
        self._decisions = 0
        self._publishers: dict[str, Publisher] = {
            "decision": node.create_publisher(Float64MultiArray, "~/decision", qos.STATUS)
        }
        self.follow(agent)
        if PlanChunk is not None:
            self._publishers |= {
                "plan": node.create_publisher(PlanChunk, "~/plan", qos.COMMAND),
                "latent": node.create_publisher(LatentState, "~/latent", qos.SENSOR_INPUT),
                "trust": node.create_publisher(TrustState, "~/trust", qos.COMMAND),
            }

    def follow(self, agent: Agent) -> None:
        """Tell of this agent's decisions from now on."""
        assert agent.embodiment is not None
        self._robot: Embodiment = agent.embodiment
        self._group_size = agent.model.config.simnorm_dim

    def restart(self) -> None:
        """Count decisions from 0, as at activation."""
        self._decisions, self.trust = 0, None

    def destroy(self) -> None:
        """Give the topics up."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers = {}

    def _heard(self, topic: str) -> bool:
        return topic in self._publishers and self._publishers[topic].get_subscription_count() > 0

    @property
    def curious(self) -> bool:
        """Whether decisions are to be inspected: they are judged, or somebody listens."""
        judged = self._options.limits != UNLIMITED
        return judged or self._heard("trust") or (self.latent and self._heard("latent"))

    def decided(self, decision: Decision, sent: float) -> None:
        """The decision's targets went out at `sent`, s of the node's clock."""
        self._decisions += 1
        if (listener := self.listener) is not None:
            listener(decision)
        if self._heard("decision"):
            self._publishers["decision"].publish(self._trace(decision, sent))
        if decision.targets is not None and self._heard("plan"):
            self._publishers["plan"].publish(self._chunk(decision, sent))

    @staticmethod
    def _trace(decision: Decision, sent: float) -> Float64MultiArray:
        seen, plan, targets, nothing = decision.seen, decision.plan, decision.targets, np.empty(0)
        trace = DecisionTrace(
            now=seen.now if seen else math.nan,
            sent=sent,
            first=float(seen is not None and seen.first),
            mode=MODES.index(decision.mode),
            value=math.nan if plan is None else plan.value,
            digest=digest(seen.observation) if seen else math.nan,
            clock=seen.clock if seen else nothing,
            command=command_row(seen.samples) if seen else nothing,
            told=seen.told if seen else nothing,
            action=seen.action if seen and seen.action is not None else nothing,
            target=nothing if targets is None else targets[0],
            mean=nothing if plan is None else plan.actions[decision.row],
            std=nothing if plan is None else plan.std[decision.row],
            samples=sample_stamps(seen.samples) if seen else {},
        )
        rows = trace.rows()
        message = Float64MultiArray(data=doubles(np.concatenate([row for _, row in rows])))
        message.layout.dim = [
            MultiArrayDimension(label=name, size=len(row), stride=len(row)) for name, row in rows
        ]
        return message

    def _chunk(self, decision: Decision, sent: float) -> Any:
        robot, plan, targets = self._robot, decision.plan, decision.targets
        assert targets is not None
        message = PlanChunk(
            names=self._names,
            kind=PlanChunk.KIND_POSITION,
            dt=robot.control_period,
            horizon=len(targets),
            values=targets.ravel().tolist(),
            value=math.nan if plan is None else plan.value,
            ended_by=decision.ended_by,
        )
        message.header.stamp = to_time(sent + robot.control_period)
        if plan is not None:
            spread = plan.std[decision.row :].astype(np.float64) * robot.action_scale
            message.std = spread.ravel().tolist()
            message.action = plan.actions[decision.row].tolist()
            message.plan_std = plan.std[decision.row :].ravel().tolist()
            if plan.mean is not None:
                message.plan_mean = plan.mean[decision.row :].ravel().tolist()
        return message

    def inspected(self, decision: Decision, insight: Insight) -> None:
        """The model has looked at the decision."""
        self.trust = insight.trust
        if self._heard("trust"):
            self._publishers["trust"].publish(self._trust_message(decision, insight.trust))
        if self.latent and self._heard("latent"):
            self._publishers["latent"].publish(self._latent_message(decision, insight))

    def _trust_message(self, decision: Decision, trust: Trust) -> Any:
        levels = {"ok": TrustState.LEVEL_OK, "warn": TrustState.LEVEL_WARN, "error": TrustState.LEVEL_ERROR}
        message = TrustState(
            level=levels[trust.level],
            reason=trust.reason,
            trust=trust.trust,
            disagreement=trust.disagreement,
            consistency=trust.consistency,
        )
        limits = self._options.limits
        message.disagreement_limit, message.consistency_limit = limits.disagreement, limits.consistency
        message.header.stamp = to_time(decision.stamp)
        return message

    def _latent_message(self, decision: Decision, insight: Insight) -> Any:
        message = LatentState(
            fingerprint=self._robot.fingerprint,
            decision=self._decisions - 1,
            group_size=self._group_size,
            latent=insight.latent.tolist(),
            reward=insight.reward,
            value=math.nan if decision.plan is None else decision.plan.value,
            termination=insight.termination,
        )
        message.header.stamp = to_time(decision.stamp)
        return message


# ---- of the node ----


@dataclass(frozen=True)
class Situation:
    """The node at the time of a report."""

    state: str  # of the lifecycle
    deadline: float  # s of search per tick
    thread: ControlThread | None  # while active
    embodiment: Embodiment | None  # while configured
    shadow: bool  # nothing is commanded
    model: str
    bundle: str  # sha256 of its content
    task: str
    stale: list[str]  # sources without a fresh sample, each with the reason
    refused: dict[str, str]  # reason per source whose last message could not be used
    trust: Trust | None  # of the newest decision that was inspected


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
        if now.shadow:
            text = f"shadow, nothing is commanded: {text}"
        values: dict[str, Any] = {
            "state": now.state,
            "mode": mode,
            "reason": reason,
            "shadow": now.shadow,
            "model": now.model,
            "bundle": now.bundle,
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
        if mode == "no_controller":
            return DiagnosticStatus.ERROR, f"not commanding: {reason}"
        if mode == "hold" and reason == NO_GOAL and not problems:
            return DiagnosticStatus.OK, f"holding: {NO_GOAL}"
        if mode == "hold":
            return DiagnosticStatus.ERROR, f"holding: {problems or reason}"
        if mode == "idle" or now.refused:
            return DiagnosticStatus.WARN, f"{reason or 'refused messages'}: {problems}"
        if now.trust is not None and now.trust.level == "error":
            return DiagnosticStatus.WARN, f"the model is outside what it learned from: {now.trust.reason}"
        if filtered := self._filtered(now):
            return DiagnosticStatus.WARN, filtered
        if missed > 0 or late > 0:
            return (
                DiagnosticStatus.WARN,
                f"in the last second {late} plans were late, {missed} commands missed",
            )
        return DiagnosticStatus.OK, reason or "planning"

    def _filtered(self, now: Situation) -> str:
        """What to say where the safety filter has left no command as it was for long; else empty."""
        count, robot = self._statistics.filtered_in_a_row, now.embodiment
        if robot is None or count < robot.plausibility.filter_seconds * robot.control_rate:
            return ""
        stages = ", ".join(now.thread.last.interventions) if now.thread and now.thread.last else ""
        return (
            f"the safety filter ({stages}) changed the last {count} commands: the policy asks for what "
            "the robot may not do"
        )

    def _status_message(self, now: Situation, robot: Embodiment) -> Any:
        message, total = PlannerStatus(), self._statistics
        summary = total.summary(WINDOW)
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.robot, message.task, message.model = robot.name, now.task, now.model
        message.fingerprint, message.stale_sources = robot.fingerprint, now.stale
        message.bundle, message.shadow = now.bundle, now.shadow
        message.deadline, message.value = now.deadline, math.nan
        if now.thread:
            message.mode, message.reason = MODES.index(now.thread.mode), now.thread.reason
        if now.thread and (last := now.thread.last):
            message.ended_by = last.ended_by
            if last.plan is not None:
                message.value, message.iterations = last.plan.value, last.plan.iterations
        message.latency = message.planning_time = math.nan
        for timing in total.last(1):
            message.latency, message.planning_time = float(timing["latency"]), float(timing["planning"])
        message.decisions, message.late_plans = total.commands, total.late_plans
        message.missed_commands, message.safety_interventions = total.missed, total.filtered
        message.latency_p50 = summary["latency_ms"]["p50"] * 1e-3
        message.latency_p99 = summary["latency_ms"]["p99"] * 1e-3
        return message
