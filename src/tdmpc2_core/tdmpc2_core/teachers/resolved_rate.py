"""Scripted controller of arms: resolved-rate motion by damped least squares, which seeds a replay buffer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tdmpc2_core.config import from_mapping, setting
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.reach import resolved_rate

if TYPE_CHECKING:
    from tdmpc2_core.envs.robot.env import RobotEnv


@dataclass(frozen=True)
class ResolvedRateSettings:
    """Keys of a ``demonstration`` section of kind ``resolved_rate``."""

    gain: float = setting(unit="1/s", above=0, why="tool velocity per error")
    posture_gain: float = setting(0.0, unit="1/s", low=0, why="pull to the default pose where it is free")


class ResolvedRate:
    """Joint targets that take the tool to its goal, and the joints to the default pose where that is free.

    It steers the targets, not the measured joints: what the drives lag behind does not make it overshoot.

    Raises:
        UserError: the embodiment takes no goals or its actions are not steps, or a key is wrong.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        spec = embodiment.demonstration
        if spec is None or embodiment.pose_command is None or embodiment.action.kind != "delta":
            raise UserError(
                f"{embodiment.name}: resolved_rate needs the section `demonstration`, command.kind pose and "
                "action.kind delta"
            )
        self._settings = from_mapping(ResolvedRateSettings, spec.params, f"{embodiment.name}: demonstration")
        self._chain, self._period = embodiment.chain, embodiment.control_period
        self._default, self._scale = embodiment.default_position, embodiment.action_scale

    def reset(self) -> None:
        """Nothing is kept between decisions."""

    def act(self, env: RobotEnv) -> np.ndarray:
        """Joint targets (J,), rad, for the environment's goal and the targets before."""
        return self.targets(env.targets, env.assembler.command)

    def targets(self, before: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Joint targets (J,), rad, after those before, towards a goal (7,). A step longer than an action can
        ask for is shortened as a whole, so that its direction is kept."""
        step, free = resolved_rate(self._chain, before, goal)
        posture = free @ (self._settings.posture_gain * (self._default - before))
        step = self._period * (self._settings.gain * step + posture)
        return before + step / max(1.0, float(np.abs(step / self._scale).max()))
