"""Reward terms that an embodiment file can name: functions of the robot's state, one number per decision.

A term's signature is its schema: every keyword is a number that the embodiment file must give.
Tracking terms are ``exp(-error^2 / sigma^2)`` in [0, 1]; penalties return a non-negative cost and take a
negative weight.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from tdmpc2_core.config import closest
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment

Value = Any  # a float, or an array (N,); NumPy's own types do not say which
"""One number, or one per robot (N,)."""


@dataclass(slots=True)
class RobotState:
    """Ground truth after a decision, SI units; velocities of the base are in the base frame.

    Of N robots every array has a leading robot axis, and so have the numbers.
    """

    linear_velocity: np.ndarray  # (3,)
    angular_velocity: np.ndarray  # (3,)
    mean_velocity: np.ndarray  # (3,) forward, lateral, yaw; averaged over reward.velocity_time_constant
    gravity: np.ndarray  # (3,) unit vector, body frame
    base_height: Value
    joint_position: np.ndarray  # (J,)
    joint_velocity: np.ndarray  # (J,)
    default_position: np.ndarray  # (J,), without a robot axis
    effort: np.ndarray  # (J,)
    action: np.ndarray  # (A,)
    previous_action: np.ndarray  # (A,)
    command: np.ndarray  # (3,) like mean_velocity, zero inside the deadband; (7,) a goal pose, (0,) none
    moving: bool | np.ndarray
    foot_contact: np.ndarray  # (F,) bool
    foot_height: np.ndarray  # (F,) m
    foot_stance: np.ndarray  # (F,) bool, what the gait phase asks for; all true while standing
    tool_distance: Value = 0.0  # m from the tool to its goal
    tool_angle: Value = 0.0  # rad


def _square(vector: np.ndarray) -> Value:
    """Squared length along the last axis."""
    return np.square(vector).sum(-1)


def _kernel(squared_error: Value, sigma: float) -> Value:
    return np.exp(-squared_error / sigma**2)


def track_linear_velocity(state: RobotState, sigma: float) -> Value:
    """Mean horizontal velocity follows the command; ``sigma`` in m/s."""
    return _kernel(_square(state.mean_velocity[..., :2] - state.command[..., :2]), sigma)


def track_yaw_rate(state: RobotState, sigma: float) -> Value:
    """Mean yaw rate follows the command; ``sigma`` in rad/s."""
    return _kernel(np.square(state.mean_velocity[..., 2] - state.command[..., 2]), sigma)


def upright(state: RobotState, sigma: float) -> Value:
    """Gravity stays on the body's z axis; ``sigma`` is the sine of the tilt."""
    return _kernel(_square(state.gravity[..., :2]), sigma)


def base_height(state: RobotState, target: float, sigma: float) -> Value:
    """Trunk height above ground; ``target`` and ``sigma`` in m."""
    return _kernel(np.square(state.base_height - target), sigma)


def gait_contact(state: RobotState) -> Value:
    """Share of feet whose contact is what the gait phase asks for."""
    return np.mean(state.foot_contact == state.foot_stance, axis=-1)


def foot_clearance(state: RobotState, target: float) -> Value:
    """Mean height of the feet in swing as a share of ``target`` (m), at most 1; 1 while standing."""
    swing = ~state.foot_stance
    count = swing.sum(-1)
    lifted = (np.clip(state.foot_height / target, 0.0, 1.0) * swing).sum(-1)
    return np.where(count > 0, lifted / np.maximum(count, 1), 1.0)


def vertical_velocity(state: RobotState) -> Value:
    """Squared vertical velocity of the trunk, (m/s)^2."""
    return np.square(state.linear_velocity[..., 2])


def roll_pitch_rate(state: RobotState) -> Value:
    """Squared roll and pitch rates, (rad/s)^2."""
    return _square(state.angular_velocity[..., :2])


def action_rate(state: RobotState) -> Value:
    """Squared change of the action between decisions."""
    return _square(state.action - state.previous_action)


def effort(state: RobotState) -> Value:
    """Squared joint efforts, (N m)^2."""
    return _square(state.effort)


def joint_velocity(state: RobotState) -> Value:
    """Squared joint velocities, (rad/s)^2."""
    return _square(state.joint_velocity)


