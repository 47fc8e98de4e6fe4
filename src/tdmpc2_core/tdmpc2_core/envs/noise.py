"""Sensor noise for the simulation node, in the widths of an embodiment's observation terms.

Training adds the same widths in its observation assembler; here it is on what the sensors report.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.robots.embodiment import Embodiment

Array = NDArray[np.float64]


class SensorNoise:
    """Uniform noise whose half widths are the `noise` keys of the embodiment's observation terms."""

    def __init__(self, embodiment: Embodiment, rng: np.random.Generator) -> None:
        self._noise: dict[str, float] = {term.name: term.noise for term in embodiment.observation.terms}
        self._rng = rng

    def joints(self, position: Array, velocity: Array) -> tuple[Array, Array]:
        """Positions (J,), rad, and velocities (J,), rad/s, as encoders would report them."""
        return self._add(position, "joint_position"), self._add(velocity, "joint_velocity")

    def imu(self, orientation: Array, angular_velocity: Array) -> tuple[Array, Array]:
        """Orientation (xyzw, unit) and angular velocity (3,), rad/s, as an IMU would report them."""
        angular_velocity = self._add(angular_velocity, "gyro")
        orientation = self._add(orientation, "gravity", 0.5)
        return orientation / np.linalg.norm(orientation), angular_velocity

    def _add(self, values: Array, term: str, share: float = 1.0) -> Array:
        width = share * self._noise.get(term, 0.0)
        return values + width * self._rng.uniform(-1.0, 1.0, values.shape)
