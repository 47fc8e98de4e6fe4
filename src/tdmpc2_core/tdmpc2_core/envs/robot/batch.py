"""Many robots of one kind in one process: what `RobotEnv` does, in arrays over robots, physics in threads.

Robot i is `RobotEnv` with the seed `seed + i`: its world, its random numbers and what starts an episode are
those of such an environment. All that lies between physics and policy is done for all robots at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv, RobotEnvState, robot_spec, robot_state
from tdmpc2_core.envs.robot.fleet import Fleet
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.observation import GaitClock, ObservationLayout
from tdmpc2_core.robots.reach import tool_error
from tdmpc2_core.robots.rewards import StateTracker
from tdmpc2_core.robots.rotations import yaw
from tdmpc2_core.robots.sensors import ROUNDING
from tdmpc2_core.robots.terms import SOURCES, OwnState

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class BatchStep:
    """One decision of N robots. A robot whose episode ended has been reset.

    Attributes:
        observation: (N, O) float32, after the reset where there was one.
        final_observation: (N, O) float32, before it; the same rows as `observation` where there was none.
        privileged: (N, P) float32, see `BatchEnv.privileged`, after the reset.
        final_privileged: (N, P) float32, before it.
        reward: (N,).
        terminated: (N,) bool, robots that fell.
        truncated: (N,) bool, whose time was over.
        info: (N,) for each entry of `StepResult.info`.
    """

    observation: NDArray[np.float32]
    final_observation: NDArray[np.float32]
    privileged: NDArray[np.float32]
    final_privileged: NDArray[np.float32]
    reward: Array
    terminated: Flags
    truncated: Flags
    info: dict[str, Array]


@dataclass(frozen=True)
class BatchState:
    """A `BatchEnv` at one instant; it can be kept, pickled and restored repeatedly."""

    robots: tuple[RobotEnvState, ...]
    drives: dict[str, Any]
    tracker: dict[str, Any]
    observations: dict[str, Any]
    episodes: dict[str, Any]

    def take(self, rows: Sequence[int]) -> BatchState:
        """The state of these robots, in this order and as often as they are named, for a batch of as many."""

        def chosen(part: dict[str, Any]) -> dict[str, Any]:
            return {
                name: values[list(rows)]
                if isinstance(values, np.ndarray)
                else [copy.deepcopy(values[row]) for row in rows]  # one each, though named twice
                for name, values in part.items()
            }

        return BatchState(
            robots=tuple(self.robots[row] for row in rows),
            drives=chosen(self.drives),
            tracker=chosen(self.tracker),
            observations=chosen(self.observations),
            episodes=chosen(self.episodes),
        )


class _Drives:
    """`TrajectoryPlayer` and the commands under way of N robots."""

    CHANGES = ("_arrival", "_waiting", "_count", "_begin", "_end", "_from", "_to")

    def __init__(self, embodiment: Embodiment, count: int, timestep: float) -> None:
        joints, self._period = embodiment.num_joints, embodiment.control_period
        self._ramp = embodiment.action.interpolation == "linear"
        self._ahead, self._timestep = 1.0 / embodiment.physics_rate, timestep
        self._substeps, self._rows = embodiment.physics_steps, np.arange(count)
        room = int(np.ceil(embodiment.randomisation.hardest.delay[1] / self._period)) + 2
        self._arrival = np.full((count, room), np.inf)  # s, oldest first
        self._waiting = np.zeros((count, room, joints))
        self._count = np.zeros(count, dtype=int)
        self._begin, self._end = np.zeros(count), np.zeros(count)
        self._from, self._to = np.zeros((count, joints)), np.zeros((count, joints))

    def reset(self, rows: Rows, position: Array) -> None:
        """Hold `position` (n, J)."""
        self._arrival[rows], self._count[rows] = np.inf, 0
        self._begin[rows] = self._end[rows] = 0.0
        self._from[rows] = self._to[rows] = position

    def send(self, now: Array, delay: Array, targets: Array) -> None:
        """Commands (N, J) that arrive `delay` (N,) s after `now` (N,)."""
        self._arrival[self._rows, self._count] = now + delay
        self._waiting[self._rows, self._count] = targets
        self._count += 1

    def play(self, now: Array) -> Array:
        """Targets (N, substeps, J) of the control period that begins at `now` (N,)."""
        result = np.empty((len(now), self._substeps, self._to.shape[1]))
        for step in range(self._substeps):
            while len(rows := np.flatnonzero(self._arrival[:, 0] - ROUNDING <= now)):
                self._take(rows, now[rows])
            result[:, step] = self._sample(self._rows, now + self._ahead)
            now = now + self._timestep
        return result

    def _take(self, rows: Rows, now: Array) -> None:
        """The oldest command of these robots arrives."""
        arrived = self._waiting[rows, 0]
        self._from[rows] = self._sample(rows, now) if self._ramp else arrived
        self._to[rows] = arrived
        self._begin[rows], self._end[rows] = now, now + self._period if self._ramp else now
        self._arrival[rows, :-1], self._waiting[rows, :-1] = self._arrival[rows, 1:], self._waiting[rows, 1:]
        self._arrival[rows, -1] = np.inf
        self._count[rows] -= 1

    def _sample(self, rows: Rows, time: Array) -> Array:
        begin, end, start, goal = self._begin[rows], self._end[rows], self._from[rows], self._to[rows]
        span = np.where(end > begin, end - begin, 1.0)
        between = start + ((time - begin) / span)[:, None] * (goal - start)
        return np.where((time >= end)[:, None], goal, np.where((time <= begin)[:, None], start, between))


class _Observations:
    """`ObservationAssembler` of N robots."""

    CHANGES = ("_observation", "action", "command", "phase", "_clocks")

    def __init__(
        self, embodiment: Embodiment, count: int, generators: list[np.random.Generator] | None
    ) -> None:
        self._embodiment, self._generators, self._layout = (
            embodiment,
            generators,
            ObservationLayout(embodiment),
        )
        self._clocks = [GaitClock(embodiment) for _ in range(count)]
        self._observation = np.zeros((count, embodiment.observation_dim), np.float32)
        self.action = np.zeros((count, embodiment.action_dim))  # sent before
        self.command = np.zeros((count, embodiment.command_dim))  # in force
        self.phase = np.full(count, np.nan)  # cycles; NaN while a robot stands

    def reset(self, rows: Rows) -> None:
        """New episodes."""
        self.action[rows], self.phase[rows] = 0.0, np.nan
        for row in rows.tolist():
            self._clocks[row].reset()

    def assemble(
        self, rows: Rows, sources: dict[str, Any], commands: Array, target: Array, first: bool
    ) -> NDArray[np.float32]:
        """Observations (n, O) of the robots `rows`, from samples, commands and last targets of as many."""
        twist = self._embodiment.twist_command
        self.command[rows] = command = commands if twist is None else twist.in_force(commands)
        if self._embodiment.clock:
            clocks, asked = self._clocks, np.count_nonzero(command, axis=1).tolist()
            phases = [clocks[row].advance(moves > 0) for row, moves in zip(rows.tolist(), asked, strict=True)]
            self.phase[rows] = np.array(phases, dtype=np.float64)
        own = OwnState(self._embodiment, self.action[rows], command, target, self.phase[rows])
        if self._embodiment.pose_command:
            chain, position = self._embodiment.chain, sources["joints"].position
            own.goal_offset, own.goal_turn = tool_error(chain, position, command)
        sample = np.empty((len(rows), self._layout.size))
        self._layout.write(sample, sources, own)
        if self._generators:
            draws = np.empty_like(sample)
            for row, draw in zip(rows.tolist(), draws, strict=True):
                self._generators[row].random(out=draw)
            sample += self._layout.noise * (-1.0 + 2.0 * draws)  # what uniform(-1, 1) does with its draws
        before = self._observation[rows]
        observation = self._layout.begin(sample) if first else self._layout.follow(before, sample)
        self._observation[rows] = observation
        return observation


class BatchEnv:
    """N robots; decisions at the control rate, actions in [-1, 1].

    Args:
        embodiment: the robot.
        count: N.
        seed: robot i draws what `RobotEnv` with the seed ``seed + i`` draws.
        options: as of `RobotEnv`.
        threads: that step physics side by side.

    Attributes:
        robots: N environments: worlds, generators and what starts an episode; they are not to be stepped.
        targets: (N, J) last joint targets, rad; the position at the start of an episode.
        delay, friction, extra_mass: (N,) of the episodes: s, sliding friction of contacts, kg on the trunk.
        payload, effort: (N, 4) and (N, J) of the episodes, see `Simulation.set_payload` and `set_effort`.
        max_steps: decisions after which an episode is over.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        count: int,
        seed: int = 0,
        options: EnvOptions | None = None,
        threads: int = 1,
    ) -> None:
        self.embodiment, self.spec, self.count = embodiment, robot_spec(embodiment), count
        self.robots = tuple(RobotEnv(embodiment, seed + index, options) for index in range(count))
        self.options, self.max_steps = self.robots[0].options, self.spec.episode_length
        self._one, self._all = self.robots[0], np.arange(count)
        self.fleet = Fleet((robot.simulation for robot in self.robots), threads)
        generators = [robot.rng for robot in self.robots] if self.options.sensor_noise else None
        self._observations = _Observations(embodiment, count, generators)
        self._drives = _Drives(embodiment, count, float(self.fleet.model.opt.timestep))
        self.targets = np.zeros((count, embodiment.num_joints))
        self.delay, self.friction, self.extra_mass = np.zeros(count), np.zeros(count), np.zeros(count)
        self.payload, self.effort = np.zeros((count, 4)), np.ones((count, embodiment.num_joints))
        self._return, self._fell = np.zeros(count), np.zeros(count, dtype=bool)  # of the episodes so far
        self._tracker = StateTracker(embodiment, count)
        self._asked = np.zeros((count, embodiment.command_dim))  # commands as drawn or set
        self._renew = np.zeros(count, dtype=bool)  # a command was set since the last decision
        self._steps = np.zeros(count, dtype=int)

    @property
    def command(self) -> Array:
        """The commands (N, C) in the last observation: velocities in force, or goals."""
        return self._observations.command.copy()

    @property
    def phase(self) -> Array:
        """Gait phases (N,) in the last observation, cycles; NaN where a robot stands."""
        return self._observations.phase.copy()

    @property
    def previous_action(self) -> Array:
        """Actions (N, A) of the last decision, zeros at the start of an episode."""
        return self._observations.action.copy()

    @property
    def level(self) -> Array:
        """Of the curriculum (N,), 0 without one. Those that are set count from the next episodes on."""
        return np.array([robot.level for robot in self.robots])

    @level.setter
    def level(self, level: ArrayLike) -> None:
        for robot, one in zip(self.robots, np.asarray(level).tolist(), strict=True):
            robot.level = one

    def set_command(self, command: ArrayLike | None) -> None:
        """Hold commands (N, C), or one (C,) for all, from the next decision on; None: drawn ones again."""
        held: Any = np.full(self.count, None)
        if command is not None:
            held = np.broadcast_to(np.asarray(command, dtype=np.float64), self._asked.shape)
        for robot, one in zip(self.robots, held, strict=True):
            robot.set_command(one)
        self._renew[:] = True

    # ---- state ----
    def state(self) -> BatchState:
        """Everything that the decisions to come depend on; later ones do not change it."""
        return BatchState(
            robots=tuple(robot.state() for robot in self.robots),
            drives=_kept(self._drives, _Drives.CHANGES),
            tracker=self._tracker.state(),
            observations=_kept(self._observations, _Observations.CHANGES),
            episodes=_kept(self, _EPISODES),
        )

    def restore(self, state: BatchState) -> None:
        """Continue from a state of this or another batch of as many of these robots, bit for bit.

        Raises ValueError for a state of another robot or number of them.
        """
        if len(state.robots) != self.count:
            raise ValueError(f"a state of {len(state.robots)} robots does not fit a batch of {self.count}")
        for robot, one in zip(self.robots, state.robots, strict=True):
            robot.restore(one)
        self.fleet.data.forget()
        vars(self._drives).update(copy.deepcopy(state.drives))
        self._tracker.restore(state.tracker)
        vars(self._observations).update(copy.deepcopy(state.observations))
        vars(self).update(copy.deepcopy(state.episodes))

    # ---- episodes ----
    def reset(self) -> NDArray[np.float32]:
        """New episodes everywhere; first observations (N, O) float32."""
        return self._reset(self._all)

    def _reset(self, rows: Rows) -> NDArray[np.float32]:
        for row in rows.tolist():
            robot = self.robots[row]
            fell, steps = bool(self._fell[row]), int(self._steps[row])
            over = fell or steps >= self.max_steps
            self.delay[row] = robot.begin(float(self._return[row]) / steps if over else None, fell)
            self.friction[row] = robot.simulation.sliding_friction
            self.extra_mass[row] = robot.simulation.extra_mass
            self.payload[row], self.effort[row] = robot.simulation.payload, robot.simulation.effort
            self._asked[row] = self._command(row, 0)
        self.fleet.data.forget()
        position = self.fleet.joint_position()[rows]
        self._renew[rows], self._steps[rows] = False, 0
        self._return[rows], self._fell[rows] = 0.0, False
        self._tracker.reset(rows)
        self._drives.reset(rows, position)
        self.targets[rows] = self._one.safety.inside(position)
        self._observations.reset(rows)
        return self._observe(rows, position, first=True)

    def _command(self, row: int, steps: int) -> Array:
        """The command (C,) of one robot, as its sensors would hold it."""
        command = np.array(self.robots[row].next_command(steps))
        check = SOURCES["command"].check
        if check and len(command):
            check(self.embodiment, {"values": command})
        return command

    def _observe(self, rows: Rows, target: Array, first: bool = False) -> NDArray[np.float32]:
        sources: dict[str, Any] = {}
        for source in self.fleet.sources:
            fields = self.fleet.read(source)
            sources[source] = SimpleNamespace(**{name: values[rows] for name, values in fields.items()})
        return self._observations.assemble(rows, sources, self._asked[rows], target, first)

    # ---- a decision ----
    def step(self, action: ArrayLike) -> BatchStep:
        """Apply actions (N, A) for one control period. Raises ValueError unless all are finite."""
        action = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        if action.shape != self._observations.action.shape or not np.isfinite(action).all():
            raise ValueError(f"actions must be {self._observations.action.shape} finite values, got {action}")
        previous, self._observations.action = self._observations.action, action
        self._advance(action)
        self._steps += 1
        self._push()
        reward, info = self._evaluate(action, previous)
        self._renew_commands()
        observation = self._observe(self._all, self.targets)
        terminated = self.fleet.fallen()
        self._return, self._fell = self._return + reward, terminated.copy()
        truncated = ~terminated & (self._steps >= self.max_steps)
        privileged = self.privileged()
        final, final_privileged = observation, privileged
        if len(ended := np.flatnonzero(terminated | truncated)):
            observation = observation.copy()
            observation[ended] = self._reset(ended)
            privileged = self.privileged()
        return BatchStep(
            observation, final, privileged, final_privileged, reward, terminated, truncated, info
        )

    def _advance(self, action: Array) -> None:
        """Joint targets for actions, and the physics of one control period."""
        safety, period = self._one.safety, self.embodiment.control_period
        wanted = self._one.mapper.steps(action, self.targets)
        self.targets = safety.limit(wanted, self.targets, self.fleet.joint_position(), period)
        now = self.fleet.time
        self._drives.send(now, self.delay, self.targets)
        self.fleet.play(self._drives.play(now))

    def _push(self) -> None:
        if self._one.push_chance:
            for robot in self.robots:
                robot.maybe_push()

    def _evaluate(self, action: Array, previous: Array) -> tuple[Array, dict[str, Array]]:
        seen = self._observations
        truth = self._tracker.advance(robot_state(self.fleet, action, previous), seen.command, seen.phase)
        total, info, _ = self._one.reward(truth)
        if self.embodiment.pose_command:
            info |= {"position_error": truth.tool_distance, "rotation_error": truth.tool_angle}
        return np.broadcast_to(total, self.count).astype(np.float64), info

    def _renew_commands(self) -> None:
        spec = self.embodiment.command
        if spec is None:
            return
        due = self._renew | (self._steps % self._one.command_steps == 0)
        for row in np.flatnonzero(due).tolist():
            self._asked[row] = self._command(row, int(self._steps[row]))
        self._renew[:] = False

    def privileged(self) -> NDArray[np.float32]:
        """What only a simulator knows, (N, P) float32, without noise, at the last observation.

        The blocks are those of `PRIVILEGED` that the robot has; `privileged_layout` says where they lie.
        """
        truth = self._truth()
        blocks = [row.scale * row.value(self, truth) for row in PRIVILEGED if row.present(self)]
        return np.concatenate(blocks, axis=1).astype(np.float32)

    def privileged_layout(self) -> dict[str, slice]:
        """Where the blocks of `privileged` lie, by the names of `PRIVILEGED`."""
        truth = self._truth()
        rows = [row for row in PRIVILEGED if row.present(self)]
        ends = np.cumsum([row.value(self, truth).shape[1] for row in rows]).tolist()
        return {row.name: slice(start, end) for row, start, end in zip(rows, [0, *ends], ends, strict=False)}

    def _truth(self) -> Truth:
        """The true state at the last observation."""
        seen = self._observations
        truth = robot_state(self.fleet, seen.action, seen.action, tool=False)
        command = None if self.embodiment.pose_command else seen.command  # `_tool` says more of a goal
        return self._tracker.complete(truth, command, seen.phase)


