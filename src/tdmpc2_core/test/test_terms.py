"""The tables of sources and terms name each other correctly, and the simulation's readers fit them."""

from __future__ import annotations

import numpy as np
import pytest

from tdmpc2_core.envs.robot.simulation import READERS, Simulation
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
