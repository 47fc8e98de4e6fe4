"""From decisions in a row to an episode: observation, action, reward, and what they were made from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.data.bags.motion import Legs, Motion
from tdmpc2_core.data.episodes import Episode
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment, Reward, RobotState, StateTracker
from tdmpc2_core.robots.messages import BaseState
from tdmpc2_core.robots.rotations import cross, gravity_direction

Array = NDArray[np.float64]


@dataclass
class Instant:
    """What was known of the robot when a decision was made; vectors of the IMU turned into the base frame."""

    time: float  # s, of the decision, on the clock of the stamps
    stamp: float  # s, of the joints' sample
    received: float  # s
    observation: NDArray[np.float32]
    position: Array
    velocity: Array  # NaN where it is not measured
    effort: Array | None
    gyro: Array | None
    gravity: Array | None
    command: Array
    phase: float | None
    base: BaseState | None


@dataclass
class Choice:
    """What was decided at an instant."""

    action: NDArray[np.float32]
    target: Array  # (J,) rad
    latency: float = math.nan  # s from the sample to the command
    mean: Array | None = None
    std: Array | None = None
    value: float = math.nan


@dataclass
class Run:
    """Decisions that followed each other, a control period apart."""

    instants: list[Instant] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    before: NDArray[np.float32] | None = None  # action before the first

    def __len__(self) -> int:
        return len(self.choices)


class EpisodeMaker:
    """Turns runs into episodes, with the rewards that the robot's embodiment asks for.

    Args:
        absolute: whether odometry counts heights from the ground, as that of a simulation does.
    """

    def __init__(self, robot: Embodiment, absolute: bool, task: int = 0) -> None:
        self._robot, self.absolute, self._task = robot, absolute, task
        self._reward, self._tracker = Reward(robot), StateTracker(robot)
        try:
            self._legs: Legs | None = Legs(robot)
        except UserError:
            self._legs = None
        self.masked: dict[str, str] = dict.fromkeys(self._reward.sources, "")
        self.estimated, self.told = 0, 0  # decisions by where the base's velocity comes from
        self._spreads: list[float] = []

    def restart(self) -> None:
        """The next run does not go on from the last."""
        self._tracker.reset()

    @property
    def base_velocity(self) -> dict[str, Any]:
        """Where the base's velocity comes from, and how uncertain an estimate is (m/s)."""
        result: dict[str, Any] = {"odometry": self.told, "legs_and_imu": self.estimated}
        if self._spreads:
            result["uncertainty"] = float(np.sqrt(np.mean(np.square(self._spreads))))
        return result

    def episode(self, run: Run, terminated: bool) -> Episode:
        """The episode of a run, whose last instant has no choice."""
        steps, instants, choices = len(run), run.instants, run.choices
        flags = np.zeros(steps, dtype=bool)
        flags[-1] = terminated
        nothing = np.zeros(self._robot.action_dim)
        has_plan = np.array([choice.mean is not None for choice in choices])
        raw, rewards = self._raw(run), self._rewards(run)
        return Episode(
            observation=np.stack([row.observation for row in instants]),
            action=np.stack([choice.action for choice in choices]),
            reward=rewards.astype(np.float32),
            terminated=flags,
            plan_mean=np.stack([nothing if c.mean is None else c.mean for c in choices]).astype(np.float32),
            plan_std=np.stack([nothing if c.std is None else c.std for c in choices]).astype(np.float32),
            has_plan=has_plan,
            value=np.array([choice.value for choice in choices], np.float32),
            truncated=not terminated,
            task=self._task,
            raw=raw,
        )

    def _raw(self, run: Run) -> dict[str, NDArray[Any]]:
        instants = run.instants
        raw = {
            "joint_position": np.stack([row.position for row in instants]),
            "joint_velocity": np.stack([row.velocity for row in instants]),
            "target": np.stack([choice.target for choice in run.choices]),
            "stamp": np.array([row.time for row in instants]),
            "sample_stamp": np.array([row.stamp for row in instants]),
        }
        if all(row.gyro is not None and row.gravity is not None for row in instants):
            raw["gyro"] = np.stack([row.gyro for row in instants])  # type: ignore[misc]
            raw["gravity"] = np.stack([row.gravity for row in instants])  # type: ignore[misc]
        if any(row.base is not None for row in instants):
            unknown = np.full(6, np.nan)
            raw["base_velocity"] = np.stack(
                [
                    unknown if (b := row.base) is None else np.array([*b.linear, *b.angular])
                    for row in instants
                ]
            )
        return raw

    # ---- rewards ----

    def _rewards(self, run: Run) -> Array:
        """(T,) NaN where a term is not known."""
        if not self.masked:
            return np.full(len(run), np.nan)
        state = self._states(run)
        command = np.stack([row.command for row in run.instants[:-1]])
        phase = np.array([math.nan if row.phase is None else row.phase for row in run.instants[:-1]])
        result = self._averaged(state, command, phase)
        for name in result.masked:
            self.masked[name] = "a source is missing: " + ", ".join(self._reward.sources[name])
        total = np.broadcast_to(np.asarray(result.total, np.float64), (len(run),)).copy()
        if result.masked:
            total[:] = np.nan
        return total

    def _averaged(self, state: RobotState, command: Array, phase: Array) -> Any:
        """The tracker follows step by step; the terms take all steps at once."""
        tracker, steps = self._tracker, len(command)
        means, rates = np.zeros((steps, 2)), np.zeros(steps)
        for k in range(steps):
            one = RobotState(
                linear_velocity=None if state.linear_velocity is None else state.linear_velocity[k],
                angular_velocity=None if state.angular_velocity is None else state.angular_velocity[k],
            )
            tracker.advance(one, None, None)
            means[k], rates[k] = tracker.mean_velocity, tracker.mean_yaw_rate
        many = StateTracker(self._robot, count=steps)
        many.mean_velocity, many.mean_yaw_rate = means, rates
        return self._reward(many.complete(state, command, phase))

    def _states(self, run: Run) -> RobotState:
        after = run.instants[1:]
        actions = np.stack([choice.action for choice in run.choices])
        first = np.zeros_like(actions[0]) if run.before is None else run.before
        state = RobotState(
            joint_position=np.stack([row.position for row in after]),
            action=actions,
            previous_action=np.concatenate([first[None], actions[:-1]]),
        )
        velocity = np.stack([row.velocity for row in after])
        if np.isfinite(velocity).all():
            state.joint_velocity = velocity
        if all(row.effort is not None for row in after):
            state.effort = np.stack([row.effort for row in after])  # type: ignore[misc]
        if all(row.gravity is not None for row in after):
            state.gravity = np.stack([row.gravity for row in after])  # type: ignore[misc]
            state.angular_velocity = np.stack([row.gyro for row in after])  # type: ignore[misc]
        if self.absolute and all(row.base is not None for row in after):
            # a simulation's IMU is of the start of its last physics step, its reward of the end
            poses = np.array([row.base.orientation for row in after])  # type: ignore[union-attr]
            state.gravity = gravity_direction(poses)
            state.angular_velocity = np.array([row.base.angular for row in after])  # type: ignore[union-attr]
        self._add_base(state, after)
        return state

    def _add_base(self, state: RobotState, after: list[Instant]) -> None:
        """Velocity and height of the base, and the feet, from odometry or else from the legs."""
        motion: Motion | None = None
        known = (state.joint_velocity, state.angular_velocity, state.gravity)
        if self._legs is not None and all(part is not None for part in known):
            assert state.joint_position is not None
            motion = self._legs.motion(state.joint_position, *known)  # type: ignore[arg-type]
        told = all(row.base is not None for row in after)
        if told:
            self.told += len(after)
            state.linear_velocity = np.array([row.base.linear for row in after])  # type: ignore[union-attr]
            if self.absolute:
                state.base_height = np.array([row.base.position[2] for row in after])  # type: ignore[union-attr]
                if motion is not None:
                    state.foot_height, state.foot_contact = self._simulated_feet(state)
                return
        elif motion is not None:
            self.estimated += len(after)
            state.linear_velocity = motion.velocity
            if math.isfinite(motion.uncertainty()):
                self._spreads.append(motion.uncertainty())
        if motion is not None:
            if state.base_height is None:
                state.base_height = motion.height
            state.foot_height, state.foot_contact = motion.feet(np.asarray(state.base_height))

    def _simulated_feet(self, state: RobotState) -> tuple[Array, NDArray[np.bool_]]:
        """Heights (T, F) and contacts of feet on level ground as the simulation has them: it places bodies at
        the start of a physics step, and moves joints and base by the velocities at its end."""
        assert self._legs is not None and state.joint_position is not None
        velocity, turning, down = state.joint_velocity, state.angular_velocity, state.gravity
        assert velocity is not None and turning is not None and down is not None
        step = 1.0 / self._robot.physics_rate
        before = _turned(down, turning * step)
        sunk = np.einsum("ti,ti->t", before, np.asarray(state.linear_velocity)) * step
        placed = self._legs.motion(state.joint_position - velocity * step, velocity, turning, before)
        return placed.feet(np.asarray(state.base_height) + sunk)


def _turned(vector: Array, rotation: Array) -> Array:
    """Vectors (T, 3) turned by rotation vectors (T, 3), rad (Rodrigues)."""
    angle = np.linalg.norm(rotation, axis=1, keepdims=True)
    axis = rotation / np.maximum(angle, 1e-12)
    along = np.einsum("ti,ti->t", axis, vector)[:, None] * axis
    return np.asarray(
        np.cos(angle) * vector + np.sin(angle) * cross(axis, vector) + (1 - np.cos(angle)) * along
    )
