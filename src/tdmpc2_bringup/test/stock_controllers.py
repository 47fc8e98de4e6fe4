"""What ros2_control does with commands, step by step: the trajectory controller's sampling and the limiter.

Written after the rules of joint_trajectory_controller (positions only, splines, header stamp zero, joints in
the controller's order) and of the joint limiter that enforce_command_limits puts behind every position
command, so that the suite can be measured without a ROS installation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.robots.trajectory import Trajectory

Array = NDArray[np.float64]
OUT_OF_BOUNDS = 0.0087
"""rad beyond a limit at which the limiter throws, which ends the controller."""


class TrajectoryController:
    """joint_trajectory_controller: `receive` at any time, then `update` once per period of the manager.

    A trajectory counts from the update that samples it first. At that update a point is put before it: the
    last command at the time of the last update where it interpolates from the desired state, the measured
    position at the present time where it does not. What an update commands is the sample one period ahead.
    """

    def __init__(self, position: Array, period: float, from_desired: bool) -> None:
        self._period, self._from_desired = period, from_desired
        self._commanded, self._commanded_at = position.copy(), None  # as at activation
        self._waiting: Trajectory | None = None
        self._points = position[None].copy()
        self._times = np.zeros(1)

    def receive(self, trajectory: Trajectory) -> None:
        """A message came; the update that follows takes it up."""
        self._waiting = trajectory

    def update(self, now: float, measured: Array) -> Array:
        """The command of this update (J,)."""
        if self._waiting is not None:
            self._take_up(self._waiting, now, measured)
            self._waiting = None
        self._commanded, self._commanded_at = self._sample(now + self._period), now
        return self._commanded.copy()

    def _take_up(self, trajectory: Trajectory, now: float, measured: Array) -> None:
        before, at = measured, now
        if self._from_desired:
            before, at = self._commanded, now if self._commanded_at is None else self._commanded_at
        self._points = np.concatenate([before[None], trajectory.points])
        self._times = np.concatenate([[at], now + trajectory.times])

    def _sample(self, time: float) -> Array:
        """Linear between neighbouring points, which is what the splines are without velocities."""
        times, points = self._times, self._points
        after = int(np.searchsorted(times, time, side="right"))
        if after >= len(times):
            return points[-1].copy()
        if after == 0:
            return points[0].copy()
        share = (time - times[after - 1]) / (times[after] - times[after - 1])
        return points[after - 1] + share * (points[after] - points[after - 1])


class Limiter:
    """The limiter of the joints' URDF limits: position, and velocity by the distance from the last command.

    Attributes:
        limited: updates at which a command was changed, each a line "... is out of limits" in the log.
        overtravel: rad, the furthest that a joint was measured outside its limits.
    """

    def __init__(self, lower: Array, upper: Array, velocity: Array) -> None:
        self._lower, self._upper, self._velocity = lower, upper, velocity
        self._before: Array | None = None
        self.limited, self.overtravel = 0, 0.0

    @property
    def throws(self) -> bool:
        """Whether it has thrown, upon which the controller is left unconfigured."""
        return self.overtravel > OUT_OF_BOUNDS

    def enforce(self, command: Array, measured: Array, period: float) -> Array:
        """What reaches the drives (J,)."""
        outside = np.maximum(self._lower - measured, measured - self._upper)
        self.overtravel = max(self.overtravel, float(outside.max()))
        before = measured if self._before is None else self._before
        step = self._velocity * period
        low = np.maximum(np.minimum(before - step, self._upper), self._lower)
        high = np.minimum(np.maximum(before + step, low), self._upper)
        self.limited += bool(((command < low) | (command > high)).any())
        self._before = np.clip(command, low, high)
        return self._before.copy()


class ForwardController:
    """forward_command_controller: the newest command, for ever."""

    def __init__(self, position: Array) -> None:
        self._command = position.copy()

    def receive(self, trajectory: Trajectory) -> None:
        """The first row is what the planner sends it."""
        self._command = trajectory.points[0].copy()

    def update(self, now: float, measured: Array) -> Array:
        """The command of this update (J,)."""
        return self._command.copy()
