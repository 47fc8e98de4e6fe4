"""The tool of a simulated arm: its pose, forces on it, and the marker of its goal."""

from __future__ import annotations

import mujoco
import numpy as np

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.rotations import from_matrix, rotate, to_matrix, xyzw_to_wxyz


class Tool:
    """The site or body that the pose command of an embodiment names.

    Raises:
        UserError: the robot model has neither.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, embodiment: Embodiment) -> None:
        assert embodiment.pose_command is not None
        name = embodiment.pose_command.tool
        self._data = data
        site = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, name)
        body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
        if max(site, body) < 0:
            raise UserError(f"{embodiment.model_path}: no site or body named {name!r}, the embodiment's tool")
        self._element = data.site(site) if site >= 0 else data.body(body)
        self._body = int(model.site_bodyid[site]) if site >= 0 else body
        goal = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, "goal")
        self._marker = int(model.body_mocapid[goal]) if goal >= 0 else -1
        self._force, self._until = np.zeros(3), 0.0

    def pose(self, base_position: np.ndarray, base_orientation: np.ndarray) -> np.ndarray:
        """Position (m) and quaternion xyzw (7,) relative to a base given in the world (m, xyzw)."""
        base = to_matrix(base_orientation)
        position = base.T @ (self._element.xpos - base_position)
        return np.concatenate([position, from_matrix(base.T @ self._element.xmat.reshape(3, 3))])

    def push(self, force: np.ndarray, seconds: float) -> None:
        """Force (3,), N, world frame, at the tool's origin from now on for ``seconds``."""
        self._force, self._until = np.array(force, dtype=np.float64), self._data.time + seconds

    def apply_force(self) -> None:
        """Hand the present force to the next physics step; called before each."""
        if not self._until:
            return
        force = self._force
        if self._data.time >= self._until:
            force, self._until = np.zeros(3), 0.0
        arm = self._element.xpos - self._data.xipos[self._body]
        self._data.xfrc_applied[self._body] = np.concatenate([force, np.cross(arm, force)])

    def show_goal(self, pose: np.ndarray, base_position: np.ndarray, base_orientation: np.ndarray) -> None:
        """Move the mocap body `goal`, where the model has one, to a pose (7,) in the base frame."""
        if self._marker < 0:
            return
        self._data.mocap_pos[self._marker] = base_position + rotate(base_orientation, pose[:3])
        rotation = to_matrix(base_orientation) @ to_matrix(pose[3:])
        self._data.mocap_quat[self._marker] = xyzw_to_wxyz(from_matrix(rotation))