_EPISODES = (
    *("targets", "delay", "friction", "extra_mass", "payload", "effort"),
    *("_asked", "_renew", "_steps", "_return", "_fell"),
)


def _kept(holder: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return copy.deepcopy({name: getattr(holder, name) for name in names})


Truth = Any
"""A `RobotState` of a simulation, in which everything is known."""


class Quantity(NamedTuple):
    """A block (N, n) of the privileged observation: ``value`` of the batch and its true state, in ``unit``.

    ``scale`` brings it to about 1. Robots for which it is not ``present`` have none.
    """

    name: str
    unit: str
    scale: float
    value: Callable[[BatchEnv, Truth], Any]
    present: Callable[[BatchEnv], Any] = lambda batch: True


def _clock(batch: BatchEnv, truth: Truth) -> Array:
    angle = 2.0 * np.pi * batch.phase
    wave = np.stack([np.sin(angle), np.cos(angle), np.ones_like(angle)], axis=1)
    return np.where(np.isnan(wave[:, :1]), 0.0, wave)


def _mean_velocity(batch: BatchEnv, truth: Truth) -> Array:
    return np.column_stack([truth.mean_velocity, truth.mean_yaw_rate])


def _tool(batch: BatchEnv, truth: Truth) -> Array:
    return np.concatenate(tool_error(batch.embodiment.chain, truth.joint_position, batch.command), axis=1)


def _heading(batch: BatchEnv) -> Array:
    """Unit vectors (N, 2) along which the bases point, in the world's plane."""
    forward = batch.fleet.base_pose()[1]
    angle = yaw(forward)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _seen_by(batch: BatchEnv, vectors: Array) -> Array:
    """Horizontal vectors (N, 2) of the world, forward and to the left of each robot."""
    (x, y), (along, across) = _heading(batch).T, vectors.T
    return np.stack([x * along + y * across, x * across - y * along], axis=1)


def _ground_slope(batch: BatchEnv, truth: Truth) -> Array:
    assert batch.fleet.terrains is not None
    return _seen_by(batch, batch.fleet.terrains.slopes)


def _ground_at_feet(batch: BatchEnv, truth: Truth) -> Array:
    return _above_own_ground(batch, batch.fleet.data.geom_xpos[:, batch.fleet.feet, :2])


def _ground_around(batch: BatchEnv, truth: Truth) -> Array:
    forward = _heading(batch)
    left = np.stack([-forward[:, 1], forward[:, 0]], axis=1)
    offsets = _AROUND[:, :1] * forward[:, None] + _AROUND[:, 1:] * left[:, None]
    return _above_own_ground(batch, batch.fleet.base_pose()[0][:, None, :2] + offsets)


def _above_own_ground(batch: BatchEnv, points: Array) -> Array:
    """Ground at points (N, K, 2) less that below the base."""
    below = batch.fleet.ground_height(batch.fleet.base_pose()[0][:, None, :2])
    return batch.fleet.ground_height(points) - below


_AROUND = np.array([(x, y) for x in (-0.4, 0.0, 0.4) for y in (-0.3, 0.0, 0.3) if x or y])
"""Points around a robot, m: forward and to the left."""


def _force(batch: BatchEnv, truth: Truth) -> Array:
    return _seen_by(batch, np.array([robot.simulation.base_force[:2] for robot in batch.robots]))


def _randomised(name: str, neutral: float = 0.0) -> Callable[[BatchEnv], bool]:
    """Whether some level of the curriculum has a range other than this single value."""
    return lambda batch: getattr(batch.embodiment.randomisation.hardest, name) != (neutral, neutral)


def _shaped(batch: BatchEnv) -> bool:
    return batch.fleet.terrains is not None


def _floats(batch: BatchEnv) -> bool:
    return batch.fleet.floating


def _walks(batch: BatchEnv) -> bool:
    return batch.embodiment.clock is not None


PRIVILEGED = (
    Quantity("linear velocity of the base", "m/s", 2.0, lambda _, truth: truth.linear_velocity, _floats),
    Quantity("angular velocity of the base", "rad/s", 0.25, lambda _, truth: truth.angular_velocity, _floats),
    Quantity("mean velocity", "m/s, rad/s", 2.0, _mean_velocity, _floats),
    Quantity("gravity", "", 1.0, lambda _, truth: truth.gravity, _floats),
    Quantity("height of the base", "m", 3.0, lambda _, truth: truth.base_height[:, None], _floats),
    Quantity(
        "joint position from the default pose",
        "rad",
        1.0,
        lambda _, truth: truth.joint_position - truth.default_position,
    ),
    Quantity("joint velocity", "rad/s", 0.05, lambda _, truth: truth.joint_velocity),
    Quantity(
        "last target less joint position",
        "rad",
        1.0,
        lambda batch, truth: batch.targets - truth.joint_position,
    ),
    Quantity("previous action", "", 1.0, lambda _, truth: truth.action),
    Quantity(
        "velocity command",
        "m/s, rad/s",
        2.0,
        lambda _, truth: truth.velocity_command,
        lambda batch: batch.embodiment.twist_command,
    ),
    Quantity("error of the tool", "m, rad", 1.0, _tool, lambda batch: batch.embodiment.pose_command),
    Quantity("gait phase: sine, cosine, whether the robot moves", "", 1.0, _clock, _walks),
    Quantity("height of the feet", "m", 5.0, lambda _, truth: truth.foot_height, _walks),
    Quantity("contact of the feet", "", 1.0, lambda _, truth: truth.foot_contact, _walks),
    Quantity(
        "friction",
        "",
        1.0,
        lambda batch, _: batch.friction[:, None],
        lambda batch: batch.embodiment.randomisation.friction is not None,
    ),
    Quantity(
        "extra mass",
        "kg",
        0.5,
        lambda batch, _: batch.extra_mass[:, None],
        lambda batch: any(batch.embodiment.randomisation.hardest.base_mass),
    ),
    Quantity("delay of commands", "s", 50.0, lambda batch, _: batch.delay[:, None]),
    Quantity("payload", "kg", 0.3, lambda batch, _: batch.payload[:, :1], _randomised("payload")),
    Quantity(
        "place of the payload",
        "m",
        5.0,
        lambda batch, _: batch.payload[:, 1:] * (batch.payload[:, :1] > 0.0),
        _randomised("payload"),
    ),
    Quantity(
        "effort of the joints, a factor",
        "",
        1.0,
        lambda batch, _: batch.effort,
        _randomised("weak_joint", 1.0),
    ),
    Quantity("slope of the ground forward and to the left", "", 5.0, _ground_slope, _shaped),
    Quantity("ground below the feet, from that below the base", "m", 10.0, _ground_at_feet, _shaped),
    Quantity("ground around, from that below the base", "m", 10.0, _ground_around, _shaped),
    Quantity(
        "force of a push forward and to the left",
        "N",
        0.02,
        _force,
        lambda batch: batch.fleet.floating and batch.embodiment.randomisation.hardest.push_force > 0.0,
    ),
)
"""The blocks of `BatchEnv.privileged` in order."""
