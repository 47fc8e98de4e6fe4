"""Bags to episodes: the control of the live planner, run again on what was recorded.

Samples go through the same slots, assembler and action mapper as on the robot. Where the planner's own record
of its decisions is in the bag, observations and actions are those of the robot bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.data.bags.bag import Bag
from tdmpc2_core.data.bags.decisions import Tick, ticks_for
from tdmpc2_core.data.bags.latency import ResponseEstimate
from tdmpc2_core.data.bags.motion import imu_rotation
from tdmpc2_core.data.bags.report import USED, BagReport, draw_timeline
from tdmpc2_core.data.bags.rows import Choice, EpisodeMaker, Instant, Run
from tdmpc2_core.data.bags.samples import Clock, OdometryStream, SourceStream
from tdmpc2_core.data.bags.storage import Message
from tdmpc2_core.data.bags.survey import Survey
from tdmpc2_core.data.bags.topics import Assignment, inputs
from tdmpc2_core.data.episodes import Episode, EpisodeStore
from tdmpc2_core.errors import SensorError, StaleSource, UserError
from tdmpc2_core.files import write_json
from tdmpc2_core.robots import ActionMapper, Embodiment, ObservationAssembler, SensorState
from tdmpc2_core.robots.messages import prefixed
from tdmpc2_core.robots.rotations import gravity_direction
from tdmpc2_core.robots.sensors import Sample
from tdmpc2_core.robots.trace import DecisionTrace, digest

Array = NDArray[np.float64]

_SHORTEST = 2  # decisions of an episode
_JUMP = 0.2  # rad that a joint moves beside what its velocities say: the robot was put elsewhere
_LEAP = 0.2  # m, likewise of the base, in a control period
_GAP = 1.5  # control periods between decisions that follow each other


@dataclass(frozen=True)
class BagOptions:
    """How bags are read."""

    prefix: str = ""  # before joints and frames in messages, as the planner's parameter
    namespace: str = ""
    topics: Mapping[str, str] = field(default_factory=dict)  # by role, where names do not tell
    latency: float | None = None  # s from sample to command, where the bag does not tell
    task: int = 0


def convert_bags(
    paths: Sequence[Path | str],
    embodiment: Embodiment,
    out: Path | str,
    options: BagOptions | None = None,
    tell: Callable[[BagReport], None] = lambda report: None,
) -> list[BagReport]:
    """Episodes of bags, one after the other, in a new store; report.json and timeline.png beside it.

    What was finished stays when a later bag, or the disk, fails.

    Raises:
        UserError: a bag cannot be read, or none gives an episode; the store holds episodes already.
        OSError: the disk refuses.
    """
    options, folder = options or BagOptions(), Path(out)
    new = not folder.exists()
    bags = [Bag(path) for path in paths]
    store = EpisodeStore(folder)
    if len(store):
        raise UserError(f"{folder}: holds {len(store)} episodes already; name a new folder")
    reports: list[BagReport] = []
    try:
        for bag in bags:
            reports.append(_Conversion(bag, embodiment, store, options).run())
            tell(reports[-1])
    finally:
        if len(store):
            write_json(beside(folder, "report.json"), {"bags": [report.summary() for report in reports]})
        elif new:
            folder.rmdir()
    if not len(store):
        raise UserError("; ".join(_nothing(report) for report in reports))
    draw_timeline(beside(folder, "timeline.png"), reports)
    return reports


def beside(store: Path, name: str) -> Path:
    """A file that belongs to a store, such as `walk_report.json` of the store `walk`."""
    return store.with_name(f"{store.resolve().name}_{name}")


def _nothing(report: BagReport) -> str:
    """Why a bag gave no episode."""
    reasons = sorted(report.discarded().items(), key=lambda item: -item[1])
    causes = [text for text, _ in report.refused.most_common(1)] or report.notes[:1]
    why = [reason for reason, _ in reasons[:1]] + causes
    return f"{report.bag}: gives no episode ({'; '.join(why) or 'it is empty'})"


class _Memory:
    """Takes episodes as a store does, and keeps them."""

    def __init__(self) -> None:
        self.episodes: list[tuple[Episode, dict[str, Any]]] = []

    def append(self, episode: Episode, **metadata: str | int | float) -> None:
        """Keep it."""
        self.episodes.append((episode, dict(metadata)))


def read_bags(
    paths: Sequence[Path | str], embodiment: Embodiment, options: BagOptions | None = None
) -> list[tuple[Episode, dict[str, Any]]]:
    """Episodes of bags and their metadata, kept in memory alone.

    Raises:
        UserError: a bag cannot be read, or none gives an episode.
    """
    memory, options = _Memory(), options or BagOptions()
    reports = [_Conversion(Bag(path), embodiment, memory, options).run() for path in paths]
    if not memory.episodes:
        raise UserError("; ".join(_nothing(report) for report in reports))
    return memory.episodes


class _Conversion:
    """One bag."""

    def __init__(
        self, bag: Bag, robot: Embodiment, store: EpisodeStore | _Memory, options: BagOptions
    ) -> None:
        self._bag, self._store, self._options = bag, store, options
        self._robot = named = prefixed(robot, options.prefix)
        survey = Survey(bag)
        found = survey.assignment(named, options.namespace, options.topics)
        begin, end = survey.span
        self.report = BagReport(bag.name, begin, end, found.topics, notes=bag.notes)
        self.report.notes += found.refused
        self._roles = {topic: role for role, topic in found.topics.items()}
        rates = {role: survey.topics[topic].rate for role, topic in found.topics.items()}
        self._ticks = ticks_for(named, found.topics, rates, options.latency)
        self.report.decided_by = self._ticks.about
        refused = self.report.refused
        self._streams = {
            row.source: SourceStream(row, named, bag, refused, check=row.source == "imu")
            for row in inputs(named)
        }
        self._odometry = OdometryStream(bag, refused)
        self._clock, self._sensors = Clock(), SensorState(named)
        self._assembler, self._mapper = ObservationAssembler(named), ActionMapper(named)
        absolute = found.topics.get("odometry", "").endswith("simulator/floating_base_state")
        self._maker = EpisodeMaker(robot, absolute, options.task)
        self._mount, note = imu_rotation(robot)
        self._aligned = np.array_equal(self._mount, np.eye(3))
        self.report.notes += [note] if note else []
        self._why = self._missing(survey, found) or "before the first decision"
        self._run, self._last_target = Run(), np.array(named.default_position)
        self._fresh, self._fallen = True, False
        self._before: Instant | None = None
        self._response = ResponseEstimate(named.control_period)
        self._latencies: list[float] = []
        self._longest = max(_SHORTEST, round(named.episode_seconds * named.control_rate))

    def _missing(self, survey: Survey, found: Assignment) -> str:
        problems = {why for why in survey.served(self._robot, found).values() if why}
        if not {"joints"} <= set(found.topics):
            problems.add("no topic of joints")
        return "; ".join(sorted(problems))

    # ---- the stream ----

    def run(self) -> BagReport:
        """Read the bag to its end."""
        report, received = self.report, math.nan
        for message in self._bag.messages(lambda channel: channel.topic in self._roles):
            received = message.time * 1e-9
            self._take(self._roles[message.channel.topic], message, received)
            if self._clock.jumped:
                self._jumped(received)
                self._take(self._roles[message.channel.topic], message, received)
            for tick in self._ticks.due(received, self._clock):
                self._decide(tick)
        for tick in self._ticks.due(math.inf, self._clock):
            self._decide(tick)
        if self._run.choices:
            self._close("the bag ended")
        report.until(report.end, self._why)
        self._finish()
        return report

    def _take(self, role: str, message: Message, received: float) -> None:
        if role in self._streams:
            self._streams[role].push(message, received, self._clock)
        elif role == "odometry":
            self._odometry.push(message, received, self._clock)
        else:
            try:
                self._ticks.push(role, self._bag.decode(message), received, self._clock)
            except (SensorError, AttributeError, TypeError, ValueError) as problem:
                self.report.refused[str(problem)[:200]] += 1

    def _jumped(self, received: float) -> None:
        reason = self._clock.jumped
        for tick in self._ticks.due(math.inf, self._clock):
            self._decide(tick)
        self._clock = Clock()
        self._close(reason)
        self.report.until(received, reason)
        self._ticks.clear()
        for stream in self._streams.values():
            stream.clear()
        self._odometry.clear()
        self._sensors.clear()
        self._fresh, self._before, self._fallen = True, None, False

    # ---- a decision ----

    def _decide(self, tick: Tick) -> None:
        trace = tick.trace
        if trace is not None and math.isnan(trace.digest):
            self._close(tick.why_not)  # the planner made no observation
            return
        whole = self._see(tick)
        paused = self._before is None or tick.now - self._before.time > _GAP * self._robot.control_period
        if paused if trace is None else trace.first:
            self._fresh = True
        try:
            if self._fresh:
                self._assembler.reset(self._sensors, tick.now)
                self._maker.restart()
            observation = self._assembler.assemble(self._sensors, tick.now)
        except StaleSource as problem:
            self._fresh = True
            self._close(_lasting(problem))
            return
        self._fresh = False
        why = tick.why_not
        if trace is not None:
            why = self._compared(trace, observation, whole) or why
        self._add(tick, self._instant(tick, observation), why)

    def _see(self, tick: Tick) -> bool:
        """Put into the slots what the decision saw; whether the bag has it."""
        if tick.trace is None:
            for stream in self._streams.values():
                stream.see(tick.now, self._sensors)
            return True
        whole, trace = True, tick.trace
        for source, (oldest, newest) in trace.samples.items():
            if source not in self._streams:
                continue
            stream = self._streams[source]
            stream.see(newest, self._sensors)
            sample = getattr(self._sensors.snapshot(), source)
            whole &= sample is not None and sample.stamp == oldest
        self._command(trace)
        return whole

    def _command(self, trace: DecisionTrace) -> None:
        """The command as the planner had it, and as it told it to its policy."""
        self._assembler.tell(trace.told if len(trace.told) == self._robot.command_dim else None)
        if len(trace.command) == 0:
            self._sensors.clear_command()
            return
        stamp, values = float(trace.command[0]), trace.command[1:]
        snapshot = self._sensors.snapshot()
        snapshot.command = Sample(stamp=stamp, stamps=None, values=values)
        self._sensors.restore(snapshot)

    def _compared(self, trace: DecisionTrace, observation: NDArray[np.float32], whole: bool) -> str:
        """Count whether the observation is the planner's own; why it is not."""
        equal = trace.digest == digest(observation)
        same, total = self.report.as_live or (0, 0)
        self.report.as_live = same + equal, total + 1
        if equal:
            return ""
        if len(trace.clock) == 3:  # histories fill by themselves, the gait's clock does not
            self._assembler.set_clock(trace.clock)
        if not whole:
            return "the bag lacks samples that the planner saw"
        return "the bag lacks decisions or samples of the planner's history"

    def _instant(self, tick: Tick, observation: NDArray[np.float32]) -> Instant:
        samples, robot = self._assembler.samples, self._robot
        joints, imu = samples.joints, samples.imu
        gyro = gravity = None
        if imu is not None:
            gyro, gravity = imu.angular_velocity, gravity_direction(imu.orientation)
            if not self._aligned:
                gyro, gravity = self._mount @ gyro, self._mount @ gravity
        unknown = np.full(robot.num_joints, np.nan)
        return Instant(
            time=tick.now,
            stamp=joints.stamp,
            received=tick.received,
            observation=observation,
            position=joints.position,
            velocity=unknown if joints.velocity is None else joints.velocity,
            effort=self._effort(),
            gyro=gyro,
            gravity=gravity,
            command=self._assembler.command,
            phase=self._assembler.phase,
            base=self._odometry.at(joints.stamp, 2.0 * robot.control_period),
        )

    def _effort(self) -> Array | None:
        message = self._streams["joints"].newest
        if message is None or len(message.effort) != len(message.name):
            return None
        at = {name: place for place, name in enumerate(message.name)}
        places = [at.get(name, -1) for name in self._robot.joint_names]
        effort = np.asarray(message.effort, np.float64)[places]
        return effort if min(places) >= 0 and np.isfinite(effort).all() else None

    # ---- runs ----

    def _add(self, tick: Tick, instant: Instant, why: str) -> None:
        before, self._before = self._before, instant
        moved = "" if before is None else self._elsewhere(before, instant)
        if moved:
            self._close(moved)
            self._fallen = False
        fell = self._is_down(instant)
        choice = self._choice(tick, instant)
        if len(self._run.choices):
            self._run.instants.append(instant)
            if len(self._run) >= self._longest and not fell:
                self._store_run(terminated=False, goes_on=True)
        if fell and len(self._run.choices):
            self._close("the robot lay after a fall", terminated=True)
        self._fallen = fell
        if why or fell or choice is None:
            self._close("the robot lay after a fall" if fell else why or "nobody commanded")
            return
        if not self._run.instants:
            self.report.until(instant.received, self._why)
            self._run.instants.append(instant)
        self._run.choices.append(choice)

    def _choice(self, tick: Tick, instant: Instant) -> Choice | None:
        """What was done, noted for the observations to come."""
        trace, target = tick.trace, tick.target
        if trace is not None:
            if len(trace.target):
                self._assembler.record_target(trace.target)
            if not len(trace.action) or target is None:
                return None
            self._assembler.record_action(trace.action)
            action = trace.action.astype(np.float32)
            planned = tick.planned and len(trace.mean) > 0
            mean, std = (trace.mean, trace.std) if planned else (None, None)
        elif target is None:
            return None
        else:
            start = self._last_target if self._run.choices else instant.position
            exact = self._mapper.action(target, start)
            self._assembler.record_action(exact)
            self._assembler.record_target(target)
            action = exact.astype(np.float32)
            std = tick.std / self._robot.action_scale if tick.planned and tick.std is not None else None
            mean = None if std is None else exact
        self._last_target = target
        latency = tick.sent - instant.stamp
        return Choice(action, target, latency, mean, std, tick.value)

    def _elsewhere(self, before: Instant, now: Instant) -> str:
        """Why the robot did not get from one instant to the next by itself; empty where it did."""
        period, seconds = self._robot.control_period, now.time - before.time
        if seconds > _GAP * period or seconds <= 0.0:
            self._maker.restart()
            return "decisions were missed" if seconds > 0.0 else "time went back"
        moved = np.abs(now.position - before.position)
        mean = 0.5 * (now.velocity + before.velocity) * (now.stamp - before.stamp)
        if np.isfinite(mean).all():
            moved = np.abs(now.position - before.position - mean)
            jumped = (moved > _JUMP).any()
        else:
            jumped = (moved > self._robot.velocity_limit * max(seconds, period) + _JUMP).any()
        if now.base is not None and before.base is not None:
            jumped |= math.dist(now.base.position, before.base.position) > _LEAP
        return "the robot was put elsewhere" if jumped else ""

    def _is_down(self, instant: Instant) -> bool:
        limits = self._robot.termination
        if instant.gravity is None:
            return False
        tilt = math.acos(min(max(-float(instant.gravity[2]), -1.0), 1.0))
        height = instant.base.position[2] if instant.base and self._maker.absolute else math.inf
        return bool(limits.reached(height, tilt))

    def _close(self, reason: str, terminated: bool = False) -> None:
        """End the run, if there is one; what follows is discarded for `reason`."""
        if self._run.choices:
            self._store_run(terminated)
        self._run = Run()
        self._why = reason

    def _store_run(self, terminated: bool, goes_on: bool = False) -> None:
        run = self._run
        if len(run.choices) == len(run.instants):
            run.choices.pop()  # what it led to is not known
        if len(run) < _SHORTEST:
            self.report.until(run.instants[-1].received, f"shorter than {_SHORTEST} decisions")
            return
        episode = self._maker.episode(run, terminated)
        latency = float(np.median([choice.latency for choice in run.choices]))
        self._store.append(
            episode,
            source="bag",
            bag=self._bag.name,
            start=float(run.instants[0].time),
            latency=latency,
        )
        self._latencies += [choice.latency for choice in run.choices][:1000]
        self._response.add(episode.raw["target"], episode.raw["joint_position"])
        self.report.episodes += 1
        self.report.decisions += len(run)
        self.report.until(run.instants[-1].received, USED)
        if goes_on:
            self._run = Run([run.instants[-1]], [], before=run.choices[-1].action)

    def _finish(self) -> None:
        report = self.report
        known = [latency for latency in self._latencies if math.isfinite(latency)]
        if known:
            report.latency = {"decision": float(np.median(known)), "response": self._response.seconds}
            report.latency_from = "sample's stamp to command; command to joints by cross-correlation"
        report.base_velocity, report.rewards = self._maker.base_velocity, self._maker.masked
        restamped = {name: s.restamped for name, s in self._streams.items() if s.restamped}
        report.notes += [
            f"{name}: {count} messages have no stamp of the joints' clock and count as measured on arrival"
            for name, count in restamped.items()
        ]


def _lasting(problem: StaleSource) -> str:
    """The sources that are to blame, without numbers, so that one cause is one reason."""
    return "; ".join(
        text if "never" in text or "missing" in text else f"{text.partition(':')[0]}: too old"
        for text in problem.sources
    )
