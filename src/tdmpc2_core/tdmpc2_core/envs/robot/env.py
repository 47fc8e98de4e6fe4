"""The training environment: MuJoCo behind the same assembler, mapper and safety filter as the robot."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tdmpc2_core.config import setting
from tdmpc2_core.envs.protocol import EnvSpec, StepResult
from tdmpc2_core.envs.robot.goals import GoalSampler
from tdmpc2_core.envs.robot.randomisation import next_level, push, randomise, restore
from tdmpc2_core.envs.robot.simulation import Readings, Simulation, SimulationState
from tdmpc2_core.robots.action import ActionMapper
from tdmpc2_core.robots.embodiment import CommandSpec, Embodiment
from tdmpc2_core.robots.observation import ObservationAssembler
from tdmpc2_core.robots.rewards import Reward, RobotState, StateTracker
from tdmpc2_core.robots.safety import SafetyFilter
from tdmpc2_core.robots.sensors import ROUNDING, SensorState, Snapshot
from tdmpc2_core.robots.trajectory import Trajectory, TrajectoryPlayer


@dataclass(frozen=True)
class EnvOptions:
    """What varies between training and evaluation."""

    sensor_noise: bool = setting(
        True, why="uniform noise of the embodiment's observation terms; off for a clean test"
    )
    randomise: bool = setting(True, why="what the embodiment randomises is drawn per episode, and pushes")
    level: float | None = setting(
        None, low=0, high=1, why="of the embodiment's curriculum, held; success moves it if absent"
    )
    random_reset: bool = setting(True, why="reset noise, random yaw; off starts from the default pose")


def robot_spec(embodiment: Embodiment) -> EnvSpec:
    """Sizes and times of a robot's environment."""
    return EnvSpec(
        name=embodiment.name,
        observation_dim=embodiment.observation_dim,
        action_dim=embodiment.action_dim,
        episode_length=round(embodiment.episode_seconds * embodiment.control_rate),
        control_period=embodiment.control_period,
        terminates=True,
        embodiment=embodiment,
    )


@dataclass(frozen=True)
class RobotEnvState:
    """A `RobotEnv` at one instant; it can be kept, pickled and restored repeatedly."""

    robot: str
    simulation: SimulationState
    generator: Mapping[str, Any]
    sensors: Snapshot
    assembler: dict[str, Any]
    safety: tuple[np.ndarray | None, dict[str, int]]
    tracker: dict[str, np.ndarray]
    player: Trajectory
    episode: dict[str, Any]


_EPISODE = (
    *("_command", "_fixed_command", "_previous_action", "_steps", "_delay", "_under_way"),
    *("_level", "_return", "_fell"),
)


