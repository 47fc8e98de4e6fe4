"""MuJoCo's viewer beside the simulation node."""

from __future__ import annotations

import os
import sys

from rclpy.impl.rcutils_logger import RcutilsLogger

from tdmpc2_ros.simulator.robot import SimulatedRobot

_PERIOD = 1.0 / 30.0  # s between two pictures


class Viewer:
    """A window where there is a display; elsewhere one warning and nothing more."""

    def __init__(self, robot: SimulatedRobot, logger: RcutilsLogger) -> None:
        self._robot, self._handle, self._next = robot, None, 0.0
        display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        if sys.platform.startswith("linux") and not display:
            logger.warning("view: no display here, so there is no window; the simulation runs on")
            return
        try:
            import mujoco.viewer

            self._handle = mujoco.viewer.launch_passive(robot.simulation.model, robot.simulation.data)
        except Exception as error:  # whatever fails in a driver or window system
            logger.warning(f"view: the window cannot be opened ({error}); the simulation runs on")

    def update(self, now: float) -> None:
        """Show the present state, at most 30 times a second."""
        if self._handle is None or now < self._next:
            return
        self._next = now + _PERIOD
        if self._handle.is_running():
            with self._robot.lock:
                self._handle.sync()

    def close(self) -> None:
        """Close the window."""
        if self._handle is not None:
            self._handle.close()
