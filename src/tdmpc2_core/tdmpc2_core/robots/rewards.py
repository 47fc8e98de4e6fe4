"""Reward terms that an embodiment file can name: functions of a robot's state, one number per decision.

No simulator is needed: one fills a `RobotState` with the truth, a recording with what its sensors told. Terms
that read what no source told are left out, and named.

A term's signature is its schema: arguments are fields of `RobotState`, keywords are numbers that the
embodiment file must give. Tracking terms are ``exp(-error^2 / sigma^2)`` in [0, 1]; penalties return a
non-negative cost and take a negative weight.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.config import closest
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.rotations import pose_error, to_matrix

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Value = Any  # a float or an array (N,); NumPy's own types do not say which
"""One number, or one per robot (N,)."""


def _told_by(*sources: str, section: str = "") -> Any:
    """A field that is unknown unless these sources tell it, of robots whose embodiment has the section."""
    return field(default=None, metadata={"sources": sources, "section": section})


@dataclass(slots=True)
class RobotState:
    """A robot after a decision, in SI units; vectors are seen from the base, None is what no source told.

    Of N robots every array but `default_position` has a leading robot axis, and so have the numbers.

    Sources: `joints`, `imu`, `command` and `self` as in `terms.SOURCES`, an IMU's values turned into the base
    frame; `odometry`, an estimate of the base's motion; `feet`, sensors of contact or distance to the ground.
    """

    joint_position: Array | None = _told_by("joints")  # (J,)
    joint_velocity: Array | None = _told_by("joints")  # (J,)
    effort: Array | None = _told_by("joints")  # (J,)
    gravity: Array | None = _told_by("imu")  # (3,) unit vector
    angular_velocity: Array | None = _told_by("imu")  # (3,)
    linear_velocity: Array | None = _told_by("odometry")  # (3,)
    base_height: Value | None = _told_by("odometry")  # above the ground
    foot_contact: Flags | None = _told_by("feet", section="clock")  # (F,)
    foot_height: Array | None = _told_by("feet", section="clock")  # (F,) above the ground
    action: NDArray[np.floating[Any]] | None = _told_by("self")  # (A,)
    previous_action: NDArray[np.floating[Any]] | None = _told_by("self")  # (A,)
    tool_pose: Array | None = _told_by("joints", section="pose_command")  # (7,) m, quaternion xyzw
    # what `StateTracker` derives
    default_position: Array | None = _told_by("self")  # (J,)
    mean_velocity: Array | None = _told_by("odometry")  # (2,) over reward.velocity_time_constant
    mean_yaw_rate: Value | None = _told_by("imu")  # likewise
    velocity_command: Array | None = _told_by(
        "command", section="twist_command"
    )  # (3,) forward, lateral, yaw
    moving: Value | None = _told_by("command")  # whether any velocity is commanded
    foot_stance: Flags | None = _told_by("self", section="clock")  # (F,) what the gait asks for; all to stand
    tool_distance: Value | None = _told_by("joints", "command", section="pose_command")  # from tool to goal
    tool_angle: Value | None = _told_by("joints", "command", section="pose_command")


_METADATA = {row.name: row.metadata for row in fields(RobotState)}


class StateTracker:
    """Adds to the states of a robot, decision by decision, what follows from the rest and from before.

    Args:
        count: of N robots, whose states come together; None: of one.

    Attributes:
        mean_velocity: (2,) or (N, 2), horizontal, over `reward.velocity_time_constant`.
        mean_yaw_rate: () or (N,), likewise.
    """

    def __init__(self, embodiment: Embodiment, count: int | None = None) -> None:
        self._embodiment, robots = embodiment, () if count is None else (count,)
        averaged = embodiment.reward.velocity_time_constant
        self._share = 1.0 - np.exp(-embodiment.control_period / averaged) if averaged > 0.0 else 1.0
        self.mean_velocity, self.mean_yaw_rate = np.zeros((*robots, 2)), np.zeros(robots)

    def reset(self, rows: Any = ...) -> None:
        """Start an episode, of N robots for some rows."""
        self.mean_velocity, self.mean_yaw_rate = self.mean_velocity.copy(), self.mean_yaw_rate.copy()
        self.mean_velocity[rows] = self.mean_yaw_rate[rows] = 0.0

    def state(self) -> dict[str, Array]:
        """Mean velocities; later decisions do not change them."""
        return {"mean_velocity": self.mean_velocity.copy(), "mean_yaw_rate": self.mean_yaw_rate.copy()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Continue from a `state`."""
        self.mean_velocity, self.mean_yaw_rate = state["mean_velocity"].copy(), state["mean_yaw_rate"].copy()

    def advance(self, state: RobotState, command: Array | None, phase: Value | None) -> RobotState:
        """`complete`, after the velocities of a decision's `state` have entered the means."""
        if state.linear_velocity is not None:
            self.mean_velocity = self._averaged(self.mean_velocity, state.linear_velocity[..., :2])
        if state.angular_velocity is not None:
            self.mean_yaw_rate = self._averaged(self.mean_yaw_rate, state.angular_velocity[..., 2])
        return self.complete(state, command, phase)

    def complete(self, state: RobotState, command: Array | None, phase: Value | None) -> RobotState:
        """Fill in the derived fields of `state`, where their sources told enough; returns it.

        Args:
            state: after a decision.
            command: (..., C) that the decision was made under, zero inside the deadband; None where unknown.
            phase: gait phase of the decision, NaN or None while the robot stands; both as
                `ObservationAssembler` has them.
        """
        robot = self._embodiment
        state.default_position = robot.default_position
        if state.linear_velocity is not None:
            state.mean_velocity = self.mean_velocity
        if state.angular_velocity is not None:
            state.mean_yaw_rate = self.mean_yaw_rate
        if robot.clock is not None:
            state.foot_stance = robot.clock.stance(phase)
        if robot.command is None:
            state.moving = np.False_
        elif command is not None:
            state.moving = command.any(axis=-1)
            if robot.twist_command is not None:
                state.velocity_command = robot.twist_command.velocity(command)
            elif robot.pose_command is not None:
                self._to_goal(state, command)
        return state

    def _averaged(self, before: Array, now: Array) -> Array:
        return np.asarray(before + self._share * (now - before))

    def _to_goal(self, state: RobotState, goal: Array) -> None:
        if state.tool_pose is not None:
            position, rotation = state.tool_pose[..., :3], to_matrix(state.tool_pose[..., 3:])
        elif state.joint_position is not None:
            position, rotation = self._embodiment.chain.forward(state.joint_position)
        else:
            return
        offset, turn = pose_error(position, rotation, goal)
        state.tool_distance, state.tool_angle = np.sqrt(_square(offset)), np.sqrt(_square(turn))


