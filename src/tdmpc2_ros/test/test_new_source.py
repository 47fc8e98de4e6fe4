"""A sensor that the suite does not know, added by one row per table: how hard each foot presses, in N.

Its values reach an observation offline, in the simulation, and as messages from the simulation node to the
planner's subscriptions.
"""

from __future__ import annotations

import shutil
import time

import mujoco
import numpy as np
import pytest
import rclpy
import yaml
from processes import domain, wait_until
from std_msgs.msg import Float64MultiArray

from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.envs.robot.simulation import READERS, Simulation
from tdmpc2_core.errors import SensorError, StaleSource, UserError
from tdmpc2_core.robots import (
    SOURCES,
    TERMS,
    Embodiment,
    Field,
    ObservationAssembler,
    SensorState,
    Source,
    Term,
)
from tdmpc2_core.robots.messages import Reading
from tdmpc2_core.robots.terms import measured
from tdmpc2_ros.messages import SOURCE_TOPICS, SourceTopic, source_topics
from tdmpc2_ros.recorder.node import Recorder
from tdmpc2_ros.robot_io.sensors import SensorInput
from tdmpc2_ros.simulator.node import MujocoSim

FEET = ("FL", "FR", "RL", "RR")
SOURCE = Source("foot_force", (Field("force", FEET, "N"),), section="clock", measured=True)
TERM = Term(
    "foot_force",
    source="foot_force",
    size=4,
    unit="N",
    what="of each foot on the ground",
    write=measured("force"),
    scale=0.01,
)
TOPIC = SourceTopic(
    "foot_force",
    "feet/force",
    Float64MultiArray,
    decode=lambda message, robot: Reading(None, {"force": message.data}),
    encoder=lambda robot: lambda stamp, reading: Float64MultiArray(data=reading["force"].tolist()),
)


def read_foot_force(simulation: Simulation) -> dict[str, np.ndarray]:
    """Normal forces (4,), N, of the contacts of each foot."""
    feet = [simulation.model.geom(name).id for name in simulation.embodiment.clock.feet]
    force, wrench = np.zeros(4), np.zeros(6)
    for index, contact in enumerate(simulation.data.contact):
        mujoco.mj_contactForce(simulation.model, simulation.data, index, wrench)
        for foot in set(feet) & {contact.geom1, contact.geom2}:
            force[feet.index(foot)] += wrench[0]
    return {"force": force}


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    """The four rows that a new sensor takes."""
    monkeypatch.setitem(SOURCES, SOURCE.name, SOURCE)
    monkeypatch.setitem(TERMS, TERM.name, TERM)
    monkeypatch.setitem(SOURCE_TOPICS, TOPIC.topic, TOPIC)
    monkeypatch.setitem(READERS, SOURCE.name, read_foot_force)


def mapping(**term) -> dict:
    """The quadruped's file with the term added at the end."""
    content = Embodiment.load("quadruped").to_dict()
    row = {"name": "foot_force", "source": "foot_force", "max_age": 0.06, **term}
    content["observation"]["terms"].append(row)
    return content


def feeling_quadruped() -> Embodiment:
    return Embodiment.from_dict(mapping(), directory=Embodiment.load("quadruped").directory)


def newest(robot: Embodiment, observation: np.ndarray) -> np.ndarray:
    """The term's newest values in an observation."""
    (block,) = (block for block in robot.observation_layout if block.name == "foot_force")
    assert (block.size, block.history, block.stop) == (4, 5, robot.observation_dim)
    return observation[block.start : block.start + block.size]


def rest(sensors: SensorState, stamp: float) -> None:
    """Everything but the new source."""
    robot = sensors.embodiment
    sensors.set_joints(stamp, robot.joint_names, robot.default_position, np.zeros(12))
    sensors.set_imu(stamp, (0, 0, 0, 1), (0, 0, 0))


