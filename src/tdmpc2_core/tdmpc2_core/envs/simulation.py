"""The name under which programs written for the first layout of this package import the robot simulation."""

from tdmpc2_core.envs.robot.simulation import Simulation

__all__ = ["Simulation"]