@dataclass(frozen=True)
class RewardFunction:
    """A row of `REWARD_TERMS`.

    Attributes:
        function: the term's value.
        reads: fields of `RobotState` that it takes, in order.
        params: numbers that the embodiment file gives.
    """

    function: Callable[..., Value]
    reads: tuple[str, ...]
    params: tuple[str, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """What must tell about the robot for the term to be known."""
        return tuple(dict.fromkeys(source for name in self.reads for source in _METADATA[name]["sources"]))

    @property
    def summary(self) -> str:
        """The first line of the function's text."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]

    @property
    def sections(self) -> tuple[str, ...]:
        """Attributes of the embodiment without which a robot has no such term."""
        found = dict.fromkeys(_METADATA[name]["section"] for name in self.reads)
        return tuple(section for section in found if section)

    def __call__(self, state: RobotState, **params: float) -> Value:
        """The term's value, without its weight. Everything it reads must be known."""
        return self.function(*[getattr(state, name) for name in self.reads], **params)


REWARD_TERMS: dict[str, RewardFunction] = {}
"""Reward terms by name; `reward_term` adds the row of a function."""


def reward_term(function: Callable[..., Value]) -> Callable[..., Value]:
    """Makes a function the reward term of its name."""
    parameters = inspect.signature(function).parameters.values()
    reads = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
    params = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
    REWARD_TERMS[function.__name__] = RewardFunction(function, reads, params)
    return function


def _square(vector: Array) -> Value:
    """Squared length (...,) of vectors (..., n). One robot gets the same bits alone and among others: the
    products of all are summed by the same routine."""
    return (vector[..., None, :] @ vector[..., None])[..., 0, 0]


def _kernel(squared_error: Value, sigma: float) -> Value:
    return np.exp(-squared_error / sigma**2)


@reward_term
def track_linear_velocity(mean_velocity: Array, velocity_command: Array, *, sigma: float) -> Value:
    """Mean horizontal velocity follows the command; `sigma` in m/s."""
    return _kernel(_square(mean_velocity - velocity_command[..., :2]), sigma)


@reward_term
def track_yaw_rate(mean_yaw_rate: Value, velocity_command: Array, *, sigma: float) -> Value:
    """Mean yaw rate follows the command; `sigma` in rad/s."""
    return _kernel(np.square(mean_yaw_rate - velocity_command[..., 2]), sigma)


@reward_term
def upright(gravity: Array, *, sigma: float) -> Value:
    """Gravity stays on the body's z axis; `sigma` is the sine of the tilt."""
    return _kernel(_square(gravity[..., :2]), sigma)


@reward_term
def base_height(base_height: Value, *, target: float, sigma: float) -> Value:
    """Trunk height above ground; `target` and `sigma` in m."""
    return _kernel(np.square(base_height - target), sigma)


@reward_term
def gait_contact(foot_contact: Flags, foot_stance: Flags) -> Value:
    """Share of feet whose contact is what the gait phase asks for."""
    return np.mean(foot_contact == foot_stance, axis=-1)


@reward_term
def foot_clearance(foot_height: Array, foot_stance: Flags, *, target: float) -> Value:
    """Mean height of the feet in swing as a share of `target` (m), at most 1; 1 while standing."""
    swing = ~foot_stance
    count = swing.sum(-1)
    lifted = (np.clip(foot_height / target, 0.0, 1.0) * swing).sum(-1)
    return np.where(count > 0, lifted / np.maximum(count, 1), 1.0)


@reward_term
def vertical_velocity(linear_velocity: Array) -> Value:
    """Squared vertical velocity of the trunk, (m/s)^2."""
    return np.square(linear_velocity[..., 2])


@reward_term
def roll_pitch_rate(angular_velocity: Array) -> Value:
    """Squared roll and pitch rates, (rad/s)^2."""
    return _square(angular_velocity[..., :2])


@reward_term
def action_rate(action: Array, previous_action: Array) -> Value:
    """Squared change of the action between decisions."""
    return _square(action - previous_action)


@reward_term
def effort(effort: Array) -> Value:
    """Squared joint efforts, (N m)^2."""
    return _square(effort)


@reward_term
def joint_velocity(joint_velocity: Array) -> Value:
    """Squared joint velocities, (rad/s)^2."""
    return _square(joint_velocity)


@reward_term
def tool_position(tool_distance: Value, *, coarse: float, middle: float, fine: float) -> Value:
    """Tool comes to the position of its goal: mean of three kernels, whose sigmas are in m."""
    return np.mean([_kernel(np.square(tool_distance), s) for s in (coarse, middle, fine)], axis=0)


@reward_term
def tool_orientation(tool_angle: Value, *, coarse: float, middle: float, fine: float) -> Value:
    """Tool comes to the orientation of its goal: mean of three kernels, whose sigmas are in rad."""
    return np.mean([_kernel(np.square(tool_angle), s) for s in (coarse, middle, fine)], axis=0)


@reward_term
def stand_pose(moving: Value, joint_position: Array, default_position: Array) -> Value:
    """Squared distance from the default pose while the command is zero, rad^2."""
    return np.where(moving, 0.0, _square(joint_position - default_position))


class RewardSum(NamedTuple):
    """The reward of one decision."""

    total: Value  # of the terms that are known
    terms: dict[str, Value]  # weighted share of each of them
    masked: tuple[str, ...]  # names of the others: they read what no source told


class _Weighted(NamedTuple):
    """One term as an embodiment weighs it."""

    name: str
    weight: float
    row: RewardFunction
    params: dict[str, float]


class Reward:
    """Weighted sum of an embodiment's reward terms.

    Raises:
        UserError: a term's name or one of its parameters is unknown or missing, or the robot lacks what the
            term is about.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        self._terms: list[_Weighted] = []
        for term in embodiment.reward.terms:
            place, row = f"{embodiment.name}: reward.terms", REWARD_TERMS.get(term.name)
            if row is None:
                hint = f"{closest(term.name, REWARD_TERMS)}; known: {', '.join(REWARD_TERMS)}"
                raise UserError(f"{place}: unknown term {term.name!r}{hint}")
            if set(term.params) != set(row.params):
                raise UserError(
                    f"{place}.{term.name} takes {sorted(row.params) or 'no parameters'}, "
                    f"got {sorted(term.params) or 'none'}"
                )
            lacking = [name for name in row.sections if getattr(embodiment, name) is None]
            if lacking:
                raise UserError(f"{place}.{term.name}: the robot has no {lacking[0]}; leave the term out")
            self._terms.append(_Weighted(term.name, term.weight, row, dict(term.params)))
        self._reads = tuple(dict.fromkeys(name for term in self._terms for name in term.row.reads))

    @property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """For each term by name, the sources that must tell about the robot for it to be known."""
        return {term.name: term.row.sources for term in self._terms}

    def __call__(self, state: RobotState) -> RewardSum:
        """Total reward of one decision, the weighted share of each term, and what could not be known."""
        known: list[_Weighted] = self._terms
        masked: tuple[str, ...] = ()
        unknown = [name for name in self._reads if getattr(state, name) is None]
        if unknown:
            known = [term for term in self._terms if not set(unknown).intersection(term.row.reads)]
            masked = tuple(term.name for term in self._terms if term not in known)
        shares = {name: weight * row(state, **params) for name, weight, row, params in known}
        return RewardSum(sum(shares.values()), shares, masked)
