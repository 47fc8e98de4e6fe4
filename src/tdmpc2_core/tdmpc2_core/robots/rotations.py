"""Quaternion helpers; the only place in the suite that knows about component order.

ROS messages (geometry_msgs/Quaternion) are ordered x, y, z, w; MuJoCo and most robotics papers w, x, y, z.
All other code handles x, y, z, w and calls the two converters at its border. An orientation rotates body
vectors into the world (REP-103: x forward, y left, z up; REP-145: IMU orientation with respect to a fixed
frame whose z points up).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


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


def yaw(quaternion_xyzw: ArrayLike) -> Array:
    """Heading about the world's z axis, counter-clockwise (REP-103): (..., 4) to rad (...,) in [-pi, pi]."""
    q = np.asarray(quaternion_xyzw, dtype=np.float64)
    x, y, z, w = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    return np.arctan2(2.0 * (w * z + x * y), w * w + x * x - y * y - z * z)


def rotate(quaternion_xyzw: ArrayLike, vector: ArrayLike) -> Array:
    """Body vectors (..., 3) expressed in the world, for unit quaternions (..., 4)."""
    q, v = np.asarray(quaternion_xyzw, dtype=np.float64), np.asarray(vector, dtype=np.float64)
    axis, w = q[..., :3], q[..., 3:]
    twist = 2.0 * np.cross(axis, v)
    return v + w * twist + np.cross(axis, twist)


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
