"""HeadingHold: the heading that a robot was told to keep, as a bounded correction of its commanded yaw rate.

A policy follows a yaw rate with some error, and a heading is the sum of all errors. The commanded rate is
summed up into a wanted heading; what the IMU's heading lacks of it, times a gain, is added to the command.
Only turns since the command began are used, so that magnetic north, an IMU's mounting and its start do not
matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.robots.rotations import turn_between, wrapped

if TYPE_CHECKING:
    from tdmpc2_core.robots.embodiment import Embodiment

Array = NDArray[np.float64]

MOST = 0.3
"""rad/s, largest correction."""
_LARGEST_ERROR = 1.0  # rad, likewise where the gain is small
_JUMP = 0.3  # rad from one decision to the next: no robot turns so fast, its IMU's filter does
_GAP = 0.1  # s between decisions: some may be missed, a robot that was blind for longer stands elsewhere


class HeadingHold:
    """The wanted heading of one robot. `correct` is called once per decision.

    It starts anew after a zero command, a gap between decisions, a jump of the IMU, and without an IMU.

    Attributes:
        gain: 1/s; 0 corrects nothing.
    """

    def __init__(self, embodiment: Embodiment, gain: float) -> None:
        spec = embodiment.twist_command
        names = spec.names if spec else ()
        self._place = names.index("angular_z") if "angular_z" in names else None
        self._lower, self._upper = spec.limits if spec else (np.zeros(0), np.zeros(0))
        self._longest = max(_GAP, 1.5 * embodiment.control_period)
        self.gain = gain
        self._start: Array | None = None  # orientation that headings count from
        self._heading = self._wanted = self._time = 0.0  # rad, rad, s: at the last decision

    def restart(self) -> None:
        """The next decision's heading is the wanted one."""
        self._start = None

    def correct(self, command: Array, imu: Any, now: float) -> None:
        """Add the correction to a command (C,) in force, inside its range.

        Args:
            command: m/s, rad/s; zero where the robot is to stand. Changed in place.
            imu: newest sample, with `orientation` xyzw (4,); None where there is none.
            now: s, of the decision.
        """
        place = self._place
        if place is None or imu is None or not self.gain or not np.count_nonzero(command):
            self.restart()
            return
        asked = float(command[place])
        correction = self._correction(asked, imu.orientation, now)
        if correction:
            command[place] = min(max(asked + correction, self._lower[place]), self._upper[place])

    def _correction(self, asked: float, orientation: Array, now: float) -> float:
        seconds = now - self._time
        self._time = now
        if self._start is None or not 0.0 <= seconds <= self._longest:
            return self._begin(orientation)
        heading = turn_between(self._start, orientation)
        if abs(wrapped(heading - self._heading)) > _JUMP:
            return self._begin(orientation)
        most = min(MOST / self.gain, _LARGEST_ERROR)  # of the error: a robot that was held does not spin
        error = wrapped(self._wanted + asked * seconds - heading)
        error = min(max(error, -most), most)
        self._heading, self._wanted = heading, heading + error
        return min(max(self.gain * error, -MOST), MOST)

    def _begin(self, orientation: Array) -> float:
        self._start, self._heading, self._wanted = orientation, 0.0, 0.0
        return 0.0
