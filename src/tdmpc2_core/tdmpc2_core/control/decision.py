"""What to command at a tick: observation, plan, fall-backs, safety. No ROS in here.

Fall-backs, in order: the newest plan played on while its horizon lasts, the policy prior, the robot held.
Without fresh sensors: the newest plan played on for `safety.plan_on` periods, the robot held.
Out of trust, as the calibrated gate says: what `DecisionOptions.out_of_trust` names.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.control.latency import InFlight, learned_delay
from tdmpc2_core.control.trust import UNLIMITED, Insight, TrustLimits, TrustMonitor
from tdmpc2_core.control.worker import PlanWorker, SearchOutcome, SearchRequest
from tdmpc2_core.errors import StaleSource, UserError
from tdmpc2_core.robots import ActionMapper, ObservationAssembler, SafetyFilter, SensorState
from tdmpc2_core.robots.rotations import tilt

if TYPE_CHECKING:
    from tdmpc2_core.agent import Agent
    from tdmpc2_core.planning import Plan
    from tdmpc2_core.robots import Snapshot


Array = NDArray[np.float64]

NO_GOAL = "no goal"
"""Why a robot with a pose command holds before it is given one."""


OutOfTrust = Literal["note", "prior", "hold", "posture"]
"""What is done while the calibrated gate does not trust the model: nothing, act by the policy prior, hold the
measured pose, go to the safe posture. The last two last until a command of zero, or a new goal."""

UNTRUSTED = "out of trust: the robot behaves unlike the good runs that the bundle was calibrated on"


@dataclass
class DecisionOptions:
    """What may change while the robot moves."""

    deadline: float = 0.012  # s of search per tick
    evaluate: bool = True  # act without exploration noise
    task: int | None = None  # index in a multi-task model
    limits: TrustLimits = UNLIMITED  # of trust in the model
    heading_hold: float | None = None  # gain, 1/s; None: the robot's own
    out_of_trust: OutOfTrust = "prior"
    compensate_delay: bool = False  # plan from where the actions in flight will have taken the robot
    actuation_delay: float = 0.0  # s from a command to its effect, for that


class Seen(NamedTuple):
    """What an observation was made from."""

    now: float  # s, that ages count from
    first: bool  # it began a new history
    samples: Snapshot
    observation: NDArray[np.float32]
    clock: NDArray[np.float64]  # (3,) of the gait, after it
    told: NDArray[np.float64]  # (C,) command in it, see `ObservationAssembler.command`
    action: NDArray[np.float64] | None  # (A,) that history goes on with; None where none was sent


class Decision(NamedTuple):
    """What a tick came to. `targets` (H, J), rad, are for 1, 2, ... H periods from now; None: send none."""

    targets: Array | None
    mode: str
    reason: str = ""
    ended_by: str = "hold"
    stamp: float = math.nan  # of the oldest sample used, s
    planning: float = math.nan  # s
    interventions: tuple[str, ...] = ()
    plan: Plan | None = None  # what is played, from its row `row` on
    row: int = 0
    observation: NDArray[np.float32] | None = None  # that `plan` was made for at this tick
    previous: NDArray[np.float32] | None = None  # (A,) action of the tick before, if that had an observation
    seen: Seen | None = None  # where there was an observation
    stale: tuple[str, ...] = ()  # one text per source without a fresh sample at this tick
    untrusted: bool = False  # the gate does not trust the model


class Successor(NamedTuple):
    """Another agent of the same robot, the worker that plans with it, warm, and the index of its task."""

    agent: Agent
    worker: PlanWorker
    task: int | None


_LONG = 1.0  # s of stale sensors after which a standing command must not move the robot
_STOP = 1.0  # s, shortest stop for want of trust
_TIPPED = 0.1  # s beyond max_tilt, which a push may last
_ROUNDING = 1e-6  # s, far below a control period: a tick at the plan's end is past it
_LATE = 0.85  # control periods after which a plan counts as late


class Decider:
    """The state of one robot's control: history, previous action, plan, last safe targets.

    Args:
        agent: model and planner; its embodiment says what the robot is.
        sensors: the newest samples, written by others.
    """

    def __init__(self, agent: Agent, sensors: SensorState, options: DecisionOptions | None = None) -> None:
        assert agent.embodiment is not None
        self.embodiment, self.options = agent.embodiment, options or DecisionOptions()
        self._agent, self._sensors = agent, sensors
        self._period = self.embodiment.control_period
        self._horizon = agent.planner_config.horizon
        self._assembler = ObservationAssembler(self.embodiment)
        self._mapper, self._safety = ActionMapper(self.embodiment), SafetyFilter(self.embodiment)
        self._worker, self._monitor = PlanWorker(agent), self._monitor_of(agent)
        self._inspected = 0  # decisions that were to be inspected
        self._in_flight = InFlight(self._period, self.embodiment.action_dim)
        self._learned_delay = learned_delay(self.embodiment)
        self._successor: Successor | None = None
        self._plan: Plan | None = None
        self._sent: NDArray[np.float32] | None = None  # action of the tick before
        self._first = self._fresh_start = True
        self._blind = 0  # ticks in a row without fresh sensors
        self._lost: float | None = None  # since when an observation could not be made, s
        self._armed, self._from_measured, self._upright = True, True, math.inf
        self._pose: Array | None = None  # held since the present hold began
        self._stopped: float | None = None  # since when for want of trust, s
        self._stopped_from: Array | None = None  # (J,), last targets before that

    def warm_up(self) -> None:
        """Plan once in the planning thread, whose first search takes far longer than later ones."""
        self._worker.warm_up(self.embodiment.observation_dim, self.options.task)

    def succeed(self, successor: Successor) -> None:
        """Decide with another agent from the next tick on.

        History, previous action and the plan that is being played go on.
        """
        self._successor = successor

    def inspect(self, decision: Decision, tell: Callable[[Decision, Insight], None]) -> None:
        """Look at the decision with the model; in the planning thread while it is idle, as is `tell`."""
        plan, seen, previous = decision.plan, decision.observation, decision.previous
        if plan is None or seen is None:
            return
        monitor, options, number = self._monitor, self.options, self._inspected
        self._inspected += 1

        def look() -> None:
            tell(decision, monitor.assess(seen, plan.actions, previous, options.task, options.limits, number))

        self._worker.follow(look)

    @property
    def gated(self) -> bool:
        """Whether decisions have to be inspected, as a calibrated gate acts on what is seen."""
        return self._monitor.gate is not None

    @staticmethod
    def _monitor_of(agent: Agent) -> TrustMonitor:
        return TrustMonitor(agent.model, agent.trust, agent.control_period)

    def stop(self) -> None:
        """End the planning thread."""
        self._worker.stop()

    def restart(self) -> None:
        """Forget history and plan: the next observation is the first of an episode."""
        self._fresh_start, self._plan, self._sent = True, None, None
        self._in_flight.restart()

    def command_left(self, latency: float) -> None:
        """The command of the last decision left `latency` s after its oldest sample was measured."""
        self._in_flight.measured(latency)

    def decide(
        self, now: float, started: float, estop: bool = False, unheard: str = "", halt: str = ""
    ) -> Decision:
        """Decide at `now` (s, on the clock of the sensors' stamps); `started` is the same instant of
        `time.monotonic()`, from which deadlines count.

        With a reason `halt` the robot is held. After an emergency stop, a controller that did not listen, a
        tilt beyond `max_tilt` or a second of stale sensors it is held until its velocity command is zero: one
        that stands would set it going.

        Stale sensors give the plan played on for `safety.plan_on` periods, which a biped survives better than
        being frozen in mid stride; then one hold, then decisions without targets until all are fresh again. A
        controller that does not listen, or another who commands it, for the reason `unheard`, gives none at
        once. Afterwards targets go on from the last ones at the safety filter's rate; where nobody listened,
        from the measured position.
        """
        if self._successor is not None:
            self._take_over(self._successor)
        snapshot = self._sensors.snapshot()
        if estop:
            self.restart()
            self._armed = False
            if self.embodiment.pose_command:  # a goal would set the arm going again when the stop is cleared
                self._sensors.clear_command()
            if unheard:  # another commands the robot: two would pull it to and fro
                self._from_measured = True
                return Decision(None, "estop", unheard)
            return self._hold(snapshot, "emergency stop", "estop")
        if unheard:
            self.restart()
            self._armed, self._from_measured, self._pose = False, True, None
            return Decision(None, "no_controller", unheard)
        first = self._fresh_start
        try:
            observation = self._observe(snapshot, now)
        except StaleSource as problem:
            return self._without_sensors(snapshot, now, problem)._replace(stale=problem.sources)
        self._blind, self._lost = 0, None
        if halt := halt or self._distrusted(snapshot, now) or self._disarmed(snapshot, now):
            self.restart()
            way = self._way(now) if self._stopped is not None else None
            held = self._hold(snapshot, halt) if way is None else self._rows_of(way, snapshot, halt)
            return held._replace(stamp=self._oldest(snapshot), untrusted=not self._monitor.trusted)
        if self.embodiment.pose_command and snapshot.command is None:
            self._first, self._plan, self._sent = True, None, None
            decision = self._recorded(self._hold(snapshot, NO_GOAL))
        else:
            decision = self._act(observation, snapshot, now, started)
        assembler = self._assembler
        action = None if decision.targets is None else assembler.action
        told = assembler.command
        seen = Seen(now, first, assembler.samples, observation, assembler.clock, told, action)
        untrusted = not self._monitor.trusted
        return decision._replace(stamp=self._oldest(snapshot), seen=seen, untrusted=untrusted)

    def _distrusted(self, snapshot: Snapshot, now: float) -> str:
        """Why the robot is stopped for want of trust in the model; empty where it may move."""
        if self.options.out_of_trust not in ("hold", "posture"):
            self._stopped = None
            return ""
        if self._stopped is None:
            if self._monitor.trusted:
                return ""
            self._stopped, self._armed = now, False
            self._stopped_from = self._safety.last
            if self.embodiment.pose_command:
                self._sensors.clear_command()
            return UNTRUSTED
        if now - self._stopped < _STOP or self._disarmed(snapshot, now):
            return UNTRUSTED
        self._stopped = None
        self._monitor.trust_again()
        return ""

    def _way(self, now: float) -> Array | None:
        """Targets (H, J) from the last ones before the stop to the safe posture; None: hold."""
        posture, start = self.embodiment.safe_posture, self._stopped_from
        if self.options.out_of_trust != "posture" or posture is None or start is None:
            return None
        assert self._stopped is not None
        times = now - self._stopped + self._period * np.arange(1, self._horizon + 1)
        seconds = max(self.embodiment.safety.posture_seconds, self._period)
        return start + np.clip(times / seconds, 0.0, 1.0)[:, None] * (posture - start)

    def _disarmed(self, snapshot: Snapshot, now: float) -> str:
        """Why the robot must not move yet; empty where it may."""
        limit = self.embodiment.termination.max_tilt
        tilted = 0.0 if snapshot.imu is None or limit is None else float(tilt(snapshot.imu.orientation))
        if limit is None or tilted <= limit:
            self._upright = now
        elif now - self._upright > _TIPPED:
            self._armed = False
            return f"the robot is tilted by {tilted:.2f} rad, beyond max_tilt {limit:g}"
        twist = self.embodiment.twist_command
        if self._armed or twist is None:
            return ""
        if np.count_nonzero(self._assembler.command):
            return "a velocity command stands from before the stop; send zero first"
        self._armed = True
        return ""

    def hold(self, reason: str) -> Decision:
        """The safe action: the robot held at its measured position. No targets before the first sample."""
        return self._hold(self._sensors.snapshot(), reason)

    # ---- parts of a decision ----

    def _take_over(self, successor: Successor) -> None:
        self._successor = None
        self._worker.stop(0.0)  # a search in progress ends by itself; the tick does not wait for it
        self._agent, self._worker, self.options.task = successor
        self._monitor, self._horizon = self._monitor_of(self._agent), self._agent.planner_config.horizon
        self._first, self._sent = True, None  # latents of two models do not compare

    def _without_sensors(self, snapshot: Snapshot, now: float, problem: StaleSource) -> Decision:
        self._blind += 1
        if self._plan is not None and self._blind <= self.embodiment.safety.plan_on:
            return self._play(self._plan, "replay", str(problem), snapshot, now)._replace(ended_by="replay")
        self.restart()
        again = self._lost is not None
        if self._lost is None:
            self._lost = now
        self._armed = self._armed and now - self._lost < _LONG
        return Decision(None, "hold", str(problem)) if again else self._hold(snapshot, str(problem))

    def _observe(self, snapshot: Snapshot, now: float) -> NDArray[np.float32]:
        if self._fresh_start:
            self._assembler.reset(self._sensors, now)
            assert snapshot.joints is not None
            if self._from_measured:
                self._safety.reset(snapshot.joints.position)
                self._from_measured = False
            self._first, self._fresh_start = True, False
        hold, twist = self.options.heading_hold, self.embodiment.twist_command
        self._assembler.heading.gain = (twist.heading_hold if twist else 0.0) if hold is None else hold
        return self._assembler.assemble(self._sensors, now)

    def _act(
        self, observation: NDArray[np.float32], snapshot: Snapshot, now: float, started: float
    ) -> Decision:
        self._accept(self._worker.collect())  # a plan that came after its tick
        outcome, problem = None, "the search of an earlier tick still runs"
        if not self._worker.busy:
            deadline, options = started + self.options.deadline, self.options
            self._worker.request(
                SearchRequest(
                    observation,
                    now=now,
                    deadline=deadline,
                    first=self._first,
                    evaluate=options.evaluate,
                    task=options.task,
                    use_prior=options.out_of_trust == "prior" and not self._monitor.trusted,
                    in_flight=self._in_flight.actions(options.actuation_delay - self._learned_delay)
                    if options.compensate_delay
                    else None,
                )
            )
            self._first = False
            outcome = self._worker.collect(until=max(deadline, started + _LATE * self._period))
            problem = self._accept(outcome)
        seconds = outcome.seconds if outcome else time.monotonic() - started
        previous, self._sent = self._sent, None
        if outcome and isinstance(outcome.error, UserError):  # the observation or the plan is not finite
            return self._recorded(self._hold(snapshot, problem)._replace(planning=seconds))
        if not problem and self._plan is not None:
            mode = "policy" if self._plan.ended_by == "policy" else "plan"
            self._sent = self._plan.actions[0]
            decision = self._play(self._plan, mode, "", snapshot, now)
            return decision._replace(planning=seconds, observation=observation, previous=previous)
        return self._fall_back(observation, snapshot, now, problem)._replace(planning=seconds)

    def _accept(self, outcome: SearchOutcome | None) -> str:
        """Take up a new plan; else the reason why there is none."""
        if outcome is None:
            return "the plan is late"
        if outcome.plan is not None:
            self._plan = outcome.plan
            return ""
        error = outcome.error
        return str(error) if isinstance(error, UserError) else f"planning failed: {error!r}"

    def _fall_back(
        self, observation: NDArray[np.float32], snapshot: Snapshot, now: float, why: str
    ) -> Decision:
        if self._plan is not None and now < self._plan.end - _ROUNDING:
            return self._play(self._plan, "replay", why, snapshot, now)._replace(ended_by="replay")
        try:
            action = self._agent.act(observation[None], evaluate=True, task=self._task, use_prior=True).action
        except (UserError, RuntimeError) as problem:
            return self._recorded(self._hold(snapshot, f"{why}; {problem}"))
        return self._rows(action, "policy", why, "policy", snapshot)

    def _play(self, plan: Plan, mode: str, why: str, snapshot: Snapshot, now: float) -> Decision:
        row = plan.index(now)
        decision = self._rows(plan.actions[row:], mode, why, plan.ended_by, snapshot)
        return decision._replace(plan=plan, row=row)

    def _rows(
        self, actions: NDArray[np.float32], mode: str, why: str, ended_by: str, snapshot: Snapshot
    ) -> Decision:
        """The decision that plays `actions` (H, A) from now on."""
        self._assembler.record_action(actions[0])
        self._in_flight.sent(actions[0])
        self._pose = None
        wanted = self._mapper.targets(actions, self._safety.last)
        targets, interventions = self._safe(wanted, snapshot)
        return Decision(targets, mode, why, ended_by, interventions=interventions)

    def _hold(self, snapshot: Snapshot, reason: str, mode: str = "hold") -> Decision:
        if self._pose is None and snapshot.joints is not None:
            self._pose = snapshot.joints.position
        if self._pose is None:
            return Decision(None, mode, reason)
        return self._rows_of(np.tile(self._pose, (self._horizon, 1)), snapshot, reason, mode)

    def _rows_of(self, rows: Array, snapshot: Snapshot, reason: str, mode: str = "hold") -> Decision:
        targets, interventions = self._safe(rows, snapshot)
        return Decision(targets, mode, reason, interventions=interventions)

    def _recorded(self, decision: Decision) -> Decision:
        if decision.targets is not None:
            self._assembler.record_action(self._mapper.action(decision.targets[0], decision.targets[0]))
        return decision

    def _safe(self, rows: Array, snapshot: Snapshot) -> tuple[Array, tuple[str, ...]]:
        """Every row (H, J) filtered. The first starts from the measured position and is what counts; for the
        others the robot is taken to have reached the row before."""
        position = rows[0] if snapshot.joints is None else snapshot.joints.position
        first = self._safety.filter(rows[0], position, self._period)
        ahead = copy.copy(self._safety)
        ahead.counts = dict(ahead.counts)
        result = [first.targets]
        for row in rows[1:]:
            result.append(ahead.filter(row, result[-1], self._period).targets)
        self._assembler.record_target(first.targets)
        return np.stack(result), first.interventions

    @property
    def _task(self) -> NDArray[np.int64] | None:
        return None if self.options.task is None else np.array([self.options.task])

    def _oldest(self, snapshot: Snapshot) -> float:
        stamp = self._sensors.oldest_in(snapshot)
        return stamp if math.isfinite(stamp) else math.nan
