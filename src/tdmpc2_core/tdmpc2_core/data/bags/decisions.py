"""When a bag's robot was decided about, and what: from the planner's own record, or from commands alone."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.data.bags.samples import Clock
from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.messages import to_seconds
from tdmpc2_core.robots.trace import MODES, DecisionTrace
from tdmpc2_core.robots.trajectory import TrajectoryPlayer

Array = NDArray[np.float64]

ACTING = ("plan", "replay", "policy")
"""Modes in which a model acts."""
_SLACK, _MOST_SLACK = 0.25, 0.002  # of an interval, and s
SETTLE = 0.5  # s after which all that a decision saw has been recorded, whatever the order
_HELD = 0.5  # s after the last command from which nobody decides any more


@dataclass
class Tick:
    """One decision."""

    now: float  # s, on the clock of the stamps
    received: float  # s
    sent: float = math.nan  # s, on the clock of the stamps
    target: Array | None = None  # (J,) rad, for the end of the period; None: nobody commanded
    trace: DecisionTrace | None = None
    std: Array | None = None  # (J,) rad
    value: float = math.nan
    planned: bool = False
    why_not: str = ""  # why it is no part of an episode


class Ticks(Protocol):
    """Takes the messages that decisions are known from; gives the decisions whose samples have come."""

    about: str

    def push(self, role: str, message: Any, received: float, clock: Clock) -> None:
        """One more message, decoded. Raises SensorError where it cannot be used."""

    def due(self, received: float, clock: Clock) -> Iterator[Tick]:
        """Decisions that are complete by now; infinite at the end."""

    def clear(self) -> None:
        """Forget what waits, as after the clock jumped."""


class TracedTicks:
    """From ~/decision: which samples the planner saw, and what it did."""

    about = "the planner's own record (~/decision)"

    def __init__(self) -> None:
        self._waiting: deque[Tick] = deque()

    def push(self, role: str, message: Any, received: float, clock: Clock) -> None:
        """See `Ticks`."""
        if role != "decision":
            return
        try:
            sizes = [(dim.label, int(dim.size)) for dim in message.layout.dim]
            trace = DecisionTrace.of_rows(sizes, message.data)
        except ValueError as problem:
            raise SensorError(f"decision: {problem}") from None
        mode = trace.mode_name
        self._waiting.append(
            Tick(
                trace.now if math.isfinite(trace.now) else clock.at(received),
                received,
                sent=trace.sent,
                target=trace.target if len(trace.target) else None,
                trace=trace,
                value=trace.value,
                planned=mode in ("plan", "replay"),
                why_not="" if mode in ACTING else f"the planner's mode was {mode}",
            )
        )

    def due(self, received: float, clock: Clock) -> Iterator[Tick]:
        """See `Ticks`."""
        while self._waiting and self._waiting[0].received <= received - SETTLE:
            yield self._waiting.popleft()

    def clear(self) -> None:
        """See `Ticks`."""
        self._waiting.clear()


class CommandReader:
    """Joint targets out of commands to controllers, in the robot's order, inside its limits."""

    def __init__(self, robot: Embodiment) -> None:
        self._robot = robot
        self._names: list[str] = []
        self._own = self._given = np.empty(0, np.intp)

    def points(self, role: str, message: Any, last: Array) -> tuple[Array, Array]:
        """Targets (H, J), rad, and their times (H,), s from arrival; joints not named stay at `last`.

        A command of a forward controller has one row at time 0. Raises SensorError.
        """
        if role == "forward":
            values = np.asarray(message.data, np.float64)[None]
            if values.shape[1] != len(last):
                raise SensorError(f"forward: {values.shape[1]} values, {len(last)} are needed, one per joint")
            return self._checked(values, role), np.zeros(1)
        if role == "plan":
            values = np.asarray(message.values, np.float64)
            rows = self._placed(message.names, values.reshape(int(message.horizon), -1), last, role)
            return rows, message.dt * np.arange(1, len(rows) + 1)
        if not len(message.points):
            raise SensorError("trajectory: no points")
        rows = self._placed(message.joint_names, np.array([p.positions for p in message.points]), last, role)
        return rows, np.array([to_seconds(point.time_from_start) for point in message.points])

    def _placed(self, names: list[str], values: Array, last: Array, role: str) -> Array:
        if names != self._names:
            own = self._robot.joint_names
            pairs = [(own.index(name), place) for place, name in enumerate(names) if name in own]
            self._own, self._given = (
                (np.array(part, np.intp) for part in zip(*pairs, strict=True))
                if pairs
                else (np.empty(0, np.intp), np.empty(0, np.intp))
            )
            self._names = list(names)
        if values.ndim != 2 or values.shape[1] != len(names):
            raise SensorError(f"{role}: rows of {values.shape[-1]} values for {len(names)} joints")
        if not len(self._own):
            raise SensorError(f"{role}: names none of the robot's joints, but {', '.join(names[:4])}")
        rows = np.tile(last, (len(values), 1))
        rows[:, self._own] = values[:, self._given]
        return self._checked(rows, role)

    def _checked(self, rows: Array, role: str) -> Array:
        if not np.isfinite(rows).all():
            raise SensorError(f"{role}: a target is not finite")
        return np.clip(rows, self._robot.lower, self._robot.upper)


