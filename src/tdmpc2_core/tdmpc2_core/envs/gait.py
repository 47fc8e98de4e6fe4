"""Scripted trot for quadrupeds: the demonstrations that seed a replay buffer.

Feet follow a half-ellipse in the hip frame; joint targets come from the closed-form inverse kinematics of a
hip-thigh-calf leg. Open loop: it reads the command and the gait phase, never the robot's state.
"""

from __future__ import annotations

import numpy as np

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment


class TrotGait:
    """Joint targets of a trot as a function of command and gait phase.

    Joint order must be (hip, thigh, calf) for FL, FR, RL, RR; the leg geometry comes from the embodiment's
    ``demonstration`` section (m).

    Raises:
        UserError: the embodiment lacks the section ``demonstration`` or ``clock``.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        spec, clock = embodiment.demonstration, embodiment.clock
        if spec is None or clock is None:
            raise UserError(f"{embodiment.name}: a trot needs the sections `demonstration` and `clock`")
        self._spec, self._clock = spec, clock
        self._period = 1.0 / clock.frequency
        self._side = np.array([1.0, -1.0, 1.0, -1.0])
        self._hips = (
            np.array([1.0, 1.0, -1.0, -1.0]) * spec.hip_x,
            self._side * (spec.hip_y + spec.hip_offset),
        )
        self._default = embodiment.default_position.reshape(4, 3)
        self._nominal = self.forward_kinematics(self._default)

    def targets(self, command: np.ndarray, phase: float) -> np.ndarray:
        """Joint targets (12,), rad, for a command (vx m/s, vy m/s, yaw rate rad/s) and a phase in [0, 1)."""
        if not np.any(command):
            return self._default.reshape(-1).copy()
        duty, lift = self._clock.duty, self._spec.swing_height
        x_hip, y_hip = self._hips
        stride = np.stack(
            [command[0] + self._spec.velocity_bias - command[2] * y_hip, command[1] + command[2] * x_hip]
        )
        stride *= duty * self._period * self._spec.stride_gain
        leg_phase = (phase + self._spec.phase_lead + np.asarray(self._clock.offsets)) % 1.0
        stance = leg_phase < duty
        swing = np.clip((leg_phase - duty) / (1.0 - duty), 0.0, 1.0)
        along = np.where(stance, 0.5 - leg_phase / duty, -0.5 * np.cos(np.pi * swing))
        foot = self._nominal.copy()
        foot[:, 0] += stride[0] * along
        foot[:, 1] += stride[1] * along
        foot[:, 2] += np.where(stance, -self._spec.stance_press, lift * np.sin(np.pi * swing))
        return self.inverse_kinematics(foot).reshape(-1)

    def forward_kinematics(self, joints: np.ndarray) -> np.ndarray:
        """Foot positions (4, 3) in the hip frames, m, of leg joints (4, 3), rad."""
        spec = self._spec
        hip, thigh, calf = joints.T
        x = -(spec.thigh_length * np.sin(thigh) + spec.calf_length * np.sin(thigh + calf))
        reach = spec.thigh_length * np.cos(thigh) + spec.calf_length * np.cos(thigh + calf)
        offset = self._side * spec.hip_offset
        y = offset * np.cos(hip) + reach * np.sin(hip)
        z = offset * np.sin(hip) - reach * np.cos(hip)
        return np.stack([x, y, z], axis=1)

    def inverse_kinematics(self, foot: np.ndarray) -> np.ndarray:
        """Leg joints (4, 3), rad, that bring the feet to (4, 3), m; targets out of reach go to its limit."""
        spec = self._spec
        x, y, z = foot.T
        offset = self._side * spec.hip_offset
        reach = np.sqrt(np.maximum(y**2 + z**2 - offset**2, 1e-6))
        hip = np.arctan2(z, y) - np.arctan2(-reach, offset)
        hip = (hip + np.pi) % (2.0 * np.pi) - np.pi
        l1, l2 = spec.thigh_length, spec.calf_length
        cosine = np.clip((x**2 + reach**2 - l1**2 - l2**2) / (2.0 * l1 * l2), -1.0, 1.0)
        calf = -np.arccos(cosine)
        thigh = np.arctan2(-x, reach) - np.arctan2(l2 * np.sin(calf), l1 + l2 * np.cos(calf))
        return np.stack([hip, thigh, calf], axis=1)
