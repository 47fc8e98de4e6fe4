"""What the planner tells of every decision, where tdmpc2_msgs is built: ~/plan, ~/latent and ~/trust."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher

from tdmpc2_core.control.decision import Decision, DecisionOptions
from tdmpc2_core.robots import Embodiment
from tdmpc2_ros import qos
from tdmpc2_ros.messages import to_time

if TYPE_CHECKING:
    from tdmpc2_core.agent import Agent
    from tdmpc2_core.control.trust import Insight, Trust


try:
    from tdmpc2_msgs.msg import LatentState, PlanChunk, TrustState
except ImportError:
    LatentState = PlanChunk = TrustState = None


class Telemetry:
    """Publishes what somebody subscribes to; keeps the newest `trust` for the diagnostics.

    `decided` is called in the control thread, `inspected` in the planning thread.
    """

    def __init__(self, node: Node, agent: Agent, names: Sequence[str], options: DecisionOptions) -> None:
        self._node, self._names, self._options = node, list(names), options
        self.latent = False  # as the parameter publish_latent says
        self.trust: Trust | None = None
        self._decisions = 0
        self._publishers: dict[str, Publisher] = {}
        self.follow(agent)
        if PlanChunk is not None:
            self._publishers = {
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
        return any(self._options.limits) or self._heard("trust") or (self.latent and self._heard("latent"))

    def decided(self, decision: Decision, sent: float) -> None:
        """The decision's targets went out at `sent`, s of the node's clock."""
        self._decisions += 1
        if decision.targets is not None and self._heard("plan"):
            self._publishers["plan"].publish(self._chunk(decision, sent))

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
        message.disagreement_limit, message.consistency_limit = map(float, self._options.limits)
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
