"""ObservationAssembler: sensor samples to observation vector, the same in training, live and replay.

The vector holds the terms of `observation.terms` in order, each row of `terms.TERMS` times the term's scale;
within a term samples lie newest first.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.errors import StaleSource
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.heading import HeadingHold
from tdmpc2_core.robots.reach import tool_error
from tdmpc2_core.robots.sensors import SensorState, Snapshot
from tdmpc2_core.robots.terms import TERMS, OwnState, Write


class ObservationLayout:
    """Where the values of an observation lie, for one robot or, with axes in front, for many.

    Attributes:
        size: S, the newest values of all terms, which lie one after the other in a sample (..., S).
        noise: widths of the terms' noise (S,).
    """

    def __init__(self, embodiment: Embodiment) -> None:
        blocks, terms = embodiment.observation_layout, embodiment.observation.terms
        self._older = np.arange(embodiment.observation_dim)  # younger neighbours, one decision ago
        self._first = np.empty(embodiment.observation_dim, np.intp)  # place of each value in a sample
        self.size = 0
        newest: list[int] = []
        self._terms: list[tuple[Write, str, slice]] = []
        for block in blocks:
            part = slice(self.size, self.size + block.size)
            self._terms.append((TERMS[block.name].write, TERMS[block.name].source, part))
            self._first[block.start : block.stop] = np.tile(np.arange(part.start, part.stop), block.history)
            self._older[block.start + block.size : block.stop] -= block.size
            newest.extend(range(block.start, block.start + block.size))
            self.size = part.stop
        self._newest = np.array(newest)
        self._scale = np.concatenate([np.full(b.size, t.scale) for b, t in zip(blocks, terms, strict=True)])
        self.noise = np.concatenate([np.full(b.size, t.noise) for b, t in zip(blocks, terms, strict=True)])

    def write(self, sample: NDArray[np.float64], sources: Mapping[str, Any], own: OwnState) -> None:
        """Put the present value of every term, from the newest samples of the sources, into a sample."""
        for write, source, part in self._terms:
            write(sample[..., part], sources.get(source), own)

    def begin(self, sample: NDArray[np.float64]) -> NDArray[np.float32]:
        """An observation (..., O) whose histories are full of one sample (..., S)."""
        return (sample * self._scale).astype(np.float32).take(self._first, axis=-1)

    def follow(self, before: NDArray[np.float32], sample: NDArray[np.float64]) -> NDArray[np.float32]:
        """The observation (..., O) with a new sample (..., S) after the one ``before``."""
        observation = before.take(self._older, axis=-1)
        observation[..., self._newest] = sample * self._scale
        return observation


class GaitClock:
    """The gait phase of one robot. A robot without a ``clock`` section has none."""

    def __init__(self, embodiment: Embodiment) -> None:
        clock = embodiment.clock
        self._exists, self._commanded = clock is not None, embodiment.command is not None
        self._stop_cycles = clock.stop_cycles if clock else 0
        self._step = clock.frequency / embodiment.control_rate if clock else 0.0
        self._ticks = 0
        self._end: float | None = None  # cycles at which a robot without command stands
        self.phase: float | None = None  # cycles, in [0, 1); None while the robot stands

    def reset(self) -> None:
        """Stand; the clock is at 0."""
        self._ticks, self.phase = 0, None

    @property
    def row(self) -> NDArray[np.float64]:
        """Its state as three numbers, which `set` takes."""
        unknown = (math.nan if value is None else value for value in (self._end, self.phase))
        return np.array([self._ticks, *unknown])

    def set(self, row: NDArray[np.float64]) -> None:
        """Go on from a `row`."""
        self._ticks = int(row[0])
        self._end, self.phase = (None if math.isnan(value) else float(value) for value in row[1:])

    def advance(self, asked: bool) -> float | None:
        """The phase of the next decision. Stand: none, clock at 0. Move, as ``asked``: the clock advances.

        A robot without commands always moves. After a command it may finish its cycles (`stop_cycles`).
        """
        if not self._exists:
            return None
        cycles = self._ticks * self._step
        if asked or not self._commanded:
            self._end = None
        elif self.phase is None or not self._stop_cycles:
            self._end = 0.0
        elif self._end is None:
            self._end = math.ceil(cycles) + self._stop_cycles - 1.0
        if self._end is not None and cycles >= self._end:
            self._ticks, self.phase = 0, None
        else:
            self._ticks, self.phase = self._ticks + 1, cycles % 1.0
        return self.phase


_CHANGES = ("_sample", "_observation", "_clock", "_fill", "heading")
_OWN = tuple(field.name for field in fields(OwnState) if field.name != "embodiment")


class ObservationAssembler:
    """Owns the history, the previous action and the gait phase of one robot. Call `assemble` per decision.

    With a `noise` generator every new sample carries the terms' uniform noise, as in training; live and in
    replay it is None. `heading` corrects the command, with a gain of 0 where none is given.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        noise: np.random.Generator | None = None,
        heading: HeadingHold | None = None,
    ) -> None:
        self._noise, self._layout = noise, ObservationLayout(embodiment)
        self._sample = np.zeros(self._layout.size)  # newest value of every term, before the scale
        self._observation = np.zeros(embodiment.observation_dim, np.float32)
        self._own = OwnState(embodiment, np.zeros(embodiment.action_dim), np.zeros(embodiment.command_dim))
        self._sees_goal = any(TERMS[block.name].command == "pose" for block in embodiment.observation_layout)
        self._twist = embodiment.twist_command
        self._clock, self._moves = GaitClock(embodiment), False
        self.heading = heading or HeadingHold(embodiment, 0.0)
        self._told: NDArray[np.float64] | None = None
        self._fill = True
        self.samples = Snapshot()  # that the last observation was made from

    @property
    def clock(self) -> NDArray[np.float64]:
        """State (3,) of the gait clock after the last observation."""
        return self._clock.row

    def set_clock(self, row: NDArray[np.float64]) -> None:
        """Let the gait clock go on from a `clock`, as where a recording begins while a robot walks."""
        self._clock.set(row)

    @property
    def action(self) -> NDArray[np.float64]:
        """The action (A,) that was noted last, zeros at the start of an episode."""
        return self._own.action.copy()

    @property
    def command(self) -> NDArray[np.float64]:
        """The command (C,) in the last observation: velocities after timeout, range, deadband and heading
        hold, or the goal (zeros without one)."""
        return self._own.command.copy()

    def tell(self, command: NDArray[np.float64] | None) -> None:
        """Put this `command` (C,) into the observations to come, as a recording of them has it; None makes it
        of the samples again."""
        self._told = command

    @property
    def phase(self) -> float | None:
        """Gait phase in [0, 1) in the last observation; None while the robot stands."""
        return self._own.phase

    def reset(self, sensors: SensorState, now: float) -> None:
        """Start an episode: previous action zero, gait clock zero, histories full of the present sample.

        Raises StaleSource as `assemble` does.
        """
        self._fresh(sensors, now)
        self._own.action[:] = 0.0
        self._clock.reset()
        self.heading.restart()
        self._own.phase, self._fill, self._own.target = None, True, None

    def state(self) -> dict[str, Any]:
        """What the observations to come depend on beside sensors and the noise's generator."""
        own = {name: getattr(self._own, name) for name in _OWN}
        return copy.deepcopy({name: getattr(self, name) for name in _CHANGES} | {"own": own})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state` of this or another assembler of the same embodiment, bit for bit."""
        values = copy.deepcopy(dict(state))
        for name, value in values.pop("own").items():
            setattr(self._own, name, value)
        vars(self).update(values)

    def record_action(self, action: ArrayLike) -> None:
        """Note the action (A,) that was sent, clipped to [-1, 1]. ValueError if it is not A finite values."""
        sent = np.asarray(action, dtype=np.float64)
        if sent.shape != self._own.action.shape or not np.isfinite(sent).all():
            raise ValueError(f"action must be {self._own.action.size} finite values, got {sent}")
        np.clip(sent, -1.0, 1.0, out=self._own.action)

    def record_target(self, targets: ArrayLike) -> None:
        """Note the joint targets (J,), rad, that were sent; until then the measured position counts."""
        self._own.target = np.array(targets, dtype=np.float64)

    def assemble(self, sensors: SensorState, now: float) -> NDArray[np.float32]:
        """The observation (O,), a new array. Advances history and gait clock by one decision.

        Raises StaleSource when a source is missing or older than its max_age; nothing is advanced then.
        """
        snapshot = self.samples = self._fresh(sensors, now)
        self._read(snapshot, now)
        if self._noise is not None:
            self._sample += self._layout.noise * self._noise.uniform(-1.0, 1.0, self._sample.size)
        if self._fill:
            self._observation = self._layout.begin(self._sample)
        else:
            self._observation = self._layout.follow(self._observation, self._sample)
        self._fill = False
        return self._observation.copy()

    def _fresh(self, sensors: SensorState, now: float) -> Snapshot:
        snapshot = sensors.snapshot()
        problems = sensors.stale_in(snapshot, now)
        if problems:
            raise StaleSource(problems)
        return snapshot

    def _read(self, snapshot: Snapshot, now: float) -> None:
        """Write the newest value of every term into its slot."""
        own = self._own
        self._update_command(snapshot, now)
        own.phase = self._clock.advance(self._moves)
        if self._sees_goal:
            self._update_goal(snapshot)
        self._layout.write(self._sample, vars(snapshot), own)

    def _update_goal(self, snapshot: Snapshot) -> None:
        own = self._own
        if snapshot.command is None or snapshot.joints is None:
            own.goal_offset[:] = own.goal_turn[:] = 0.0
            return
        goal = snapshot.command.values
        own.goal_offset, own.goal_turn = tool_error(own.embodiment.chain, snapshot.joints.position, goal)

    def _update_command(self, snapshot: Snapshot, now: float) -> None:
        spec, sample, command = self._twist, snapshot.command, self._own.command
        if self._told is not None:
            command[:] = self._told
            self._moves = bool(np.count_nonzero(command))
            return
        if spec is None:
            command[:] = 0.0 if sample is None else sample.values
        else:
            heard = sample is not None and abs(now - sample.stamp) <= spec.timeout
            command[:] = spec.in_force(sample.values) if heard else 0.0
        self._moves = bool(np.count_nonzero(command))
        self.heading.correct(command, snapshot.imu, now)