class RobotEnv:
    """One robot; decisions at the control rate, actions in [-1, 1]^A.

    ``command`` may be set from outside with :meth:`set_command`; otherwise it is drawn anew every
    ``command.resample_seconds``.
    """

    def __init__(self, embodiment: Embodiment, seed: int = 0, options: EnvOptions | None = None) -> None:
        self.embodiment = embodiment
        self.spec = robot_spec(embodiment)
        self.options = options or EnvOptions()
        self.rng = np.random.default_rng(seed)
        self.simulation = Simulation(embodiment, seed=int(self.rng.integers(2**31)))
        self.sensors = SensorState(embodiment)
        self.assembler = ObservationAssembler(embodiment, self.rng if self.options.sensor_noise else None)
        self.mapper = ActionMapper(embodiment)
        self.safety = SafetyFilter(embodiment)
        self.reward = Reward(embodiment)
        self._tracker = StateTracker(embodiment)
        self.player = TrajectoryPlayer(embodiment.default_position)
        self.max_steps = self.spec.episode_length
        self._period = embodiment.control_period
        interval = embodiment.randomisation.push_interval if self.options.randomise else None
        self.push_chance = self._period / interval if interval else 0.0  # per decision
        self._goals = GoalSampler(embodiment) if embodiment.pose_command else None
        resample = embodiment.command.resample_seconds if embodiment.command else 1.0
        self.command_steps = max(1, round(resample * embodiment.control_rate))  # decisions per drawn command
        self._command = np.zeros(embodiment.command_dim)
        self._fixed_command: np.ndarray | None = None
        self._previous_action = np.zeros(embodiment.action_dim)
        self._steps = 0
        self._delay = 0.0
        self._under_way: deque[tuple[float, np.ndarray]] = deque()  # arrival, s, and joint targets
        self._return, self._fell = 0.0, False  # of the episode so far
        self._level, self._ranges = 0.0, embodiment.randomisation  # of the curriculum, and what it draws from
        curriculum, level = embodiment.randomisation.curriculum, self.options.level
        if curriculum:
            self._set_level(curriculum.start if level is None else level)

    @property
    def level(self) -> float:
        """Of the embodiment's curriculum, 0 without one. One that is set counts from the next episode on."""
        return self._level

    @level.setter
    def level(self, level: float) -> None:
        self._set_level(level)

    def _set_level(self, level: float) -> None:
        self._level, self._ranges = level, self.embodiment.randomisation.at(level)

    # ---- command ----
    def set_command(self, command: np.ndarray | None) -> None:
        """Hold this command (C,) from the next decision on; None returns to drawn commands."""
        self._fixed_command = None if command is None else np.asarray(command, dtype=np.float64)

    @property
    def command(self) -> np.ndarray:
        """The command (C,) of the last decision."""
        return self._command

    def next_command(self, steps: int) -> np.ndarray:
        """The command (C,) of the decision after `steps` of the episode."""
        self._command = self._drawn_command(steps)
        return self._command

    def _drawn_command(self, steps: int) -> np.ndarray:
        if self._fixed_command is not None:
            return self._fixed_command
        spec = self.embodiment.command
        if spec is None:
            return self._command
        if steps % self.command_steps == 0:
            stand = self.rng.random() < spec.stand_fraction
            if not isinstance(spec, CommandSpec):
                assert self._goals is not None
                return self.simulation.tool_pose() if stand else self._goals.draw(self.rng)
            if stand:
                return np.zeros(len(spec.terms))
            low = [term.lower for term in spec.terms]
            high = [term.upper for term in spec.terms]
            kept = self.rng.random(len(spec.terms)) < spec.term_probability
            return self.rng.uniform(low, high) * kept
        return self._command

    @property
    def targets(self) -> np.ndarray:
        """Joint targets (J,), rad, of the last decision; the position at the start of an episode."""
        last = self.safety.last
        return self.simulation.joint_position() if last is None else last

    # ---- state ----
    def state(self) -> RobotEnvState:
        """Everything that the decisions to come depend on; later ones do not change it."""
        return RobotEnvState(
            robot=self.embodiment.name,
            simulation=self.simulation.state(),
            generator=self.rng.bit_generator.state,
            sensors=self.sensors.snapshot(),
            assembler=self.assembler.state(),
            safety=self.safety.state(),
            tracker=self._tracker.state(),
            player=self.player.state(),
            episode=copy.deepcopy({name: getattr(self, name) for name in _EPISODE}),
        )

    def restore(self, state: RobotEnvState) -> None:
        """Continue from a state of this or another environment of the robot, bit for bit, also repeatedly.

        Raises ValueError for a state of another robot.
        """
        if state.robot != self.embodiment.name:
            raise ValueError(f"a state of {state.robot!r} does not fit {self.embodiment.name!r}")
        self.simulation.restore(state.simulation)
        self.rng.bit_generator.state = state.generator
        self.sensors.restore(state.sensors)
        self.assembler.restore(state.assembler)
        self.safety.restore(state.safety)
        self._tracker.restore(state.tracker)
        self.player.restore(state.player)
        vars(self).update(copy.deepcopy(state.episode))
        self._set_level(self._level)

    def __deepcopy__(self, memo: dict[int, Any]) -> RobotEnv:
        """Another environment in the same state; a copy of the parts would share MuJoCo's arrays."""
        other = type(self)(self.embodiment, options=self.options)
        other.max_steps = self.max_steps
        other.restore(self.state())
        return other

    # ---- gymnasium-style interface ----
    def reset(self) -> np.ndarray:
        """New episode; returns the first observation (O,) float32."""
        simulation = self.simulation
        over = self._fell or self._steps >= self.max_steps
        self._delay = self.begin(self._return / self._steps if over else None, self._fell)
        self._steps, self._return, self._fell = 0, 0.0, False
        self._previous_action = np.zeros(self.embodiment.action_dim)
        self._tracker.reset()
        self._under_way.clear()
        self.player.reset(simulation.joint_position())
        self.safety.reset(simulation.joint_position())
        self.next_command(self._steps)
        self._measure()
        self.assembler.reset(self.sensors, simulation.time)
        return self.assembler.assemble(self.sensors, simulation.time)

    def begin(self, reward: float | None, fell: bool) -> float:
        """Start pose and physics of a new episode; returns its delay from decision to command, s.

        Args:
            reward: per decision, mean of the episode before; None where there was none, or it was given up.
            fell: whether that ended in a fall.
        """
        curriculum, draw = self.embodiment.randomisation.curriculum, self.options.randomise
        if curriculum and draw and self.options.level is None and reward is not None:
            self._set_level(next_level(curriculum, self._level, reward, fell))
        self.simulation.reset(randomise=self.options.random_reset)
        delay = randomise(self.simulation, self.rng, self._ranges) if draw else restore(self.simulation)
        self.simulation.settle()
        return delay

    def step(self, action: np.ndarray) -> StepResult:
        """Apply ``action`` (A,) for one control period."""
        action = np.clip(action, -1.0, 1.0)
        self.assembler.record_action(action)
        wanted = self.mapper.targets(action, self.targets)
        targets = self.safety.filter(wanted, self.simulation.joint_position(), self._period).targets
        self.assembler.record_target(targets)
        self.advance(targets)
        self._steps += 1
        self.maybe_push()
        reward, info = self._evaluate(action)
        self._previous_action = action
        self.next_command(self._steps)
        self._measure()
        terminated = bool(self.simulation.fallen())
        self._return, self._fell = self._return + reward, terminated
        truncated = not terminated and self._steps >= self.max_steps
        observation = self.assembler.assemble(self.sensors, self.simulation.time)
        return StepResult(observation, reward, terminated, truncated, info)

    # ---- parts of a step ----
    def advance(self, targets: np.ndarray) -> None:
        """Physics of one control period. Commands under way longer than that arrive in a later one."""
        simulation, ramp = self.simulation, self.embodiment.action.interpolation == "linear"
        simulation.follow()
        self._under_way.append((simulation.time + self._delay, targets))
        for _ in range(self.embodiment.physics_steps):
            now = simulation.time
            while self._under_way and now >= self._under_way[0][0] - ROUNDING:
                _, arrived = self._under_way.popleft()
                if ramp:
                    self.player.set(arrived[None], np.array([self._period]), now)
                else:
                    self.player.step_to(arrived)
            simulation.step(self.player.sample(now + 1.0 / self.embodiment.physics_rate))

    def _measure(self) -> None:
        """Write what the robot's sensors report now into the sensor slots."""
        simulation, now = self.simulation, self.simulation.time
        for source in simulation.sources:
            self.sensors.store(source, now, simulation.read(source))
        if self.embodiment.command:
            self.sensors.set_command(now, self._command)

    def _evaluate(self, action: np.ndarray) -> tuple[float, dict[str, float]]:
        state = robot_state(self.simulation, action, self._previous_action)
        self._tracker.advance(state, self.assembler.command, self.assembler.phase)
        total, terms, _ = self.reward(state)
        info = {name: float(share) for name, share in terms.items()}
        if state.tool_distance is not None and state.tool_angle is not None:
            info |= {"position_error": float(state.tool_distance), "rotation_error": float(state.tool_angle)}
        return float(total), info

    def maybe_push(self) -> None:
        """Disturb the robot now and then."""
        if self.push_chance and self.rng.random() < self.push_chance:
            push(self.simulation, self.rng, self._ranges)


def robot_state(
    readings: Readings, action: np.ndarray, previous_action: np.ndarray, tool: bool = True
) -> RobotState:
    """What a simulation says of one robot or of many after a decision; a `StateTracker` derives the rest.

    Args:
        readings: of the simulation.
        action: (..., A), the decision; ``previous_action`` the one before.
        tool: whether the pose of the tool is wanted, which costs kinematics of every robot.
    """
    linear, angular = readings.base_velocity()
    foot_height = readings.foot_height()
    return RobotState(
        joint_position=readings.joint_position(),
        joint_velocity=readings.joint_velocity(),
        effort=readings.joint_effort(),
        gravity=readings.gravity(),
        angular_velocity=angular,
        linear_velocity=linear,
        base_height=readings.base_height(),
        foot_contact=readings.foot_contact(foot_height),
        foot_height=foot_height,
        action=action,
        previous_action=previous_action,
        tool_pose=readings.tool_pose() if tool and readings.embodiment.pose_command else None,
    )
