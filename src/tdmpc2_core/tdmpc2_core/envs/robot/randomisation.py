"""Domain randomisation and sensor noise of a simulated robot, in the ranges of its embodiment file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.terms import SOURCES


def randomise(simulation: Simulation, rng: np.random.Generator) -> float:
    """Draw friction, trunk mass and joint gains; returns the drawn delay from decision to command, s."""
    spec = simulation.embodiment.randomisation
    simulation.set_friction(rng.uniform(*spec.friction) if spec.friction else None)
    simulation.set_extra_mass(rng.uniform(*spec.base_mass))
    simulation.set_gains(rng.uniform(*spec.gain, simulation.embodiment.num_joints))
    return float(rng.uniform(*spec.delay))


def restore(simulation: Simulation) -> float:
    """The robot model's own friction, mass and gains; returns the mean delay of the embodiment, s."""
    simulation.set_friction(None)
    simulation.set_extra_mass(0.0)
    simulation.set_gains(np.ones(simulation.embodiment.num_joints))
    return 0.5 * sum(simulation.embodiment.randomisation.delay)


def push(simulation: Simulation, rng: np.random.Generator) -> np.ndarray:
    """Disturb the robot in a random direction; what was done to it is returned.

    A base that can move changes its horizontal velocity at once: (2,), m/s. The tool of one that cannot feels
    a force for `push_seconds`: (3,), N, world frame.
    """
    spec = simulation.embodiment.randomisation
    if not simulation.floating:
        direction = rng.normal(size=3)
        force = rng.uniform(0.0, spec.push_force) * direction / np.linalg.norm(direction)
        simulation.push_tool(force, spec.push_seconds)
        return force
    angle = rng.uniform(0.0, 2.0 * np.pi)
    speed = rng.uniform(0.0, spec.push_velocity)
    change = speed * np.array([np.cos(angle), np.sin(angle)])
    simulation.push(change)
    return change


Array = NDArray[np.float64]


class SensorNoise:
    """Uniform noise whose half widths are the `noise` keys of the embodiment's observation terms."""

    def __init__(self, embodiment: Embodiment, rng: np.random.Generator) -> None:
        self._noise: dict[str, float] = {term.name: term.noise for term in embodiment.observation.terms}
        self._rng = rng

    def add(self, source: str, reading: Mapping[str, Array]) -> dict[str, Array]:
        """A reading of a source as its sensors would report it; quaternions stay unit ones."""
        result = dict(reading)
        for field in SOURCES[source].fields:
            if not field.noise_term:
                continue
            values, width = reading[field.name], field.noise_share * self._noise.get(field.noise_term, 0.0)
            values = values + width * self._rng.uniform(-1.0, 1.0, values.shape)
            result[field.name] = values / np.linalg.norm(values) if field.quaternion else values
        return result
