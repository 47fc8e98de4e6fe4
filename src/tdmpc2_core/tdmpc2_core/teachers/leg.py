"""Kinematics of one leg of a robot model: forward in closed form, inverse by Newton's method on it."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment

Array = NDArray[np.float64]
_ITERATIONS = 8
_DAMPING = 1e-6  # of the normal equations: steps stay finite where the knee is straight
_MAX_STEP = 0.3  # rad per iteration


class Leg:
    """The chain of actuated hinges from the base body to the body that carries a foot geom.

    Args:
        model: robot model; its base body is the embodiment's ``base_frame``.
        embodiment: gives order and limits of the joints.
        foot: name of a foot geom; the sole is the mean of the lowest points of its body's spheres.

    Raises:
        UserError: the chain has not six of the embodiment's joints.
    """

    def __init__(self, model: mujoco.MjModel, embodiment: Embodiment, foot: str) -> None:
        self.body = int(model.geom(foot).bodyid[0])
        base = model.body(embodiment.base_frame).id
        bodies = [self.body]
        while bodies[0] != base:
            bodies.insert(0, int(model.body_parentid[bodies[0]]))
        joints, offsets, turns, axes = [], [np.zeros(3)], [np.eye(3)], []
        for body in bodies[1:]:  # bodies without a joint are folded into the next one
            offsets[-1] = offsets[-1] + turns[-1] @ model.body_pos[body]
            turns[-1] = turns[-1] @ _matrix(model.body_quat[body])
            if model.body_jntnum[body]:
                joint = int(model.body_jntadr[body])
                joints.append(embodiment.joint_names.index(model.joint(joint).name))
                axes.append(model.jnt_axis[joint].copy())
                offsets.append(np.zeros(3))
                turns.append(np.eye(3))
        if len(joints) != 6:
            raise UserError(
                f"{embodiment.name}: the leg of {foot!r} has {len(joints)} joints; "
                f"the stepping controller needs six"
            )
        self._offsets, self._turns, self._axes = offsets, np.array(turns), np.array(axes)
        self._cross = np.array([_skew(axis) for axis in axes])
        self._square = self._cross @ self._cross
        self.joints = np.array(joints)  # indices into the embodiment's joint arrays
        self._lower, self._upper = embodiment.lower[self.joints], embodiment.upper[self.joints]
        spheres = np.flatnonzero((model.geom_bodyid == self.body) & (model.geom_conaffinity > 0))
        self.sole = model.geom_pos[spheres].mean(axis=0)  # in the foot body's frame, m
        self.sole[2] -= model.geom_size[spheres, 0].mean()

    def forward(self, joints: Array) -> tuple[Array, Array]:
        """Position (3,), m, of the sole and orientation (3, 3) of the foot in the base frame."""
        position, rotation, _ = self._chain(joints)
        return position, rotation

    def inverse(self, position: Array, rotation: Array, start: Array) -> Array:
        """Joints (6,), rad, inside their limits, that bring the sole to a position (3,), turned (3, 3).

        Newton's method from ``start`` (6,); out of reach it ends near the closest pose.
        """
        joints = start.copy()
        for _ in range(_ITERATIONS):
            at, orientation, jacobian = self._chain(joints)
            turn = _rotation_vector(rotation @ orientation.T)
            error = np.concatenate([position - at, turn])
            if np.abs(error).max() < 1e-6:
                break
            normal = jacobian.T @ jacobian + _DAMPING * np.eye(6)
            step = np.linalg.solve(normal, jacobian.T @ error)
            joints = np.clip(joints + np.clip(step, -_MAX_STEP, _MAX_STEP), self._lower, self._upper)
        return joints

    def support(self, joints: Array, ahead: Array, force: Array) -> Array:
        """Joint efforts (6,), N m, that carry a force (3,), N, at sole + ``ahead`` (3,), m; base frame."""
        jacobian = self._chain(joints)[2]
        moved = jacobian[:3] - _skew(ahead) @ jacobian[3:]
        return -moved.T @ force

    def _chain(self, joints: Array) -> tuple[Array, Array, Array]:
        """Sole, orientation and the geometric Jacobian (6, 6): linear rows first."""
        sines, cosines = np.sin(joints)[:, None, None], np.cos(joints)[:, None, None]
        hinges = np.eye(3) + sines * self._cross + (1.0 - cosines) * self._square  # Rodrigues
        position, rotation = np.zeros(3), np.eye(3)
        origins, axes = np.empty((6, 3)), np.empty((6, 3))
        for index in range(6):
            position = position + rotation @ self._offsets[index]
            rotation = rotation @ self._turns[index]
            origins[index], axes[index] = position, rotation @ self._axes[index]
            rotation = rotation @ hinges[index]
        position = position + rotation @ (self._offsets[6] + self._turns[6] @ self.sole)
        rotation = rotation @ self._turns[6]
        levers = position - origins
        linear = axes[:, [1, 2, 0]] * levers[:, [2, 0, 1]] - axes[:, [2, 0, 1]] * levers[:, [1, 2, 0]]
        return position, rotation, np.concatenate([linear.T, axes.T])


def _matrix(quaternion_wxyz: Array) -> Array:
    result = np.zeros(9)
    mujoco.mju_quat2Mat(result, quaternion_wxyz)
    return result.reshape(3, 3)


def _skew(axis: Array) -> Array:
    """The matrix (3, 3) of the cross product with ``axis``."""
    x, y, z = axis
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def _rotation_vector(rotation: Array) -> Array:
    """Axis times angle (3,), rad, of a rotation below pi."""
    vector = 0.5 * np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    sine = np.linalg.norm(vector)
    if sine < 1e-12:
        return vector
    return vector / sine * np.arctan2(sine, 0.5 * (np.trace(rotation) - 1.0))
