"""Scripted trot for quadrupeds: the demonstrations that seed a replay buffer.

Feet follow a half-ellipse in the hip frame; joint targets come from the closed-form inverse kinematics of a
hip-thigh-calf leg. Open loop: it reads the command and the gait phase, never the robot's state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdmpc2_core.config import from_mapping, setting
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment

if TYPE_CHECKING:
    from tdmpc2_core.envs.robot.env import RobotEnv


@dataclass(frozen=True)
class TrotSettings:
    """Keys of a ``demonstration`` section of kind ``trot``; duty and foot order are the clock's."""

    hip_x: float = setting(unit="m", above=0, why="hip joints ahead of and behind the trunk centre")
    hip_y: float = setting(unit="m", above=0, why="hip joints to the side of the trunk centre")
    hip_offset: float = setting(unit="m", above=0, why="hip joint to thigh plane")
    thigh_length: float = setting(unit="m", above=0, why="thigh joint to knee")
    calf_length: float = setting(unit="m", above=0, why="knee to foot")
    swing_height: float = setting(0.08, unit="m", above=0, why="height of a foot at mid swing")
    stance_press: float = setting(0.0, unit="m", low=0, why="pressing down of a loaded foot, against sag")
    phase_lead: float = setting(0.0, unit="cycles", why="lead of the feet over the gait phase")
    stride_gain: float = setting(1.0, above=0, why="stride per commanded stride, against slip and lag")
    velocity_bias: float = setting(0.0, unit="m/s", why="added to the forward command")


class TrotGait:
    """Joint targets of a trot as a function of command and gait phase.

    Joint order must be (hip, thigh, calf) for FL, FR, RL, RR; the leg geometry comes from the embodiment's
    ``demonstration`` section (m).

    Raises:
        UserError: the embodiment lacks the section ``demonstration`` or ``clock``, or a key of it is wrong.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        spec, clock = embodiment.demonstration, embodiment.clock
        if spec is None or clock is None:
            raise UserError(f"{embodiment.name}: a trot needs the sections `demonstration` and `clock`")
        self._clock = clock
        settings = from_mapping(TrotSettings, spec.params, f"{embodiment.name}: demonstration")
        self._spec = settings
        self._period = 1.0 / clock.frequency
        self._side = np.array([1.0, -1.0, 1.0, -1.0])
        self._hips = (
            np.array([1.0, 1.0, -1.0, -1.0]) * settings.hip_x,
            self._side * (settings.hip_y + settings.hip_offset),
        )
        self._default = embodiment.default_position.reshape(4, 3)
        self._nominal = self.forward_kinematics(self._default)

    def reset(self) -> None:
        """Nothing is kept between decisions."""

    def act(self, env: RobotEnv) -> np.ndarray:
        """Joint targets (12,), rad, for the environment's present command and gait phase."""
        return self.targets(env.assembler.command, env.assembler.phase or 0.0)

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
