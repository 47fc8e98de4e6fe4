"""The control thread: waits for each tick, decides, publishes, counts."""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Callable

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray, MultiArrayDimension

from tdmpc2_core.control.decision import NO_GOAL, UNTRUSTED, Decider, Decision, Successor
from tdmpc2_core.control.statistics import Statistics, StopCause
from tdmpc2_core.control.supervision import BLOCKED, COMMANDING, ESTOP, IDLE
from tdmpc2_core.control.ticker import Tick, Ticker
from tdmpc2_ros import qos
from tdmpc2_ros.planner.controllers import ControllerWatch
from tdmpc2_ros.planner.supervisor import Peers
from tdmpc2_ros.planner.telemetry import Telemetry
from tdmpc2_ros.robot_io.output import CommandOutput

_COLLECT_EVERY = 250  # ticks between collections of garbage, right after a command is out
_LOG_EVERY = 2.0  # s
_STANDING = np.array([0.0, math.nan, math.nan])  # a gait clock at its start
_PAUSED = 10.0  # control periods without a step, after which
_LISTEN = 2.0  # for so many a supervisor is listened for
_STOPPED = 15.0  # control periods that a decision takes only where the process was stopped


class ControlThread:
    """Runs while the node is active.

    Args:
        now: the clock on which sensors are stamped, s.
        age: seconds since the sample with a stamp was measured, see `SensorInput.latency`.
        controllers: tells why the controller does not listen; None in shadow mode, where nobody does.
        peers: tells who else stops or commands the robot, and is told that this thread lives.
        cause: where a fault is recorded; the thread then ends after a last safe action.
        telemetry: told of every decision once its command is out.
        changed: called after every change of mode; cheap.
    """

    def __init__(
        self,
        node: Node,
        decider: Decider,
        output: CommandOutput,
        ticker: Ticker,
        statistics: Statistics,
        now: Callable[[], float],
        cause: StopCause,
        telemetry: Telemetry,
        changed: Callable[[], None],
        age: Callable[[float], float],
        controllers: ControllerWatch | None,
        peers: Peers,
    ) -> None:
        self._node, self._decider, self._output = node, decider, output
        self._ticker, self._statistics, self._now, self._cause = ticker, statistics, now, cause
        self._telemetry, self._notify, self._age = telemetry, changed, age
        self._controllers, self._peers = controllers, peers
        self._period = ticker.period
        self._estopped = threading.Event()
        self._stepped, self._quiet_until = math.inf, -math.inf  # steady s
        self._latency_publisher = node.create_publisher(Float64MultiArray, "~/latency", qos.STATUS)
        self._latency = Float64MultiArray()
        self._latency.layout.dim = [MultiArrayDimension(label="latency, planning; s", size=2, stride=2)]
        self.estop = False
        self.mode, self.reason = "idle", "waiting for the first sample of every source"
        self.last: Decision | None = None
        self._untrusted = False
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        """Begin to control."""
        gc.collect()
        gc.freeze()
        gc.disable()  # a full collection takes tens of ms; the thread collects between commands
        self._thread.start()

    def stop(self) -> None:
        """Publish the safe action, then end. Returns when both are done."""
        self._ticker.stop()
        self._thread.join(2.0)
        self._decider.stop()
        gc.enable()
        gc.unfreeze()
        self._node.destroy_publisher(self._latency_publisher)

    def wait_for_estop(self, seconds: float) -> bool:
        """Whether the hold of an emergency stop has gone out, after this time at most."""
        self._estopped.clear()
        return self._estopped.wait(seconds)

    def succeed(self, successor: Successor) -> None:
        """Decide with another agent from the next tick on; see `Decider.succeed`."""
        self._decider.succeed(successor)

    def _run(self) -> None:
        try:
            while (tick := self._ticker.wait()) is not None:
                self._step(tick)
        except Exception as problem:  # a fault of any kind: safe action first, report second
            self._cause.record(f"fault: {type(problem).__name__}: {problem}")
        finally:
            self._safe_action()

    def _step(self, tick: Tick) -> None:
        now, started = self._now(), time.monotonic()
        statistics = self._statistics
        statistics.ticks += 1
        rival = self._peers.rival()
        taken = rival or self._peers.stopped()
        unheard = (self._controllers.problem() if self._controllers and not self.estop else "") or taken
        decision = self._decider.decide(now, started, self.estop, unheard, self._peers.unwatched())
        quiet = self._listens(time.monotonic())
        if self._now() - now > _STOPPED * self._period:  # the process stood still, the world did not
            decision = self._decider.hold(f"no decision for {self._now() - now:.2f} s")
        if quiet:
            decision = decision._replace(targets=None)
        state = BLOCKED if rival else ESTOP if decision.mode == "estop" else COMMANDING
        self._peers.tell(state, _STANDING if decision.seen is None else decision.seen.clock)
        # periods of a hold, and those in which nobody listens, go without by intent
        if statistics.commands and self.mode not in ("hold", "no_controller"):
            statistics.missed += tick.missed
        if decision.stale:
            statistics.without_sensors(decision.stale)
        if decision.targets is not None:
            self._output.publish(decision.targets, still=decision.mode in ("hold", "estop"))
            latency = self._age(decision.stamp)
            if decision.mode in ("plan", "replay", "policy"):
                statistics.command(started, latency, decision.planning)
                self._decider.command_left(latency)
                statistics.late_plans += bool(decision.reason) and not decision.stale
                self._publish_latency(latency, decision.planning)
            statistics.ended_by[decision.ended_by] += 1
            statistics.safety(decision.interventions)
        if decision.mode == "estop" and (decision.targets is not None or not rival):
            self._estopped.set()  # the hold is out, or the supervisor stops the robot
        statistics.modes[decision.mode] += 1
        self.last = decision
        self._telemetry.decided(decision, self._now())
        if self._telemetry.curious or self._decider.gated:
            self._decider.inspect(decision, self._telemetry.inspected)
        if (decision.mode, decision.reason) != (self.mode, self.reason):
            self._changed(decision)
        if decision.untrusted != self._untrusted:
            self._trust_changed(decision.untrusted)
        if statistics.ticks % _COLLECT_EVERY == 0:
            gc.collect()

    def _listens(self, now: float) -> bool:
        """Whether to send nothing yet: after a pause a supervisor may have the robot, which it says first."""
        if now - self._stepped > _PAUSED * self._period and self._peers.supervised:
            self._quiet_until = now + _LISTEN * self._period
        self._stepped = now
        return now < self._quiet_until

    def _changed(self, decision: Decision) -> None:
        """Log a change of mode; further reasons within one mode come out throttled."""
        before, self.mode, self.reason = self.mode, decision.mode, decision.reason
        if before != decision.mode:
            self._notify()
            if decision.mode == "hold" and decision.reason != NO_GOAL:
                self._statistics.held(decision.reason)
        log = self._node.get_logger()
        if before in ("hold", "estop", "idle", "no_controller") and decision.mode in ("plan", "policy"):
            log.info(f"planning: {decision.mode}")
        elif decision.mode == "estop":
            log.warning("holding: emergency stop")
        elif decision.mode == "no_controller":
            log.error(f"not commanding: {decision.reason}")
        elif decision.mode == "hold" and decision.reason == NO_GOAL:
            log.info("holding: no goal on goal_pose yet")
        elif decision.mode == "hold" and before != "hold":
            log.error(f"holding: {decision.reason}")
        elif decision.reason:
            log.warning(f"{decision.mode}: {decision.reason}", throttle_duration_sec=_LOG_EVERY)

    def _trust_changed(self, untrusted: bool) -> None:
        """Log that the gate ended trust in the model, or took it up again."""
        self._untrusted = untrusted
        log = self._node.get_logger()
        if untrusted:
            log.warning(f"{UNTRUSTED}; out_of_trust: {self._decider.options.out_of_trust}")
        else:
            log.info("the model is trusted again")

    def _safe_action(self) -> None:
        decision = self._decider.hold("stopping")
        if decision.targets is not None and not self._peers.stopped():
            self._output.publish(decision.targets, still=True)
            self._output.flush()  # the process may end next, and what DDS has not sent by then is lost
        self._peers.tell(IDLE, _STANDING)
        self.mode, self.reason = "idle", "stopped"

    def _publish_latency(self, latency: float, planning: float) -> None:
        if self._latency_publisher.get_subscription_count() and math.isfinite(latency):
            self._latency.data = [latency, planning]
            self._latency_publisher.publish(self._latency)
