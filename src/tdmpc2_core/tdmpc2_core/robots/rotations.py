"""Quaternion helpers; the only place in the suite that knows about component order.

ROS messages (geometry_msgs/Quaternion) are ordered x, y, z, w; MuJoCo and most robotics papers w, x, y, z.
All other code handles x, y, z, w and calls the two converters at its border. An orientation rotates body
vectors into the world (REP-103: x forward, y left, z up; REP-145: IMU orientation with respect to a fixed
frame whose z points up).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_NEXT, _LAST = [1, 2, 0], [2, 0, 1]


def wxyz_to_xyzw(quaternion: ArrayLike) -> Array:
    """MuJoCo order to ROS order; (..., 4) to a new (..., 4)."""
    return np.asarray(quaternion, dtype=np.float64)[..., [1, 2, 3, 0]]


def xyzw_to_wxyz(quaternion: ArrayLike) -> Array:
    """ROS order to MuJoCo order; (..., 4) to a new (..., 4)."""
    return np.asarray(quaternion, dtype=np.float64)[..., [3, 0, 1, 2]]


def gravity_direction(quaternion_xyzw: ArrayLike) -> Array:
    """The world's down direction seen from the body: (..., 4) to unit vectors (..., 3).

    Upright gives (0, 0, -1). The quaternion need not be normalised, but must not be zero.
    """
    q = np.asarray(quaternion_xyzw, dtype=np.float64)
    x, y, z, w = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    xx, yy, zz, ww = x * x, y * y, z * z, w * w
    norm = xx + yy + zz + ww
    result = np.empty(q.shape[:-1] + (3,))
    result[..., 0] = 2.0 * (w * y - x * z) / norm
    result[..., 1] = -2.0 * (y * z + w * x) / norm
    result[..., 2] = (xx + yy - zz - ww) / norm
    return result


def tilt(quaternion_xyzw: ArrayLike) -> Any:
    """Angles (...), rad, of the body's z axis from the vertical, of orientations in the world (..., 4)."""
    return np.arccos(np.clip(-gravity_direction(quaternion_xyzw)[..., 2], -1.0, 1.0))


def yaw(quaternion_xyzw: ArrayLike) -> Array:
    """Heading about the world's z axis, counter-clockwise (REP-103): (..., 4) to rad (...,) in [-pi, pi]."""
    q = np.asarray(quaternion_xyzw, dtype=np.float64)
    x, y, z, w = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    return np.arctan2(2.0 * (w * z + x * y), w * w + x * x - y * y - z * z)


def turn_between(before_xyzw: ArrayLike, after_xyzw: ArrayLike) -> float:
    """Turn about the world's z axis from one orientation (4,) to another, rad in [-pi, pi].

    It does not depend on how the sensor that measured both is mounted: the twist of the rotation between them
    (swing-twist decomposition).
    """
    x, y, z, w = map(float, np.asarray(before_xyzw, dtype=np.float64))
    a, b, c, d = map(float, np.asarray(after_xyzw, dtype=np.float64))
    return wrapped(2.0 * math.atan2(c * w - d * z - a * y + b * x, d * w + a * x + b * y + c * z))


def wrapped(angle: float) -> float:
    """The same angle (rad) in [-pi, pi]."""
    return math.remainder(angle, 2.0 * math.pi)


def rotate(quaternion_xyzw: ArrayLike, vector: ArrayLike) -> Array:
    """Body vectors (..., 3) expressed in the world, for unit quaternions (..., 4)."""
    q, v = np.asarray(quaternion_xyzw, dtype=np.float64), np.asarray(vector, dtype=np.float64)
    axis, w = q[..., :3], q[..., 3:]
    twist = 2.0 * np.cross(axis, v)
    return v + w * twist + np.cross(axis, twist)


def into_frame(matrix: ArrayLike, vector: ArrayLike) -> Array:
    """World vectors (..., 3) expressed in frames of the rotation matrices (..., 3, 3) or (..., 9)."""
    v = np.asarray(vector, dtype=np.float64)
    m = np.asarray(matrix, dtype=np.float64).reshape(*v.shape, 3)
    return (m * v[..., None]).sum(-2)


def rotate_inverse(quaternion_xyzw: ArrayLike, vector: ArrayLike) -> Array:
    """World vectors (..., 3) expressed in the body, for unit quaternions (..., 4)."""
    q = np.asarray(quaternion_xyzw, dtype=np.float64)
    return rotate(np.concatenate([-q[..., :3], q[..., 3:]], axis=-1), vector)


