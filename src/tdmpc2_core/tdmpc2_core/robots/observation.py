"""ObservationAssembler: sensor samples to observation vector, the same in training, live and replay.

The vector holds the terms of `observation.terms` in order, each row of `terms.TERMS` times the term's scale;
within a term samples lie newest first.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.errors import StaleSource
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.reach import tool_error
from tdmpc2_core.robots.sensors import SensorState, Snapshot
from tdmpc2_core.robots.terms import TERMS, OwnState


class Places(NamedTuple):
    """Where values lie in an observation: index of each value's younger neighbour in the observation before
    (O,); of the newest values (S,), their scales and widths of noise (S,)."""

    older: NDArray[np.intp]
    newest: NDArray[np.intp]
    scale: NDArray[np.float64]
    noise: NDArray[np.float64]


class ObservationAssembler:
    """Owns the history, the previous action and the gait phase of one robot. Call `assemble` per decision.

    With a `noise` generator every new sample carries the terms' uniform noise, as in training; live and in
    replay it is None.
    """

    def __init__(self, embodiment: Embodiment, noise: np.random.Generator | None = None) -> None:
        self._embodiment, self._noise = embodiment, noise
        layout, terms = embodiment.observation_layout, embodiment.observation.terms
        size = embodiment.observation_dim
        older = np.arange(size)
        newest: list[int] = []
        starts: list[int] = []
        for block in layout:
            starts.append(len(newest))
            newest.extend(range(block.start, block.start + block.size))
            older[block.start + block.size : block.stop] -= block.size
        self.places = Places(
            older=older,
            newest=np.array(newest),
            scale=np.concatenate([np.full(b.size, t.scale) for b, t in zip(layout, terms, strict=True)]),
            noise=np.concatenate([np.full(b.size, t.noise) for b, t in zip(layout, terms, strict=True)]),
        )
        self._sample = np.zeros(len(newest))  # newest value of every term, before the scale
        self._terms = [
            (TERMS[b.name].write, TERMS[b.name].source, self._sample[start : start + b.size])
            for b, start in zip(layout, starts, strict=True)
        ]
        self._observation = np.zeros(size, np.float32)
        self._own = OwnState(embodiment, np.zeros(embodiment.action_dim), np.zeros(embodiment.command_dim))
        self._sees_goal = any(TERMS[block.name].command == "pose" for block in layout)
        self._twist = embodiment.twist_command
        limits = self._twist.terms if self._twist else ()
        self._command_lower = np.array([term.lower for term in limits])
        self._command_upper = np.array([term.upper for term in limits])
        self._phase_step = embodiment.clock.frequency / embodiment.control_rate if embodiment.clock else 0.0
        self._ticks = 0
        self._end: float | None = None  # cycles at which a robot without command stands
        self._fill = True

    @property
    def command(self) -> NDArray[np.float64]:
        """The command (C,) in the last observation: velocities after timeout, range and deadband, or the goal
        (zeros without one)."""
        return self._own.command.copy()

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
        self._ticks, self._own.phase, self._fill, self._own.target = 0, None, True, None

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
        snapshot = self._fresh(sensors, now)
        self._read(snapshot, now)
        if self._noise is not None:
            self._sample += self.places.noise * self._noise.uniform(-1.0, 1.0, self._sample.size)
        observation = self._observation.take(self.places.older)
        observation[self.places.newest] = self._sample * self.places.scale
        if self._fill:
            for block in self._embodiment.observation_layout:
                values = observation[block.start : block.start + block.size]
                observation[block.start : block.stop] = np.tile(values, block.history)
            self._fill = False
        self._observation = observation
        return observation.copy()

    def _fresh(self, sensors: SensorState, now: float) -> Snapshot:
        snapshot = sensors.snapshot()
        problems = sensors.stale_in(snapshot, now)
        if problems:
            raise StaleSource(problems)
        return snapshot

    def _read(self, snapshot: Snapshot, now: float) -> None:
        """Write the newest value of every term into its slot."""
        self._update_command(snapshot, now)
        self._update_phase()
        if self._sees_goal:
            self._update_goal(snapshot)
        samples, own = vars(snapshot), self._own
        for write, source, slot in self._terms:
            write(slot, samples.get(source), own)

    def _update_goal(self, snapshot: Snapshot) -> None:
        own = self._own
        if snapshot.command is None or snapshot.joints is None:
            own.goal_offset[:] = own.goal_turn[:] = 0.0
            return
        goal = snapshot.command.values
        own.goal_offset, own.goal_turn = tool_error(own.embodiment.chain, snapshot.joints.position, goal)

    def _update_command(self, snapshot: Snapshot, now: float) -> None:
        spec, sample, command = self._twist, snapshot.command, self._own.command
        if spec is None:
            command[:] = 0.0 if sample is None else sample.values
            return
        if sample is None or abs(now - sample.stamp) > spec.timeout:
            command[:] = 0.0
            return
        np.clip(sample.values, self._command_lower, self._command_upper, out=command)
        if np.maximum.reduce(np.abs(command)) < spec.deadband:
            command[:] = 0.0

    def _update_phase(self) -> None:
        """Stand: no phase, clock at 0. Move: this decision's phase, then the clock advances.

        A robot without commands always moves. After a command it may finish its cycles (`stop_cycles`).
        """
        clock, own = self._embodiment.clock, self._own
        if clock is None:
            return
        cycles = self._ticks * self._phase_step
        if self._embodiment.command is None or np.count_nonzero(own.command):
            self._end = None
        elif own.phase is None or not clock.stop_cycles:
            self._end = 0.0
        elif self._end is None:
            self._end = math.ceil(cycles) + clock.stop_cycles - 1.0
        if self._end is not None and cycles >= self._end:
            self._ticks, own.phase = 0, None
            return
        own.phase = cycles % 1.0
        self._ticks += 1
