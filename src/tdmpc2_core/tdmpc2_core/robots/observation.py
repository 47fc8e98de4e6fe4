"""ObservationAssembler: sensor samples to observation vector, the same in training, live and replay.

The vector holds the terms of `observation.terms` in order; within a term samples lie newest first. Values:
gyro (rad/s), gravity (unit vector), joint_position (rad from the default pose), joint_velocity (rad/s),
target_error (rad, last target sent less position), goal_position (m) and goal_rotation (rotation vector, rad)
from tool to goal in the tool frame, zero without a goal, previous_action, command (m/s, rad/s), gait_phase
(sin, cos); each times the term's scale.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.errors import StaleSource
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.reach import tool_error
from tdmpc2_core.robots.rotations import gravity_direction
from tdmpc2_core.robots.sensors import SensorState, Snapshot


class ObservationAssembler:
    """Owns the history, the previous action and the gait phase of one robot. Call `assemble` per decision.

    With a `noise` generator every new sample carries the terms' uniform noise, as in training; live and in
    replay it is None.
    """

    def __init__(self, embodiment: Embodiment, noise: np.random.Generator | None = None) -> None:
        self._embodiment, self._noise = embodiment, noise
        layout, terms = embodiment.observation_layout, embodiment.observation.terms
        size = embodiment.observation_dim
        self._older = np.arange(size)  # index of each value's younger neighbour in the observation before
        newest: list[int] = []
        starts: dict[str, int] = {}
        for block in layout:
            starts[block.name] = len(newest)
            newest.extend(range(block.start, block.start + block.size))
            self._older[block.start + block.size : block.stop] -= block.size
        self._newest = np.array(newest)
        self._scale = np.concatenate([np.full(b.size, t.scale) for b, t in zip(layout, terms, strict=True)])
        self._noise_width = np.concatenate(
            [np.full(b.size, t.noise) for b, t in zip(layout, terms, strict=True)]
        )
        self._sample = np.zeros(len(newest))  # newest value of every term, before the scale
        self._slots = {b.name: self._sample[starts[b.name] : starts[b.name] + b.size] for b in layout}
        self._observation = np.zeros(size, np.float32)
        self._action = np.zeros(embodiment.action_dim)
        self._target: NDArray[np.float64] | None = None
        command = embodiment.twist_command
        self._command = np.zeros(embodiment.command_dim)
        self._command_lower = np.array([t.lower for t in command.terms] if command else [])
        self._command_upper = np.array([t.upper for t in command.terms] if command else [])
        self._phase_step = embodiment.clock.frequency / embodiment.control_rate if embodiment.clock else 0.0
        self._ticks = 0
        self._phase: float | None = None
        self._end: float | None = None  # cycles at which a robot without command stands
        self._fill = True

    @property
    def command(self) -> NDArray[np.float64]:
        """The command (C,) in the last observation: velocities after timeout, range and deadband, or the goal
        (zeros without one)."""
        return self._command.copy()

    @property
    def phase(self) -> float | None:
        """Gait phase in [0, 1) in the last observation; None while the robot stands."""
        return self._phase

    def reset(self, sensors: SensorState, now: float) -> None:
        """Start an episode: previous action zero, gait clock zero, histories full of the present sample.

        Raises StaleSource as `assemble` does.
        """
        self._fresh(sensors, now)
        self._action[:] = 0.0
        self._ticks, self._phase, self._fill, self._target = 0, None, True, None

    def record_action(self, action: ArrayLike) -> None:
        """Note the action (A,) that was sent, clipped to [-1, 1]. ValueError if it is not A finite values."""
        sent = np.asarray(action, dtype=np.float64)
        if sent.shape != self._action.shape or not np.isfinite(sent).all():
            raise ValueError(f"action must be {self._action.size} finite values, got {sent}")
        np.clip(sent, -1.0, 1.0, out=self._action)

    def record_target(self, targets: ArrayLike) -> None:
        """Note the joint targets (J,), rad, that were sent; until then the measured position counts."""
        self._target = np.array(targets, dtype=np.float64)

    def assemble(self, sensors: SensorState, now: float) -> NDArray[np.float32]:
        """The observation (O,), a new array. Advances history and gait clock by one decision.

        Raises StaleSource when a source is missing or older than its max_age; nothing is advanced then.
        """
        snapshot = self._fresh(sensors, now)
        self._read(snapshot, now)
        if self._noise is not None:
            self._sample += self._noise_width * self._noise.uniform(-1.0, 1.0, self._sample.size)
        observation = self._observation.take(self._older)
        observation[self._newest] = self._sample * self._scale
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
        imu: Any = snapshot.imu  # `_fresh` refuses None where a term reads it
        joints: Any = snapshot.joints
        if "goal_position" in self._slots or "goal_rotation" in self._slots:
            self._read_goal(snapshot)
        for name, slot in self._slots.items():
            if name == "gyro":
                slot[:] = imu.angular_velocity
            elif name == "gravity":
                slot[:] = gravity_direction(imu.orientation)
            elif name == "joint_position":
                np.subtract(joints.position, self._embodiment.default_position, out=slot)
            elif name == "joint_velocity":
                slot[:] = joints.velocity
            elif name == "target_error":
                slot[:] = 0.0 if self._target is None else self._target - joints.position
            elif name.startswith("goal_"):
                continue
            elif name == "previous_action":
                slot[:] = self._action
            elif name == "command":
                slot[:] = self._command
            elif self._phase is None:
                slot[:] = 0.0
            else:
                angle = 2.0 * math.pi * self._phase
                slot[0], slot[1] = math.sin(angle), math.cos(angle)

    def _read_goal(self, snapshot: Snapshot) -> None:
        offset, turn = np.zeros(3), np.zeros(3)
        if snapshot.command is not None and snapshot.joints is not None:
            goal = snapshot.command.values
            offset, turn = tool_error(self._embodiment.chain, snapshot.joints.position, goal)
        for name, value in (("goal_position", offset), ("goal_rotation", turn)):
            if name in self._slots:
                self._slots[name][:] = value

    def _update_command(self, snapshot: Snapshot, now: float) -> None:
        spec, sample = self._embodiment.twist_command, snapshot.command
        if spec is None:
            self._command[:] = 0.0 if sample is None else sample.values
            return
        if sample is None or abs(now - sample.stamp) > spec.timeout:
            self._command[:] = 0.0
            return
        np.clip(sample.values, self._command_lower, self._command_upper, out=self._command)
        if np.abs(self._command).max() < spec.deadband:
            self._command[:] = 0.0

    def _update_phase(self) -> None:
        """Stand: no phase, clock at 0. Move: this decision's phase, then the clock advances.

        A robot without commands always moves. After a command it may finish its cycles (`stop_cycles`).
        """
        clock, cycles = self._embodiment.clock, self._ticks * self._phase_step
        if clock is None:
            return
        if self._embodiment.command is None or self._command.any():
            self._end = None
        elif self._phase is None or not clock.stop_cycles:
            self._end = 0.0
        elif self._end is None:
            self._end = math.ceil(cycles) + clock.stop_cycles - 1.0
        if self._end is not None and cycles >= self._end:
            self._ticks, self._phase = 0, None
            return
        self._phase = cycles % 1.0
        self._ticks += 1