def to_roll_pitch_yaw(quaternion_xyzw: ArrayLike) -> Array:
    """Fixed-axis roll, pitch, yaw (..., 3), rad, of unit quaternions (..., 4); yaw is 0 at pitch +-90 deg."""
    x, y, z, w = np.moveaxis(np.asarray(quaternion_xyzw, dtype=np.float64), -1, 0)
    forward = (1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y))  # body x
    horizontal = np.hypot(forward[0], forward[1])
    regular = horizontal > 1e-9
    pitch = np.arctan2(-forward[2], horizontal)
    yaw_angle = np.where(regular, np.arctan2(forward[1], forward[0]), 0.0)
    left, up = 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)  # height of body y and z
    across = 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)  # world y of body y and z
    roll = np.where(regular, np.arctan2(left, up), np.arctan2(-across[1], across[0]))
    return np.stack([roll, pitch, yaw_angle], axis=-1)


def from_roll_pitch_yaw(roll: ArrayLike, pitch: ArrayLike, yaw: ArrayLike) -> Array:
    """Unit quaternions xyzw (..., 4) from fixed-axis roll, pitch, yaw in radians (REP-103 order)."""
    half = [np.asarray(a, dtype=np.float64) / 2.0 for a in (roll, pitch, yaw)]
    (sr, sp, sy), (cr, cp, cy) = [np.sin(h) for h in half], [np.cos(h) for h in half]
    return np.stack(
        [
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
            cr * cp * cy + sr * sp * sy,
        ],
        axis=-1,
    )


def skew(vector: ArrayLike) -> Array:
    """The matrix (3, 3) of the cross product with a vector (3,)."""
    x, y, z = np.asarray(vector, dtype=np.float64)
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def axis_angle_matrix(axis: ArrayLike, angle: ArrayLike) -> Array:
    """Rotation matrices (..., 3, 3) about one unit axis (3,) by angles (...), rad (Rodrigues)."""
    around = skew(axis)
    turn = np.asarray(angle, dtype=np.float64)[..., None, None]
    return np.eye(3) + np.sin(turn) * around + (1.0 - np.cos(turn)) * (around @ around)


def to_matrix(quaternion_xyzw: ArrayLike) -> Array:
    """Rotation matrices (..., 3, 3), body to world, of unit quaternions (..., 4)."""
    x, y, z, w = np.moveaxis(np.asarray(quaternion_xyzw, dtype=np.float64), -1, 0)
    rows = [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
        [2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)],
        [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def from_matrix(matrix: ArrayLike) -> Array:
    """Unit quaternions xyzw (..., 4), w not negative, of rotation matrices (..., 3, 3).

    Of the four equal candidates the one with the largest component is taken (Shepperd, 1978).
    """
    m = np.asarray(matrix, dtype=np.float64)
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    products = np.empty(m.shape[:-2] + (4, 4))  # 4 q q^T
    products[..., 0, 0], products[..., 1, 1] = 1.0 + xx - yy - zz, 1.0 - xx + yy - zz
    products[..., 2, 2], products[..., 3, 3] = 1.0 - xx - yy + zz, 1.0 + xx + yy + zz
    pairs = (
        (0, 1, m[..., 0, 1] + m[..., 1, 0]),
        (0, 2, m[..., 0, 2] + m[..., 2, 0]),
        (1, 2, m[..., 1, 2] + m[..., 2, 1]),
        (0, 3, m[..., 2, 1] - m[..., 1, 2]),
        (1, 3, m[..., 0, 2] - m[..., 2, 0]),
        (2, 3, m[..., 1, 0] - m[..., 0, 1]),
    )
    for i, j, value in pairs:
        products[..., i, j] = products[..., j, i] = value
    best = np.argmax(np.diagonal(products, axis1=-2, axis2=-1), axis=-1)
    q = np.take_along_axis(products, best[..., None, None], axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., 3:] < 0.0, -q, q)


def rotation_vector(matrix: ArrayLike) -> Array:
    """Axis times angle (..., 3), rad, length in [0, pi], of rotation matrices (..., 3, 3)."""
    q = from_matrix(matrix)
    sine = np.linalg.norm(q[..., :3], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, q[..., 3:])
    return q[..., :3] * np.where(sine > 1e-9, angle / np.maximum(sine, 1e-9), 2.0)


def cross(left: ArrayLike, right: ArrayLike) -> Array:
    """Cross products (..., 3); np.cross costs ten times as much for a single pair."""
    a, b = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    return a[..., _NEXT] * b[..., _LAST] - a[..., _LAST] * b[..., _NEXT]


def pose_error(position: ArrayLike, rotation: ArrayLike, goal: ArrayLike) -> tuple[Array, Array]:
    """From a pose, position (..., 3) and matrix (..., 3, 3), to a goal (..., 7) of position and quaternion
    xyzw in the same frame: offset (..., 3) and rotation vector (..., 3), rad, seen from the pose."""
    goal = np.asarray(goal, dtype=np.float64)
    inverse = np.swapaxes(np.asarray(rotation, dtype=np.float64), -1, -2)
    offset = (inverse @ (goal[..., :3] - np.asarray(position, dtype=np.float64))[..., None])[..., 0]
    return offset, rotation_vector(inverse @ to_matrix(goal[..., 3:]))
