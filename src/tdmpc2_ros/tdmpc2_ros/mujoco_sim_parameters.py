"""Parameters of the simulation node."""

from __future__ import annotations

from dataclasses import dataclass

from tdmpc2_core.config import setting
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_ros.mujoco_sim_robot import RobotOptions, TimeoutAction


@dataclass(frozen=True)
class SimulationSettings:
    """All of them are read-only: they are given at start."""

    robot: str = setting("quadruped", why="shipped robot's name, or path of a folder with embodiment.yaml")
    prefix: str = setting("", why="before every joint and frame name in messages, such as left_")
    sensor_rate: float = setting(
        100.0,
        unit="Hz",
        low=1.0,
        high=1000.0,
        why="joint_states, imu and odometry; a multiple of the robot's control rate",
    )
    publish_clock: bool = setting(False, why="publish /clock and stamp everything with simulated time")
    real_time_factor: float = setting(
        1.0,
        low=0.0,
        high=100.0,
        why="simulated seconds per second, 0 for as fast as possible; other than 1 needs publish_clock",
    )
    sensor_noise: bool = setting(True, why="add the noise of the robot's observation terms to the sensors")
    randomise: bool = setting(False, why="draw friction, mass and gains in the robot's ranges at every reset")
    reset_noise: bool = setting(False, why="start with the robot's reset noise and a random heading")
    seed: int = setting(0, low=0, high=2**31 - 1, why="seed of noise and randomisation")
    command_timeout: float = setting(
        RobotOptions.command_timeout,
        unit="s",
        low=0.02,
        high=60.0,
        why="silence after the end of the last command that leads to timeout_action",
    )
    timeout_action: TimeoutAction = setting(
        "auto",
        why="hold the last position, stand in the default pose, or auto: stand if the robot can fall",
    )
    view: bool = setting(False, why="open MuJoCo's viewer; needs a display")

    def __post_init__(self) -> None:
        if self.real_time_factor != 1.0 and not self.publish_clock:
            raise ValueError(
                "real_time_factor other than 1 needs publish_clock, as stamps must follow the clock"
            )

    def load_embodiment(self) -> Embodiment:
        """The robot, checked against the sensor rate. Raises UserError."""
        embodiment = Embodiment.load(self.robot)
        steps = self.sensor_rate / embodiment.control_rate
        whole = round(steps) >= 1 and abs(steps - round(steps)) < 1e-6
        if not whole or self.sensor_rate > embodiment.physics_rate:
            raise UserError(
                f"parameters of mujoco_sim: sensor_rate is {self.sensor_rate:g} Hz; for {embodiment.name} "
                f"it must be a multiple of {embodiment.control_rate:g} Hz, "
                f"at most {embodiment.physics_rate:g} Hz"
            )
        return embodiment

    @property
    def robot_options(self) -> RobotOptions:
        """The part that the simulated robot needs."""
        return RobotOptions(
            self.sensor_noise, self.randomise, self.reset_noise, self.command_timeout, self.timeout_action
        )