def test_offline():
    robot = feeling_quadruped()
    sensors, assembler = SensorState(robot), ObservationAssembler(robot)
    rest(sensors, 0.0)
    with pytest.raises(StaleSource, match="foot_force: never received"):
        assembler.assemble(sensors, 0.0)
    sensors.store("foot_force", 0.0, {"force": [10.0, 20.0, 30.0, 40.0]})
    assert newest(robot, assembler.assemble(sensors, 0.0)) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    rest(sensors, 0.1)
    with pytest.raises(StaleSource, match=r"foot_force: 0\.1 s old, at most 0\.06 s"):
        assembler.assemble(sensors, 0.1)
    assert sensors.oldest_in(sensors.snapshot()) == 0.0


@pytest.mark.parametrize(
    ("force", "text"),
    [
        ([1.0, 2.0, 3.0], r"foot_force has 3 values, 4 are needed \(FL, FR, RL, RR\)"),
        ([1.0, np.nan, 3.0, 4.0], "foot_force: FR is nan; finite values are needed"),
    ],
)
def test_bad_samples_are_refused(force, text):
    with pytest.raises(SensorError, match=text):
        SensorState(feeling_quadruped()).store("foot_force", 0.0, {"force": force})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "foot_forc"}, "gait_phase, foot_force; .*did you mean 'foot_force'"),
        ({"source": "feet"}, "one of imu, joints, command, self, foot_force"),
        ({"source": "imu"}, "source of foot_force must be foot_force"),
        ({"max_age": None}, "foot_force needs max_age"),
        ({"history": 0}, "history: must be at least 1"),
    ],
)
def test_the_file_is_checked_against_the_rows(change, text):
    with pytest.raises(UserError, match=text):
        Embodiment.from_dict(mapping(**change))


def test_a_robot_without_the_section_has_no_such_source():
    content = mapping()
    content["observation"]["terms"] = [
        t for t in content["observation"]["terms"] if t["name"] != "gait_phase"
    ]
    del content["clock"]
    with pytest.raises(UserError, match="has foot_force, which needs the key 'clock'"):
        Embodiment.from_dict(content)


def test_simulation():
    robot = feeling_quadruped()
    env = RobotEnv(robot, options=EnvOptions(sensor_noise=False, randomise=False, random_reset=False))
    env.set_command(np.zeros(3))
    env.reset()
    for _ in range(50):
        observation = env.step(np.zeros(12)).observation
        np.testing.assert_array_equal(
            newest(robot, observation), np.float32(0.01 * read_foot_force(env.simulation)["force"])
        )
    weight = mujoco.mj_getTotalmass(env.simulation.model) * 9.81
    assert 100.0 * newest(robot, observation).sum() == pytest.approx(weight, rel=0.05)


def test_messages_from_the_simulation_node_to_the_planner(tmp_path, monkeypatch):
    robot, sent = feeling_quadruped(), []
    monkeypatch.setitem(READERS, SOURCE.name, lambda s: sent.append(read_foot_force(s)) or sent[-1])
    shutil.copytree(robot.directory, tmp_path / "robot")
    (tmp_path / "robot/embodiment.yaml").write_text(yaml.safe_dump(mapping()))
    assert [row.topic for row in source_topics(robot)][-1] == "feet/force"
    parameters = {"robot": tmp_path / "robot", "output": tmp_path / "bag", "sensor_noise": "false"}
    given = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    with domain() as own:
        rclpy.init(args=["--ros-args", *given], domain_id=own.id)
        simulation, node, recorder = MujocoSim(), rclpy.create_node("planner"), Recorder()
        sensors = SensorInput(node, robot)
        try:

            def received() -> bool:
                simulation.advance()
                return len(sent) > 100 and not sensors.state.stale(time.time())

            wait_until(received, 30.0, lambda: f"{sensors.state.stale(time.time())}")
            assert "/feet/force" in recorder.bag.counts
        finally:
            sensors.destroy()
            for made in (recorder, node, simulation):
                made.destroy_node()
            rclpy.shutdown()
    snapshot = sensors.state.snapshot()
    force = snapshot.foot_force.force
    assert force.sum() > 50.0 and any(np.array_equal(force, reading["force"]) for reading in sent)
    observation = ObservationAssembler(robot).assemble(sensors.state, snapshot.joints.stamp)
    np.testing.assert_array_equal(newest(robot, observation), np.float32(0.01 * force))
