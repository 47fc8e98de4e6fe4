"""The tables of sources and terms name each other correctly, and the simulation's readers fit them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tdmpc2_core.envs.robot.fleet import Fleet
from tdmpc2_core.envs.robot.simulation import READERS, TOGETHER, Simulation
from tdmpc2_core.robots import SOURCES, TERMS, Embodiment, ObservationAssembler, SensorState, shipped_names
from tdmpc2_core.robots.terms import OwnState

ROBOTS = [Embodiment.load(name) for name in shipped_names()]


@pytest.mark.parametrize("term", TERMS.values(), ids=lambda term: term.name)
def test_a_term_reads_what_its_source_offers(term):
    source = SOURCES[term.source]
    optional = {field.name for field in source.fields if field.optional}
    assert set(term.reads) <= optional
    assert not (term.exact and term.noise) and term.scale > 0.0
    keys = set(Embodiment.__dataclass_fields__)
    assert set(term.sections) <= keys


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda source: source.name)
def test_a_field_takes_its_noise_from_a_term_of_its_source(source):
    for field in source.fields:
        assert not field.noise_term or TERMS[field.noise_term].source == source.name
        assert not field.quaternion or len(field.entries) == 4
    assert not source.measured or source.fields


def test_defaults_of_shipped_terms_are_those_of_files_written_before():
    assert {(term.scale, term.noise) for term in TERMS.values()} == {(1.0, 0.0)}


@pytest.mark.parametrize("robot", ROBOTS, ids=lambda robot: robot.name)
def test_readers_give_every_measured_field_of_a_robot(robot):
    simulation, sensors = Simulation(robot), SensorState(robot)
    assert set(simulation.sources) == {name for name in READERS if SOURCES[name].present(robot)}
    for source in simulation.sources:
        reading = simulation.read(source)
        for field in SOURCES[source].fields:
            assert reading[field.name].shape == (len(field.entry_names(robot)),)
        sensors.store(source, 0.0, reading)
    assert ObservationAssembler(robot).assemble(sensors, 0.0).shape == (robot.observation_dim,)


@pytest.mark.parametrize("robot", ROBOTS, ids=lambda robot: robot.name)
def test_every_term_fills_its_width_and_nothing_else(robot):
    simulation, sensors = Simulation(robot), SensorState(robot)
    for source in simulation.sources:
        sensors.store(source, 0.0, simulation.read(source))
    sensors.store("command", 0.0, {"values": [0, 0, 0, 0, 0, 0, 1] if robot.pose_command else [0, 0, 0]})
    own = OwnState(robot, np.zeros(robot.action_dim), np.zeros(robot.command_dim), phase=0.25)
    for term in robot.observation.terms:
        row = TERMS[term.name]
        place = np.full(row.width(robot) + 2, np.nan)
        row.write(place[1:-1], vars(sensors.snapshot()).get(row.source), own)
        assert np.isfinite(place[1:-1]).all() and np.isnan(place[[0, -1]]).all()


@pytest.mark.parametrize("robot", ROBOTS, ids=lambda robot: robot.name)
def test_readings_and_terms_of_many_robots_are_those_of_each(robot):
    simulations = [Simulation(robot, seed) for seed in range(3)]
    for simulation in simulations:
        simulation.reset(randomise=True)
        simulation.step(robot.default_position + 0.1)
    fleet = Fleet(simulations)
    rng, samples, state = np.random.default_rng(0), {}, SensorState(robot)
    own = [
        OwnState(robot, rng.normal(size=robot.action_dim), rng.normal(size=robot.command_dim), phase=phase)
        for phase in (None, 0.25, 0.6)
    ]
    together = OwnState(robot, np.stack([o.action for o in own]), np.stack([o.command for o in own]))
    together.phase = np.array([np.nan, 0.25, 0.6])
    together.goal_offset = together.goal_turn = np.zeros((3, 3))
    for source in fleet.sources:
        many = fleet.read(source)
        for name, values in many.items():
            np.testing.assert_array_equal(values, [one.read(source)[name] for one in simulations])
        samples[source] = SimpleNamespace(**many)
    assert set(fleet.sources) >= TOGETHER & set(READERS) & set(simulations[0].sources)
    for term in robot.observation.terms:
        row = TERMS[term.name]
        together.target = samples["joints"].position if term.name == "target_error" else None
        place = np.full((3, row.width(robot)), np.nan)
        row.write(place, samples.get(row.source), together)
        for one, simulation, expected in zip(own, simulations, place, strict=True):
            for source in simulation.sources:
                state.store(source, 0.0, simulation.read(source))
            found = np.full(row.width(robot), np.nan)
            row.write(found, vars(state.snapshot()).get(row.source), one)
            np.testing.assert_array_equal(found, expected)
