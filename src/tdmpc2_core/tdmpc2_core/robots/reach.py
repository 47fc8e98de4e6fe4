"""Goals of a tool: the error towards one, joint positions that bring the tool there, and refusals."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.kinematics import KinematicChain
from tdmpc2_core.robots.rotations import pose_error

Array = NDArray[np.float64]

DAMPING = 0.05
"""Of the least-squares steps, in the units of the Jacobian: keeps them finite where the arm is stretched."""
_ITERATIONS, _BETWEEN_CHECKS, _LARGEST_STEP = 64, 8, 0.3  # steps, steps, rad per joint and step
_STARTS, _SEED = 8, 0
_CLOSE = 0.005  # m and rad: what counts as a solution
_RADIAN = 0.2  # m that an angle of 1 rad counts as, where starts are compared


def tool_error(chain: KinematicChain, joints: ArrayLike, goal: ArrayLike) -> tuple[Array, Array]:
    """From the tool to a goal (7,): offset (..., 3), m, and rotation vector (..., 3), rad, in the tool frame.

    The goal is position and quaternion xyzw in the base frame; joints are (..., J), rad.
    """
    return pose_error(*chain.forward(joints), goal)


def resolved_rate(chain: KinematicChain, joints: ArrayLike, goal: ArrayLike) -> tuple[Array, Array]:
    """Joint change (..., J), rad, towards a goal by damped least squares, and the projector (..., J, J) onto
    changes that leave the tool where it is (Nakamura and Hanafusa, 1986; Wampler, 1986)."""
    position, rotation, jacobian = chain.differential(joints)
    offset, turn = pose_error(position, rotation, goal)
    error = np.concatenate([(rotation @ offset[..., None]), (rotation @ turn[..., None])], axis=-2)
    transposed = np.swapaxes(jacobian, -1, -2)
    inverse = transposed @ np.linalg.inv(jacobian @ transposed + DAMPING**2 * np.eye(6))
    free = np.eye(jacobian.shape[-1]) - inverse @ jacobian
    return (inverse @ error)[..., 0], free


class Solution(NamedTuple):
    """The nearest joint positions (J,), rad, that were found, and what is left of the error there."""

    joints: Array
    distance: float  # m
    angle: float  # rad

    @property
    def found(self) -> bool:
        """Whether the tool gets there."""
        return self.distance < _CLOSE and self.angle < _CLOSE


def solve(embodiment: Embodiment, goal: ArrayLike) -> Solution:
    """Inverse kinematics of a goal (7,) inside the joint limits, from the default pose and random ones."""
    chain, lower, upper = embodiment.chain, embodiment.lower, embodiment.upper
    rng = np.random.default_rng(_SEED)
    joints = rng.uniform(lower, upper, (_STARTS, embodiment.num_joints))
    joints[0] = embodiment.default_position
    # goals are mostly near the default pose, and near it starts seldom run into a joint limit
    joints[1::2] = 0.5 * (joints[1::2] + embodiment.default_position)
    best = _best(chain, joints, goal)
    for _ in range(_ITERATIONS // _BETWEEN_CHECKS):  # a check costs as much as a step
        for _ in range(_BETWEEN_CHECKS):
            step, _ = resolved_rate(chain, joints, goal)
            joints = np.clip(joints + np.clip(step, -_LARGEST_STEP, _LARGEST_STEP), lower, upper)
        best = _best(chain, joints, goal)
        if best.found:
            break
    return best


def _best(chain: KinematicChain, joints: Array, goal: ArrayLike) -> Solution:
    offset, turn = tool_error(chain, joints, goal)
    distance, angle = np.linalg.norm(offset, axis=-1), np.linalg.norm(turn, axis=-1)
    best = int(np.argmin(distance + _RADIAN * angle))
    return Solution(joints[best], float(distance[best]), float(angle[best]))


def check_goal(embodiment: Embodiment, goal: ArrayLike) -> None:
    """Refuse a goal (7,), position (m) and quaternion xyzw in the base frame, that the arm cannot reach.

    Raises:
        SensorError: a value is not finite, the position is outside the box of the embodiment, or no joint
            position inside the limits brings the tool there.
    """
    spec = embodiment.pose_command
    assert spec is not None
    values = [float(value) for value in np.asarray(goal, dtype=np.float64)]
    named = zip(spec.names, values, strict=True)
    bad = [f"{name} is {value}" for name, value in named if not math.isfinite(value)]
    if bad:
        raise SensorError(f"goal: {', '.join(bad)}; finite values are needed")
    length = math.sqrt(sum(value * value for value in values[3:]))
    if not 0.9 <= length <= 1.1:
        raise SensorError(f"goal: orientation must be a unit quaternion, its length is {length:.3g}")
    outside = spec.outside((values[0], values[1], values[2]))
    if outside:
        raise SensorError(f"goal: {outside} ({embodiment.base_frame})")
    nearest = solve(embodiment, [*values[:3], *(value / length for value in values[3:])])
    if not nearest.found:
        raise SensorError(
            f"goal: out of reach; the nearest pose found inside the joint limits is "
            f"{100 * nearest.distance:.1f} cm and {nearest.angle:.2f} rad away"
        )