def tool_position(state: RobotState, coarse: float, middle: float, fine: float) -> Value:
    """Tool comes to the position of its goal: mean of three kernels, whose sigmas are in m."""
    return np.mean([_kernel(np.square(state.tool_distance), s) for s in (coarse, middle, fine)], axis=0)


def tool_orientation(state: RobotState, coarse: float, middle: float, fine: float) -> Value:
    """Tool comes to the orientation of its goal: mean of three kernels, whose sigmas are in rad."""
    return np.mean([_kernel(np.square(state.tool_angle), s) for s in (coarse, middle, fine)], axis=0)


def stand_pose(state: RobotState) -> Value:
    """Squared distance from the default pose while the command is zero, rad^2."""
    return np.where(state.moving, 0.0, _square(state.joint_position - state.default_position))


@dataclass(frozen=True)
class RewardTerm:
    """A row of `TERMS`: the function, and the sources without which it cannot be computed.

    Sources: `joints`, `imu`, `command`, `self` (what control sent) as in `terms.SOURCES`; `effort` of the
    drives; `odometry`, velocity and height of the base; `feet`, their contact and height.
    """

    function: Callable[..., Value]
    needs: tuple[str, ...]


TERMS: dict[str, RewardTerm] = {
    function.__name__: RewardTerm(function, tuple(needs.split()))
    for function, needs in (
        (track_linear_velocity, "odometry command"),
        (track_yaw_rate, "odometry command"),
        (upright, "imu"),
        (base_height, "odometry"),
        (gait_contact, "feet self"),
        (foot_clearance, "feet self"),
        (vertical_velocity, "odometry"),
        (roll_pitch_rate, "imu"),
        (action_rate, "self"),
        (effort, "effort"),
        (joint_velocity, "joints"),
        (tool_position, "joints command"),
        (tool_orientation, "joints command"),
        (stand_pose, "joints command"),
    )
}
"""Every reward term there is, by name."""

FIELD_SOURCES = {
    "linear_velocity": "odometry",
    "angular_velocity": "imu",
    "mean_velocity": "odometry",
    "gravity": "imu",
    "base_height": "odometry",
    "joint_position": "joints",
    "joint_velocity": "joints",
    "default_position": "",
    "effort": "effort",
    "action": "self",
    "previous_action": "self",
    "command": "command",
    "moving": "command",
    "foot_contact": "feet",
    "foot_height": "feet",
    "foot_stance": "self",
    "tool_distance": "joints command",
    "tool_angle": "joints command",
}
"""Where the fields of `RobotState` come from on a robot; an arm's tool from its kinematics and its goal."""


class Reward:
    """Weighted sum of an embodiment's reward terms. It needs no simulation, only a `RobotState`.

    Args:
        sources: those that there are, such as of a recording; terms that need another are left out and named
            in `masked`. None: all.

    Raises:
        UserError: a term's name or one of its parameters is unknown or missing.
    """

    def __init__(self, embodiment: Embodiment, sources: Collection[str] | None = None) -> None:
        self._terms = []
        self.masked: dict[str, tuple[str, ...]] = {}
        for term in embodiment.reward.terms:
            row = TERMS.get(term.name)
            if row is None:
                raise UserError(
                    f"{embodiment.name}: reward.terms: unknown term {term.name!r}"
                    f"{closest(term.name, TERMS)}; known: {', '.join(TERMS)}"
                )
            accepted = set(list(inspect.signature(row.function).parameters)[1:])
            if set(term.params) != accepted:
                raise UserError(
                    f"{embodiment.name}: reward.terms.{term.name} takes "
                    f"{sorted(accepted) or 'no parameters'}, got {sorted(term.params) or 'none'}"
                )
            missing = () if sources is None else tuple(need for need in row.needs if need not in sources)
            if missing:
                self.masked[term.name] = missing
            else:
                self._terms.append((term.name, term.weight, row.function, dict(term.params)))

    def __call__(self, state: RobotState) -> tuple[Value, dict[str, Value]]:
        """Total reward of one decision and the weighted share of each term."""
        parts = {name: weight * function(state, **params) for name, weight, function, params in self._terms}
        return sum(parts.values()), parts
