"""The true state of a biped in simulation, as its scripted controller wants it."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.envs.leg import Leg
from tdmpc2_core.envs.simulation import Simulation

Array = NDArray[np.float64]


class BipedState:
    """One instant, in the world frame; SI units. ``heading`` (2, 2) turns vectors of the heading frame."""

    def __init__(self, simulation: Simulation, legs: list[Leg]) -> None:
        model, data = simulation.model, simulation.data
        mujoco.mj_subtreeVel(model, data)
        body = model.body(simulation.embodiment.base_frame).id
        rotation = data.xmat[body].reshape(3, 3)
        self.yaw = float(np.arctan2(rotation[1, 0], rotation[0, 0]))
        self.heading = about_z(self.yaw)[:2, :2]
        self.rotation = rotation.copy()
        self._level = about_z(self.yaw).T @ rotation
        self.base, self.base_velocity = data.xpos[body].copy(), data.qvel[:3].copy()
        feet = [data.xmat[leg.body].reshape(3, 3) for leg in legs]
        self.soles = np.array(
            [data.xpos[leg.body] + foot @ leg.sole for leg, foot in zip(legs, feet, strict=True)]
        )
        self.foot_yaw = [float(np.arctan2(foot[1, 0], foot[0, 0])) for foot in feet]
        self.middle = self.soles[:, :2].mean(axis=0)
        self.centre = centre = data.subtree_com[body].copy()
        gravity = -float(model.opt.gravity[2])
        self.omega = float(np.sqrt(gravity / max(centre[2], 0.1)))
        self.velocity = data.subtree_linvel[body, :2].copy()  # of the centre of mass
        self.capture = centre[:2] + self.velocity / self.omega
        self.lean = self.heading.T @ (self.capture - self.middle)  # capture point from the middle of the feet
        self.base_ahead = float((self.heading.T @ (self.base[:2] - centre[:2]))[0])
        self.weight = float(model.body_subtreemass[body]) * gravity

    def tilt(self, share: float) -> Array:
        """Rotation (3, 3) by a share of the trunk's roll and pitch."""
        pitch = np.arcsin(np.clip(-self._level[2, 0], -1.0, 1.0))
        roll = np.arctan2(self._level[2, 1], self._level[2, 2])
        sp, cp, sr, cr = (
            np.sin(share * pitch),
            np.cos(share * pitch),
            np.sin(share * roll),
            np.cos(share * roll),
        )
        return np.array([[cp, sp * sr, sp * cr], [0.0, cr, -sr], [-sp, cp * sr, cp * cr]])


def about_z(angle: float) -> Array:
    """Rotation (3, 3) about the vertical."""
    s, c = np.sin(angle), np.cos(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
