"""Domain randomisation and sensor noise of a simulated robot, in the ranges of its embodiment file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.config import closest
from tdmpc2_core.envs.robot.ground import Grid
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import CurriculumSpec, Embodiment, RandomisationSpec
from tdmpc2_core.robots.terms import SOURCES

Array = NDArray[np.float64]


def randomise(
    simulation: Simulation, rng: np.random.Generator, ranges: RandomisationSpec | None = None
) -> float:
    """Draw friction, masses, joints and ground; returns the drawn delay from decision to command, s.

    Args:
        simulation: the robot, which `Simulation.settle` then brings onto its ground.
        rng: draws only what the ranges leave open, in the order of below.
        ranges: those of a level of the curriculum; the embodiment's own if absent.
    """
    spec, joints = ranges or simulation.embodiment.randomisation, simulation.embodiment.num_joints
    simulation.set_friction(rng.uniform(*spec.friction) if spec.friction else None)
    simulation.set_extra_mass(rng.uniform(*spec.base_mass))
    simulation.set_gains(rng.uniform(*spec.gain, joints))
    delay = float(rng.uniform(*spec.delay))
    mass, offset, effort = 0.0, np.zeros(3), np.ones(joints)
    if spec.payload[1]:
        mass, distance = rng.uniform(*spec.payload), rng.uniform(*spec.payload_offset)
        offset = np.append(distance * _direction(rng), spec.payload_height)
    simulation.set_payload(mass, offset)
    if spec.weak_joint != (1.0, 1.0):
        effort[rng.integers(joints)] = rng.uniform(*spec.weak_joint)
    simulation.set_effort(effort)
    if simulation.terrain:
        simulation.terrain.shape(*_ground(simulation.terrain.grid, spec, rng))
    return delay


def restore(simulation: Simulation) -> float:
    """The robot model's own friction, masses, joints and ground; returns the embodiment's mean delay, s."""
    joints = simulation.embodiment.num_joints
    simulation.set_friction(None)
    simulation.set_extra_mass(0.0)
    simulation.set_gains(np.ones(joints))
    simulation.set_payload(0.0, np.zeros(3))
    simulation.set_effort(np.ones(joints))
    if simulation.terrain:
        simulation.terrain.shape(np.zeros(2))
    return 0.5 * sum(simulation.embodiment.randomisation.delay)


def _direction(rng: np.random.Generator) -> Array:
    """Horizontal unit vector (2,)."""
    angle = rng.uniform(0.0, 2.0 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _ground(grid: Grid, spec: RandomisationSpec, rng: np.random.Generator) -> tuple[Array, Array | None]:
    """Slope (2,), and heights (n, n), m: of blocks or waves, either as likely where both are possible."""
    slope = float(np.tan(np.radians(rng.uniform(*spec.slope)))) * _direction(rng)
    kinds = [name for name in ("step", "wave") if getattr(spec, name)[1] > 0.0]
    heights: Array | None = None
    if kinds:
        kind = kinds[rng.integers(len(kinds))]
        height = rng.uniform(*getattr(spec, kind))
        heights = height * (_blocks(grid, rng) if kind == "step" else _waves(grid, spec.wave_length, rng))
    return slope, heights


def _blocks(grid: Grid, rng: np.random.Generator) -> Array:
    """Half of the squares 1 high, drawn; the others 0."""
    high = rng.permutation(grid.blocks**2).reshape(grid.blocks, grid.blocks) % 2
    return high.repeat(grid.share, axis=0).repeat(grid.share, axis=1).astype(np.float64)


def _waves(grid: Grid, length: float, rng: np.random.Generator) -> Array:
    """Waves along x and along y, which cross, from -0.5 to 0.5."""
    count = max(1, round(grid.period / length))
    angle = 2.0 * np.pi * count * np.arange(grid.size) / grid.size
    along, across = np.sin(angle + rng.uniform(0.0, 2.0 * np.pi, (2, 1)))
    return 0.25 * (along + across[:, None])


def push(
    simulation: Simulation, rng: np.random.Generator, ranges: RandomisationSpec | None = None
) -> np.ndarray:
    """Disturb the robot in a random direction; what was done to it is returned.

    A base that can move changes its horizontal velocity at once: (2,), m/s; or it feels a horizontal force
    for `push_seconds`: (3,), N, world frame. Where the embodiment has both, either is as likely. The tool of
    a robot whose base is fixed feels a force in any direction.

    Args:
        simulation: the robot.
        rng: of the draws.
        ranges: those of a level of the curriculum; the embodiment's own if absent.
    """
    spec = ranges or simulation.embodiment.randomisation
    if not simulation.floating:
        direction = rng.normal(size=3)
        force = rng.uniform(0.0, spec.push_force) * direction / np.linalg.norm(direction)
        simulation.push_tool(force, spec.push_seconds)
        return force
    direction = _direction(rng)
    if spec.push_force and (not spec.push_velocity or rng.random() < 0.5):
        force = np.append(rng.uniform(0.0, spec.push_force) * direction, 0.0)
        simulation.push_base(force, spec.push_seconds)
        return force
    speed = rng.uniform(0.0, spec.push_velocity)
    change = speed * direction
    simulation.push(change)
    return change


class Change(NamedTuple):
    """How a robot differs from the one that its policy knows: ranges that are pinned, and what for."""

    what: str
    pinned: Callable[[Embodiment], dict[str, Any]]
    applies: Callable[[Embodiment], bool] = lambda embodiment: True


def _walks(embodiment: Embodiment) -> bool:
    return embodiment.clock is not None


def _load(embodiment: Embodiment) -> dict[str, Any]:
    mass, offset = (3.0, 0.1) if _walks(embodiment) else (1.0, 0.05)  # on the back; in the hand
    return {"payload": [mass, mass], "payload_offset": [offset, offset]}


def _slower(embodiment: Embodiment) -> dict[str, Any]:
    return {"delay": [bound + 0.02 for bound in embodiment.randomisation.delay]}


CHANGES = {
    "slope": Change("5 degrees, in any direction", lambda _: {"slope": [5.0, 5.0]}, _walks),
    "steps": Change("blocks of 4 cm", lambda _: {"step": [0.04, 0.04]}, _walks),
    "payload": Change("3 kg 10 cm off centre; 1 kg 5 cm beside a tool", _load),
    "weak joint": Change("one motor at half of its torque", lambda _: {"weak_joint": [0.5, 0.5]}),
    "friction": Change("0.3", lambda _: {"friction": [0.3, 0.3]}, _walks),
    "delay": Change("20 ms more", _slower),
    "gains": Change("drives at 0.8 of their gains", lambda _: {"gain": [0.8, 0.8]}),
}
"""Changed robots for benchmarks, by name; ground and friction concern those that walk."""


def changed(embodiment: Embodiment, name: str) -> Embodiment:
    """The embodiment with a row of `CHANGES` in every episode that is randomised, and no curriculum.

    Its policy fits: a fingerprint does not cover randomisation.

    Raises:
        UserError: there is no such change, or it does not concern the robot.
    """
    names = [known for known, row in CHANGES.items() if row.applies(embodiment)]
    if name not in names:
        raise UserError(
            f"no change {name!r} of {embodiment.name}{closest(name, names)}; accepted: {', '.join(names)}"
        )
    content = embodiment.to_dict()
    content["randomisation"].pop("curriculum", None)
    content["randomisation"] |= CHANGES[name].pinned(embodiment)
    return Embodiment.from_dict(content, directory=embodiment.directory)


def next_level(spec: CurriculumSpec, level: float, reward: float, fell: bool) -> float:
    """Level of a robot's next episode, after one at `level` with this mean reward per decision, in which it
    fell or that ran its time."""
    if fell or (spec.failure is not None and reward < spec.failure):
        return max(0.0, level - spec.drop)
    return min(1.0, level + spec.rise) if reward >= spec.success else level


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