class CommandTicks:
    """A decision per command, where commands come at the control rate.

    The observation that a command followed is that of `latency` (s) before it, of samples that come every
    `interval` (s): a small share of it later, as the way of messages takes time too.
    """

    def __init__(self, robot: Embodiment, role: str, latency: float | None, interval: float) -> None:
        self._robot, self._role, self._given = robot, role, latency
        self._slack = min(_SLACK * interval, _MOST_SLACK) if latency else 0.0
        self._latency = latency or 0.0
        self._reader, self._waiting = CommandReader(robot), deque[Tick]()
        self._target = np.array(robot.default_position)
        self._modes: deque[tuple[float, str]] = deque()
        self._mode = ""
        self.about = f"one per {role} message"

    def push(self, role: str, message: Any, received: float, clock: Clock) -> None:
        """See `Ticks`."""
        if role == "status":
            self._modes.append((received, MODES[message.mode] if message.mode < len(MODES) else ""))
            if self._given is None and 0.0 < message.latency < 1.0:
                self._latency = float(message.latency)
            return
        if role != self._role or math.isnan(clock.stamp):
            return
        period = self._robot.control_period
        rows, times = self._reader.points(role, message, self._target)
        target = _at(period, rows, times, self._target)
        sent, std, value = clock.at(received), None, math.nan
        if role == "plan":
            sent = to_seconds(message.header.stamp) - period
            std = np.asarray(message.std, np.float64)[: len(target)] if len(message.std) else None
            value = float(message.value)
        self._target = target
        now = sent - self._latency + self._slack
        if self._waiting and now - self._waiting[-1].now < 0.5 * period:
            return
        planned = std is not None and message.ended_by != "policy"
        self._waiting.append(Tick(now, received, sent, target, None, std, value, planned))

    def due(self, received: float, clock: Clock) -> Iterator[Tick]:
        """See `Ticks`."""
        while self._waiting and self._waiting[0].received <= received - SETTLE:
            tick = self._waiting.popleft()
            while self._modes and self._modes[0][0] <= tick.received:
                self._mode = self._modes.popleft()[1]
            if self._mode and self._mode not in ACTING:
                tick.why_not = f"the planner's mode was {self._mode}"
            yield tick

    def clear(self) -> None:
        """See `Ticks`."""
        self._waiting.clear()


class GridTicks:
    """A decision per control period, where commands come at another rate: what they asked for at its end."""

    def __init__(self, robot: Embodiment, role: str) -> None:
        self._period, self._role, self._reader = robot.control_period, role, CommandReader(robot)
        self._player = TrajectoryPlayer(robot.default_position)
        self._waiting: deque[tuple[float, Array, Array]] = deque()
        self._next, self._last = math.nan, -math.inf
        self.about = f"{robot.control_rate:g} times a second, from {role} messages" if role else "no commands"

    def push(self, role: str, message: Any, received: float, clock: Clock) -> None:
        """See `Ticks`."""
        if role == self._role and not math.isnan(clock.stamp):
            rows, times = self._reader.points(role, message, self._player.state().points[-1])
            self._waiting.append((clock.at(received), rows, times))

    def due(self, received: float, clock: Clock) -> Iterator[Tick]:
        """See `Ticks`."""
        if math.isnan(self._next):
            self._next = clock.stamp
        settle = SETTLE if math.isfinite(received) else 0.0
        while self._next + self._period + settle <= clock.stamp:
            now, end = self._next, self._next + self._period
            while self._waiting and self._waiting[0][0] <= end:
                self._play(*self._waiting.popleft())
            heard = math.isfinite(self._last)
            alive = heard and end - self._last <= max(_HELD, 2.0 * self._period)
            why = "" if alive else "commands had stopped" if heard else "nobody had commanded yet"
            target = self._player.sample(end) if alive else None
            self._next = end
            yield Tick(now, clock.received(now), sent=self._last, target=target, why_not=why)

    def _play(self, time: float, rows: Array, times: Array) -> None:
        self._last = time
        if self._role == "forward":
            self._player.step_to(rows[0])
        else:
            self._player.set(rows, np.maximum(times, 1e-6 * np.arange(1, len(times) + 1)), time)

    def clear(self) -> None:
        """See `Ticks`."""
        self._waiting.clear()
        self._next, self._last = math.nan, -math.inf


def _at(time: float, rows: Array, times: Array, before: Array) -> Array:
    """Where a trajectory is `time` s after it began at `before` (J,); its end behind its end."""
    if len(rows) == 1 or times[0] >= time:
        share = 1.0 if times[0] <= time else time / times[0]
        return np.asarray(before + share * (rows[0] - before)) if share < 1.0 else rows[0].copy()
    after = int(np.searchsorted(times, time))
    if after >= len(times):
        return rows[-1].copy()
    share = (time - times[after - 1]) / (times[after] - times[after - 1])
    return np.asarray(rows[after - 1] + share * (rows[after] - rows[after - 1]))


def ticks_for(
    robot: Embodiment, found: dict[str, str], rates: dict[str, float], latency: float | None
) -> Ticks:
    """The best that the bag has. `rates`, messages per second, by role."""
    if "decision" in found:
        return TracedTicks()
    interval = 1.0 / rates.get("joints", math.nan)
    if "plan" in found:
        return CommandTicks(robot, "plan", latency, interval)
    heard = Counter({role: rates.get(role, 0.0) for role in ("trajectory", "forward") if role in found})
    role = heard.most_common(1)[0][0] if heard else ""
    if role and 0.7 < rates.get(role, 0.0) * robot.control_period < 1.4:
        return CommandTicks(robot, role, latency, interval)
    return GridTicks(robot, role)
