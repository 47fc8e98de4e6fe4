"""Reward terms that an embodiment file can name: functions of a robot's state, one number per decision.

No simulator is needed: one fills a `RobotState` with the truth, a recording with what its sensors told. Terms
that read what no source told are left out, and named.

A term's signature is its schema: arguments are fields of `RobotState`, keywords are numbers that the
embodiment file must give. Tracking terms are ``exp(-error^2 / sigma^2)`` in [0, 1]; penalties return a
non-negative cost and take a negative weight.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
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


def _told_by(*sources: str, section: str = "") -> Any:
    """A field that is unknown unless these sources tell it, of robots whose embodiment has the section."""
    return field(default=None, metadata={"sources": sources, "section": section})


@dataclass(slots=True)
class RobotState:
    """A robot after a decision, in SI units; vectors are seen from the base, None is what no source told.

    Sources: `joints`, `imu`, `command` and `self` as in `terms.SOURCES`, an IMU's values turned into the base
    frame; `odometry`, an estimate of the base's motion; `feet`, sensors of contact or distance to the ground.
    """

    joint_position: Array | None = _told_by("joints")  # (J,)
    joint_velocity: Array | None = _told_by("joints")  # (J,)
    effort: Array | None = _told_by("joints")  # (J,)
    gravity: Array | None = _told_by("imu")  # (3,) unit vector
    angular_velocity: Array | None = _told_by("imu")  # (3,)
    linear_velocity: Array | None = _told_by("odometry")  # (3,)
    base_height: float | None = _told_by("odometry")  # above the ground
    foot_contact: Flags | None = _told_by("feet", section="clock")  # (F,)
    foot_height: Array | None = _told_by("feet", section="clock")  # (F,) above the ground
    action: Array | None = _told_by("self")  # (A,)
    previous_action: Array | None = _told_by("self")  # (A,)
    tool_pose: Array | None = _told_by("joints", section="pose_command")  # (7,) m, quaternion xyzw
    # what `StateTracker` derives
    default_position: Array | None = _told_by("self")  # (J,)
    mean_velocity: Array | None = _told_by("odometry")  # (2,) over reward.velocity_time_constant
    mean_yaw_rate: float | None = _told_by("imu")  # likewise
    velocity_command: Array | None = _told_by(
        "command", section="twist_command"
    )  # (3,) forward, lateral, yaw
    moving: bool | None = _told_by("command")  # whether any velocity is commanded
    foot_stance: Flags | None = _told_by("self", section="clock")  # (F,) what the gait asks for; all to stand
    tool_distance: float | None = _told_by("joints", "command", section="pose_command")  # from tool to goal
    tool_angle: float | None = _told_by("joints", "command", section="pose_command")


_METADATA = {row.name: row.metadata for row in fields(RobotState)}


class StateTracker:
    """Adds to the states of one robot, decision by decision, what follows from the rest and from before."""

    def __init__(self, embodiment: Embodiment) -> None:
        self._embodiment = embodiment
        averaged = embodiment.reward.velocity_time_constant
        self._offsets = np.asarray(embodiment.clock.offsets if embodiment.clock else ())
        self._share = 1.0 - np.exp(-embodiment.control_period / averaged) if averaged > 0.0 else 1.0
        self.reset()

    def reset(self) -> None:
        """Start an episode."""
        self._velocity, self._yaw_rate = np.zeros(2), np.float64(0.0)

    def complete(self, state: RobotState, command: Array | None, phase: float | None) -> RobotState:
        """Fill in the derived fields of `state`, where their sources told enough; returns it.

        Args:
            state: after the decision.
            command: (C,) that the decision was made under, zero inside the deadband; None where unknown.
            phase: gait phase of the decision, None while the robot stands; both as `ObservationAssembler` has
                them.
        """
        robot = self._embodiment
        state.default_position = robot.default_position
        if state.linear_velocity is not None:
            self._velocity = self._velocity + self._share * (state.linear_velocity[:2] - self._velocity)
            state.mean_velocity = self._velocity
        if state.angular_velocity is not None:
            self._yaw_rate = self._yaw_rate + self._share * (state.angular_velocity[2] - self._yaw_rate)
            state.mean_yaw_rate = self._yaw_rate
        if robot.clock is not None:
            state.foot_stance = np.ones(len(self._offsets), dtype=bool)
            if phase is not None:
                state.foot_stance = (phase + self._offsets) % 1.0 < robot.clock.duty
        if robot.command is None:
            state.moving = False
        elif command is not None:
            state.moving = bool(command.any())
            if robot.twist_command is not None:
                state.velocity_command = robot.twist_command.velocity(command)
            elif robot.pose_command is not None:
                self._to_goal(state, command)
        return state

    def _to_goal(self, state: RobotState, goal: Array) -> None:
        if state.tool_pose is not None:
            position, rotation = state.tool_pose[:3], to_matrix(state.tool_pose[3:])
        elif state.joint_position is not None:
            position, rotation = self._embodiment.chain.forward(state.joint_position)
        else:
            return
        offset, turn = pose_error(position, rotation, goal)
        state.tool_distance, state.tool_angle = float(np.linalg.norm(offset)), float(np.linalg.norm(turn))


@dataclass(frozen=True)
class RewardFunction:
    """A row of `REWARD_TERMS`.

    Attributes:
        function: the term's value.
        reads: fields of `RobotState` that it takes, in order.
        params: numbers that the embodiment file gives.
    """

    function: Callable[..., float]
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

    def __call__(self, state: RobotState, **params: float) -> float:
        """The term's value, without its weight. Everything it reads must be known."""
        return self.function(*[getattr(state, name) for name in self.reads], **params)


