"""How a legged robot moved, from its joints and its IMU alone: base velocity, height, feet.

A foot that carries the robot stands still, so that the base moves against it as the leg says (leg odometry).
Feet within a centimetre of the lowest one count as standing; the ground is taken to be level with them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.kinematics import mounting, read_foot
from tdmpc2_core.robots.rotations import cross

Array = NDArray[np.float64]

_STANDING = 0.01  # m above the lowest foot
_TOUCHING = 0.003  # m above the ground, as in simulation


class Motion(NamedTuple):
    """At T instants, in the base frame, m and m/s."""

    velocity: Array  # (T, 3) of the base, mean over standing feet
    spread: Array  # (T,) standard deviation between them; NaN where one foot stands
    depth: Array  # (T, F) of each foot's lowest point below the base, along gravity

    @property
    def height(self) -> Array:
        """(T,) of the base above the lowest foot."""
        return np.asarray(self.depth.max(axis=1))

    def feet(self, base_height: Array | None = None) -> tuple[Array, NDArray[np.bool_]]:
        """Heights above the ground (T, F), and which touch it; `base_height` (T,) where it is known."""
        height = (self.height if base_height is None else base_height)[:, None] - self.depth
        return height, height < _TOUCHING

    def uncertainty(self) -> float:
        """Root mean square of the spread, m/s; NaN where never two feet stood."""
        known = self.spread[np.isfinite(self.spread)]
        return float(np.sqrt(np.mean(known**2))) if len(known) else math.nan


class Legs:
    """Kinematics of the feet that the embodiment's clock names. Raises UserError where there are none."""

    def __init__(self, robot: Embodiment) -> None:
        if robot.clock is None or not robot.clock.feet:
            raise UserError(f"{robot.name}: clock.feet names no foot")
        self._feet = [
            read_foot(robot.model_path, robot.base_frame, foot, robot.joint_names)
            for foot in robot.clock.feet
        ]

    def motion(self, position: Array, velocity: Array, gyro: Array, gravity: Array) -> Motion:
        """From joints (T, J), rad and rad/s, angular velocity (T, 3), rad/s, and unit vector down (T, 3)."""
        estimates, depths = [], []
        for foot in self._feet:
            origin, rotation, jacobian = foot.chain.differential(position)
            arms = np.einsum("tij,nj->tni", rotation, foot.centres)
            depth = np.einsum("tni,ti->tn", origin[:, None] + arms, gravity) + foot.radius
            lowest = depth.argmax(axis=1)[:, None]
            depths.append(np.take_along_axis(depth, lowest, axis=1)[:, 0])
            arm = np.take_along_axis(arms, lowest[..., None], axis=1)[:, 0] + foot.radius * gravity
            turning = np.einsum("tij,tj->ti", jacobian, velocity)
            moving = turning[:, :3] + cross(turning[:, 3:], arm) + cross(gyro, origin + arm)
            estimates.append(-moving)
        each, depth = np.stack(estimates, axis=1), np.stack(depths, axis=1)
        standing = (depth > depth.max(axis=1, keepdims=True) - _STANDING)[..., None]
        count = standing.sum(axis=1)
        mean = (each * standing).sum(axis=1) / count
        variance = (np.square(each - mean[:, None]) * standing).sum(axis=(1, 2)) / np.maximum(
            count[:, 0] - 1, 1
        )
        return Motion(mean, np.where(count[:, 0] > 1, np.sqrt(variance), np.nan), depth)


def imu_rotation(robot: Embodiment) -> tuple[Array, str]:
    """From the IMU's frame into the base's (3, 3); and a note where the model does not say."""
    if robot.imu_frame is None:
        return np.eye(3), ""
    try:
        return mounting(robot.model_path, robot.base_frame, robot.imu_frame), ""
    except UserError as problem:
        return np.eye(3), f"imu: taken to be aligned with the base ({problem})"
