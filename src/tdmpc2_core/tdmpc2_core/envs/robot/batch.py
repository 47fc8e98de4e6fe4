"""Many robots of one kind in one process: what `RobotEnv` does, in arrays over robots, physics in threads.

Each robot keeps its own MuJoCo world and random numbers, and MuJoCo's own functions step it; all that lies
between physics and policy is done for all robots at once. Robot i equals `RobotEnv` with the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv, robot_spec
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.reach import tool_error
from tdmpc2_core.robots.rewards import Reward, RobotState, StateTracker
from tdmpc2_core.robots.rotations import gravity_direction, into_frame, wxyz_to_xyzw
from tdmpc2_core.robots.terms import TERMS, OwnState

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class BatchStep:
    """One decision of N robots. A robot whose episode ended has been reset.

    Attributes:
        observation: (N, O) float32, after the reset where there was one; `final` before it.
        privileged: (N, P) float32, see `BatchEnv.privileged`; `final_privileged` before a reset.
        reward: (N,).
        terminated, truncated: (N,) bool.
    """

    observation: NDArray[np.float32]
    final: NDArray[np.float32]
    privileged: NDArray[np.float32]
    final_privileged: NDArray[np.float32]
    reward: Array
    terminated: Flags
    truncated: Flags


class _Commands:
    """`TrajectoryPlayer` and the commands under way of N robots, as arrays."""

    def __init__(self, embodiment: Embodiment, count: int, longest: float) -> None:
        joints, self._period = embodiment.num_joints, embodiment.control_period
        self._ramp = embodiment.action.interpolation == "linear"
        self._rate, self._substeps = embodiment.physics_rate, embodiment.physics_steps
        room = int(np.ceil(longest / self._period)) + 1
        self._arrival = np.full((count, room), np.inf)
        self._waiting = np.zeros((count, room, joints))
        self._begin, self._end = np.zeros(count), np.zeros(count)
        self._from, self._to = np.zeros((count, joints)), np.zeros((count, joints))

    def reset(self, rows: Rows, position: Array) -> None:
        """Hold `position` (n, J)."""
        self._arrival[rows] = np.inf
        self._begin[rows] = self._end[rows] = 0.0
        self._from[rows] = self._to[rows] = position

    def send(self, now: Array, delay: Array, targets: Array) -> None:
        """Commands (N, J) that arrive `delay` (N,) s after `now` (N,)."""
        free = np.argmax(np.isinf(self._arrival), axis=1)
        rows = np.arange(len(free))
        self._arrival[rows, free] = now + delay
        self._waiting[rows, free] = targets

    def play(self, now: Array, timestep: float) -> Array:
        """Targets (substeps, N, J) of the control period that begins at `now` (N,)."""
        result = np.empty((self._substeps, *self._to.shape))
        for step in range(self._substeps):
            while (due := (self._arrival <= now[:, None] + 1e-9)).any():
                oldest = np.argmin(self._arrival, axis=1)
                rows = np.flatnonzero(due.any(axis=1))
                arrived = self._waiting[rows, oldest[rows]]
                self._arrival[rows, oldest[rows]] = np.inf
                self._from[rows] = self._sample(now)[rows] if self._ramp else arrived
                self._to[rows] = arrived
                self._begin[rows] = now[rows]
                self._end[rows] = now[rows] + self._period if self._ramp else 0.0
            result[step] = self._sample(now + 1.0 / self._rate)
            now = now + timestep
        return result

    def _sample(self, time: Array) -> Array:
        span = np.where(self._end > self._begin, self._end - self._begin, 1.0)
        share = ((time - self._begin) / span)[:, None]
        between = self._from + share * (self._to - self._from)
        ended, before = (time >= self._end)[:, None], (time <= self._begin)[:, None]
        return np.where(ended, self._to, np.where(before, self._from, between))


class _Observations:
    """`ObservationAssembler` for N robots: the same terms write into arrays with a robot axis."""

    def __init__(self, embodiment: Embodiment, lanes: Sequence[RobotEnv]) -> None:
        self._embodiment, self._lanes, count = embodiment, lanes, len(lanes)
        layout = embodiment.observation_layout
        one = lanes[0].assembler
        self._places = one.places
        sizes = np.cumsum([0, *(block.size for block in layout)])
        self._columns = [slice(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
        self._observation = np.zeros((count, embodiment.observation_dim), np.float32)
        self.action = np.zeros((count, embodiment.action_dim))  # sent before
        self.command = np.zeros((count, embodiment.command_dim))  # in force
        self.phase = np.full(count, np.nan)  # cycles; NaN while a robot stands
        self._ticks = np.zeros(count)
        self._end = np.full(count, np.nan)  # cycles at which a robot without command stands; NaN: it moves
        clock, twist = embodiment.clock, embodiment.twist_command
        self._phase_step = clock.frequency / embodiment.control_rate if clock else 0.0
        limits = twist.terms if twist else ()
        self._lower = np.array([term.lower for term in limits])
        self._upper = np.array([term.upper for term in limits])
        self.sees_goal = embodiment.pose_command is not None
        self.goal_error = np.zeros((count, 6))  # m and rad, from tool to goal as measured

    def reset(self, rows: Rows) -> None:
        """New episodes."""
        self.action[rows] = 0.0
        self._ticks[rows], self.phase[rows] = 0, np.nan

    def assemble(
        self, rows: Rows, samples: dict[str, Any], commands: Array, target: Array, fill: bool
    ) -> NDArray[np.float32]:
        """Observations (n, O) of robots `rows` from samples of as many; fill: the histories, too."""
        self._update_command(rows, commands)
        self._update_phase(rows)
        own = OwnState(self._embodiment, self.action[rows], self.command[rows], target)
        if self.sees_goal:
            own.goal_offset, own.goal_turn = tool_error(
                self._embodiment.chain, samples["joints"].position, own.command
            )
        values = np.zeros((len(rows), len(self._places.newest)))
        for block, columns in zip(self._embodiment.observation_layout, self._columns, strict=True):
            term = TERMS[block.name]
            if term.name == "gait_phase":
                _write_phase(values[:, columns], self.phase[rows])
            else:
                term.write(values[:, columns], samples.get(term.source), own)
        if self._lanes[0].options.sensor_noise:
            draws = [self._lanes[row].rng.uniform(-1.0, 1.0, values.shape[1]) for row in rows]
            values += self._places.noise * np.array(draws)
        observation = self._observation[rows].take(self._places.older, axis=1)
        observation[:, self._places.newest] = values * self._places.scale
        if fill:
            for block in self._embodiment.observation_layout:
                newest = observation[:, block.start : block.start + block.size]
                observation[:, block.start : block.stop] = np.tile(newest, (1, block.history))
        self._observation[rows] = observation
        return observation

    def _update_command(self, rows: Rows, commands: Array) -> None:
        spec = self._embodiment.twist_command
        if spec is not None:
            commands = np.clip(commands, self._lower, self._upper)
            commands[np.abs(commands).max(axis=1) < spec.deadband] = 0.0
        self.command[rows] = commands

    def _update_phase(self, rows: Rows) -> None:
        clock = self._embodiment.clock
        if clock is None:
            return
        cycles, stood = self._ticks[rows] * self._phase_step, np.isnan(self.phase[rows])
        asked = np.ones(len(rows), dtype=bool)
        if self._embodiment.command is not None:
            asked = np.count_nonzero(self.command[rows], axis=1) > 0
        known = self._end[rows]
        later = np.where(np.isnan(known), np.ceil(cycles) + clock.stop_cycles - 1.0, known)
        at_once = stood | (not clock.stop_cycles)
        end = np.where(asked, np.nan, np.where(at_once, 0.0, later))
        stands = cycles >= end  # never where the end is NaN
        self._end[rows] = end
        self.phase[rows] = np.where(stands, np.nan, cycles % 1.0)
        self._ticks[rows] = np.where(stands, 0, self._ticks[rows] + 1)


def _write_phase(out: Array, phase: Array) -> None:
    angle, moves = 2.0 * np.pi * phase, ~np.isnan(phase)
    out[:, 0], out[:, 1] = np.where(moves, np.sin(angle), 0.0), np.where(moves, np.cos(angle), 0.0)


class _World:
    """What physics says of N robots, gathered in arrays."""

    def __init__(self, lanes: Sequence[RobotEnv]) -> None:
        one, count = lanes[0].simulation, len(lanes)
        model = one.model
        self._data = [lane.simulation.data for lane in lanes]
        self._one = one
        self.qpos, self.qvel = np.zeros((count, model.nq)), np.zeros((count, model.nv))
        self.sensors, self.force = np.zeros((count, model.nsensordata)), np.zeros((count, model.nu))
        self.rotation, self.place = np.zeros((count, 9)), np.zeros((count, 3))
        self.feet = np.zeros((count, len(one.feet), 3))
        self.time = np.zeros(count)

    def gather(self, rows: Rows) -> None:
        """Read the worlds of these robots."""
        base, feet = self._one.base, self._one.feet
        for row in rows.tolist():
            data = self._data[row]
            self.qpos[row], self.qvel[row], self.time[row] = data.qpos, data.qvel, data.time
            self.sensors[row], self.force[row] = data.sensordata, data.actuator_force
            self.rotation[row], self.place[row] = data.xmat[base], data.xpos[base]
            if len(feet):
                self.feet[row] = data.geom_xpos[feet]

    @property
    def position(self) -> Array:
        """Joints (N, J), rad."""
        return self.qpos[:, self._one.joint_qpos]

    @property
    def velocity(self) -> Array:
        """Joints (N, J), rad/s."""
        return self.qvel[:, self._one.joint_qvel]

    @property
    def orientation(self) -> Array:
        """Bases (N, 4), xyzw."""
        return wxyz_to_xyzw(self.qpos[:, 3:7])

    def imu(self) -> tuple[Array, Array]:
        """Orientations (N, 4), xyzw, and angular velocities (N, 3) of the IMUs."""
        quaternion, gyro = self._one.imu_places
        return wxyz_to_xyzw(self.sensors[:, quaternion]), self.sensors[:, gyro]

    def foot_height(self) -> Array:
        """Clearances (N, F), m."""
        return self._one.foot_height(self.feet)


class BatchEnv:
    """N robots; decisions at the control rate, actions in [-1, 1].

    Args:
        seeds: one per robot.
        threads: that step physics side by side.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        seeds: Sequence[int],
        options: EnvOptions | None = None,
        threads: int = 1,
    ) -> None:
        self.embodiment, self.spec = embodiment, robot_spec(embodiment)
        self.lanes = [RobotEnv(embodiment, int(seed), options) for seed in seeds]
        self.options, count = self.lanes[0].options, len(self.lanes)
        self._all = np.arange(count)
        self._observations, self._world = _Observations(embodiment, self.lanes), _World(self.lanes)
        self._commands = _Commands(embodiment, count, embodiment.randomisation.delay[1])
        self._reward, self._one = Reward(embodiment), self.lanes[0]
        self._timestep = float(self._one.simulation.model.opt.timestep)
        self._last: Array = np.zeros((count, embodiment.num_joints))  # joint targets sent before
        self._previous: NDArray[np.floating[Any]] = np.zeros((count, embodiment.action_dim))
        self._tracker = StateTracker(embodiment, count)
        self._asked = np.zeros((count, embodiment.command_dim))  # commands as drawn or set
        self._steps, self._delay = np.zeros(count, dtype=int), np.zeros(count)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._parts = [part.tolist() for part in np.array_split(self._all, threads)]

    @property
    def count(self) -> int:
        """Robots, N."""
        return len(self.lanes)

    def set_command(self, command: NDArray[np.floating[Any]] | None) -> None:
        """Hold commands (N, C), or one (C,) for all, from the next decision on; None: drawn ones again."""
        for index, lane in enumerate(self.lanes):
            lane.set_command(None if command is None else np.broadcast_to(command, self._asked.shape)[index])

    # ---- episodes ----
    def reset(self) -> NDArray[np.float32]:
        """New episodes everywhere; first observations (N, O) float32."""
        return self._reset(self._all)

    def _reset(self, rows: Rows) -> NDArray[np.float32]:
        for row in rows.tolist():
            lane = self.lanes[row]
            self._delay[row] = lane.begin()
            self._asked[row] = lane.next_command(0)
        self._world.gather(rows)
        position = self._world.position[rows]
        self._steps[rows] = 0
        self._previous[rows] = 0.0
        self._tracker.reset(rows)
        self._commands.reset(rows, position)
        self._last[rows] = self._one.safety.inside(position)
        self._observations.reset(rows)
        return self._observe(rows, position, fill=True)

    def _observe(self, rows: Rows, target: Array, fill: bool = False) -> NDArray[np.float32]:
        world, samples = self._world, dict[str, Any]()
        samples["joints"] = SimpleNamespace(position=world.position[rows], velocity=world.velocity[rows])
        if self.embodiment.imu_frame:
            orientation, gyro = world.imu()
            samples["imu"] = SimpleNamespace(orientation=orientation[rows], angular_velocity=gyro[rows])
        for source in set(self._one.simulation.sources) - set(samples):
            readings = [self.lanes[row].simulation.read(source) for row in rows]
            fields = {name: np.stack([reading[name] for reading in readings]) for name in readings[0]}
            samples[source] = SimpleNamespace(**fields)
        return self._observations.assemble(rows, samples, self._asked[rows], target, fill)

    # ---- a decision ----
    def step(self, action: NDArray[np.floating[Any]]) -> BatchStep:
        """Apply actions (N, A) for one control period."""
        action = np.asarray(np.clip(action, -1.0, 1.0), dtype=np.float64)
        self._observations.action[:] = action
        wanted = self._one.mapper.steps(action, self._last)
        period, world = self.embodiment.control_period, self._world
        self._last = self._one.safety.limit(wanted, self._last, world.position, period)
        self._advance()
        self._steps += 1
        self._push()
        world.gather(self._all)
        reward = self._evaluate(action)
        self._previous = action
        for row, lane in enumerate(self.lanes):
            self._asked[row] = lane.next_command(int(self._steps[row]))
        tilt = np.arccos(np.clip(-self._gravity()[:, 2], -1.0, 1.0))
        terminated = self.embodiment.termination.reached(self._height(), tilt)
        observation = self._observe(self._all, self._last)
        truncated = ~terminated & (self._steps >= self.spec.episode_length)
        ended, last = np.flatnonzero(terminated | truncated), self.privileged()
        following, known = observation, last
        if len(ended):
            following = observation.copy()
            following[ended] = self._reset(ended)
            known = self.privileged()
        return BatchStep(following, observation, known, last, reward, terminated, truncated)

    def _advance(self) -> None:
        """Physics of one control period."""
        now = self._world.time
        self._commands.send(now, self._delay, self._last)
        targets = self._commands.play(now, self._timestep)

        def run(part: list[int]) -> None:
            for row in part:
                self.lanes[row].simulation.play(targets[:, row])

        if self._pool is None:
            run(self._parts[0])
        else:
            list(self._pool.map(run, self._parts))

    def _push(self) -> None:
        if self.options.randomise and self.embodiment.randomisation.push_interval:
            for lane in self.lanes:
                lane.maybe_push()

    def _height(self) -> Array:
        world, one = self._world, self._one.simulation
        position = world.qpos[:, :3] if one.floating else world.place
        return position[:, 2] - one.ground_height(position[:, :2])

    def _gravity(self) -> Array:
        world = self._world
        if self._one.simulation.floating:
            return gravity_direction(world.orientation)
        return np.tile(self._one.simulation.gravity(), (self.count, 1))

    def _twist(self) -> tuple[Array, Array]:
        """Linear and angular velocities (N, 3) of the bases, base frame."""
        world = self._world
        if not self._one.simulation.floating:
            return np.zeros((self.count, 3)), np.zeros((self.count, 3))
        return into_frame(world.rotation, world.qvel[:, :3]), world.qvel[:, 3:6].copy()

    def _evaluate(self, action: NDArray[np.floating[Any]]) -> Array:
        world, (linear, angular) = self._world, self._twist()
        one, foot_height, tool = self._one.simulation, world.foot_height(), None
        if self.embodiment.pose_command:
            tool = np.stack([lane.simulation.tool_pose() for lane in self.lanes])
        state = RobotState(
            joint_position=world.position,
            joint_velocity=world.velocity,
            effort=world.force[:, one.actuators],
            gravity=self._gravity(),
            angular_velocity=angular,
            linear_velocity=linear,
            base_height=self._height(),
            foot_contact=one.foot_contact(foot_height),
            foot_height=foot_height,
            action=action,
            previous_action=self._previous,
            tool_pose=tool,
        )
        self._tracker.complete(state, self._observations.command, self._observations.phase)
        return np.asarray(self._reward(state).total)

    def privileged(self) -> NDArray[np.float32]:
        """What only a simulator knows, (N, P) float32, without noise, as the last observation saw it.

        Velocity of the base, gravity, joints, height, feet, previous action, command, phase; of an arm the
        errors towards its goal; friction, mass and delay as drawn.
        """
        world, seen = self._world, self._observations
        linear, angular = self._twist()
        angle, moves = 2.0 * np.pi * np.nan_to_num(seen.phase), ~np.isnan(seen.phase)
        parts = [
            world.position - self.embodiment.default_position,
            0.05 * world.velocity,
            self._last - world.position,
            seen.action,
            self._delay[:, None] * 50.0,
        ]
        if self._one.simulation.floating:
            parts += [2.0 * linear, 0.25 * angular, self._gravity(), 3.0 * self._height()[:, None]]
            twist, tracker = self.embodiment.twist_command, self._tracker
            parts += [
                5.0 * world.foot_height(),
                2.0 * (twist.velocity(seen.command) if twist else seen.command),
            ]
            parts += [2.0 * tracker.mean_velocity, 2.0 * tracker.mean_yaw_rate[:, None]]
        if self.embodiment.clock:
            parts.append(np.stack([moves * np.sin(angle), moves * np.cos(angle), moves], axis=1))
        if self.embodiment.pose_command:
            parts += list(tool_error(self.embodiment.chain, world.position, seen.command))
        return np.concatenate(parts, axis=1).astype(np.float32)