REWARD_TERMS: dict[str, RewardFunction] = {}
"""Reward terms by name; `reward_term` adds the row of a function."""


def reward_term(function: Callable[..., float]) -> Callable[..., float]:
    """Makes a function the reward term of its name."""
    parameters = inspect.signature(function).parameters.values()
    reads = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
    params = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
    REWARD_TERMS[function.__name__] = RewardFunction(function, reads, params)
    return function


def _kernel(squared_error: float | Array, sigma: float) -> float:
    return float(np.exp(-squared_error / sigma**2))


@reward_term
def track_linear_velocity(mean_velocity: Array, velocity_command: Array, *, sigma: float) -> float:
    """Mean horizontal velocity follows the command; `sigma` in m/s."""
    error = mean_velocity - velocity_command[:2]
    return _kernel(error @ error, sigma)


@reward_term
def track_yaw_rate(mean_yaw_rate: float, velocity_command: Array, *, sigma: float) -> float:
    """Mean yaw rate follows the command; `sigma` in rad/s."""
    return _kernel((mean_yaw_rate - velocity_command[2]) ** 2, sigma)


@reward_term
def upright(gravity: Array, *, sigma: float) -> float:
    """Gravity stays on the body's z axis; `sigma` is the sine of the tilt."""
    return _kernel(gravity[:2] @ gravity[:2], sigma)


@reward_term
def base_height(base_height: float, *, target: float, sigma: float) -> float:
    """Trunk height above ground; `target` and `sigma` in m."""
    return _kernel((base_height - target) ** 2, sigma)


@reward_term
def gait_contact(foot_contact: Flags, foot_stance: Flags) -> float:
    """Share of feet whose contact is what the gait phase asks for."""
    return float(np.mean(foot_contact == foot_stance))


@reward_term
def foot_clearance(foot_height: Array, foot_stance: Flags, *, target: float) -> float:
    """Mean height of the feet in swing as a share of `target` (m), at most 1; 1 while standing."""
    swing = ~foot_stance
    return float(np.mean(np.clip(foot_height[swing] / target, 0.0, 1.0))) if swing.any() else 1.0


@reward_term
def vertical_velocity(linear_velocity: Array) -> float:
    """Squared vertical velocity of the trunk, (m/s)^2."""
    return float(linear_velocity[2] ** 2)


@reward_term
def roll_pitch_rate(angular_velocity: Array) -> float:
    """Squared roll and pitch rates, (rad/s)^2."""
    return float(angular_velocity[:2] @ angular_velocity[:2])


@reward_term
def action_rate(action: Array, previous_action: Array) -> float:
    """Squared change of the action between decisions."""
    change = action - previous_action
    return float(change @ change)


@reward_term
def effort(effort: Array) -> float:
    """Squared joint efforts, (N m)^2."""
    return float(effort @ effort)


@reward_term
def joint_velocity(joint_velocity: Array) -> float:
    """Squared joint velocities, (rad/s)^2."""
    return float(joint_velocity @ joint_velocity)


@reward_term
def tool_position(tool_distance: float, *, coarse: float, middle: float, fine: float) -> float:
    """Tool comes to the position of its goal: mean of three kernels, whose sigmas are in m."""
    return float(np.mean([_kernel(tool_distance**2, s) for s in (coarse, middle, fine)]))


@reward_term
def tool_orientation(tool_angle: float, *, coarse: float, middle: float, fine: float) -> float:
    """Tool comes to the orientation of its goal: mean of three kernels, whose sigmas are in rad."""
    return float(np.mean([_kernel(tool_angle**2, s) for s in (coarse, middle, fine)]))


@reward_term
def stand_pose(moving: bool, joint_position: Array, default_position: Array) -> float:
    """Squared distance from the default pose while the command is zero, rad^2."""
    if moving:
        return 0.0
    error = joint_position - default_position
    return float(error @ error)


class RewardSum(NamedTuple):
    """The reward of one decision."""

    total: float  # of the terms that are known
    terms: dict[str, float]  # weighted share of each of them
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
