"""The planner node and what goes wrong: bad bundles, wrong robots, failing sensors. Processes over DDS."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil

import pytest
from fake_robot import PLANNER, FakeRobot
from processes import domain, wait_until
from random_agent import ROBOT, random_bundle

from tdmpc2_core.robots import Embodiment


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return random_bundle(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A bundle for a robot whose first joint rests elsewhere."""
    joints = (dataclasses.replace(ROBOT.joints[0], default=0.3), *ROBOT.joints[1:])
    robot = Embodiment.from_dict(dataclasses.replace(ROBOT, name="other", joints=joints).to_dict())
    return random_bundle(tmp_path_factory.mktemp("other"), robot)


@pytest.fixture(scope="module")
def corrupt(tmp_path_factory):
    path = random_bundle(tmp_path_factory.mktemp("corrupt"))
    weights = next(p for p in (tmp_path_factory.getbasetemp()).rglob("corrupt*/*/weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    return path


@pytest.fixture(scope="module")
def place():
    with domain() as own:
        yield own


def refused(place, parameters) -> str:
    """The only line that an automatic start with these parameters logs as an error."""
    process = place.start(PLANNER, {"autostart": True, **parameters})
    assert process.wait(30.0) == 2, process.log
    assert "Traceback" not in process.log
    lines = [line for line in process.log.splitlines() if "[INFO]" not in line and line.strip()]
    assert len(lines) == 1, process.log
    return lines[0]


def test_automatic_start_refuses_with_one_sentence_and_code_2(place, bundle, other, corrupt, tmp_path):
    sentence = refused(place, {"model": other, "robot": "quadruped"})
    assert "'other'" in sentence and "default" in sentence
    assert "weights.safetensors" in refused(place, {"model": corrupt})
    assert "no such bundle" in refused(place, {"model": str(tmp_path / "none")})
    assert "model is empty" in refused(place, {})
    assert "samples" in refused(place, {"model": bundle, "samples": -3})
    assert "joint_trajectory, forward_position" in refused(place, {"model": bundle, "output": "elsewhere"})
    assert "cannot be written" in refused(place, {"model": bundle, "report": "/proc/none/report.json"})


def damaged(bundle: str, folder, damage) -> str:
    """Path of a copy of the bundle with `damage` done to it."""
    shutil.copytree(bundle, folder)
    damage(folder)
    return str(folder)


def test_every_kind_of_damage_to_a_bundle_is_one_sentence(place, bundle, tmp_path):
    def flip(folder):
        data = bytearray((folder / "weights.safetensors").read_bytes())
        data[-1000] ^= 0xFF
        (folder / "weights.safetensors").write_bytes(data)

    def cut(folder):
        text = (folder / "bundle.json").read_text()
        (folder / "bundle.json").write_text(text[: len(text) // 2])

    def newer(folder):
        document = json.loads((folder / "bundle.json").read_text())
        (folder / "bundle.json").write_text(json.dumps(document | {"version": 99}))

    for name, damage, text in (
        ("flip", flip, "sha256"),
        ("cut", cut, "broken JSON"),
        ("newer", newer, "format version 99"),
        ("no_weights", lambda folder: (folder / "weights.safetensors").unlink(), "weights.safetensors"),
    ):
        assert text in refused(place, {"model": damaged(bundle, tmp_path / name, damage)})


def test_unknown_embodiment_key_is_named(place, bundle, tmp_path):
    folder = tmp_path / "robot"
    shutil.copytree(ROBOT.directory, folder)
    text = (folder / "embodiment.yaml").read_text()
    (folder / "embodiment.yaml").write_text(text + "\ncontrol_raet: 50.0\n")
    sentence = refused(place, {"model": bundle, "robot": str(folder)})
    assert "control_raet" in sentence and "did you mean 'control_rate'" in sentence
    simulation = place.start("tdmpc2_ros.simulator.node", {"robot": str(folder)})
    assert simulation.wait(30.0) == 2 and "control_raet" in simulation.log
    assert "Traceback" not in simulation.log


def _not_a_number(message):
    message.position[3] = math.nan


def _short(message):
    message.position = message.position[:-1]


def _twice(message):
    message.name[1] = message.name[0]


def test_malformed_joint_states_hold_the_robot_until_good_ones_come(bundle):
    with domain() as own:
        robot = FakeRobot(own)
        process = own.start(PLANNER, {"model": bundle, "autostart": True, "method": "policy"})
        robot.wait_for_commands(10, process=process)
        for spoil, reason in ((_not_a_number, "is nan"), (_short, "11 values"), (_twice, "more than once")):
            robot.spoil = spoil
            wait_until(lambda: robot.is_hold(robot.trajectories[-1][1]), 10.0, lambda: process.log)
            wait_until(
                lambda r=reason: r in robot.status()[0], 10.0, lambda r=reason: f"{r}: {robot.status()}"
            )
            assert robot.quiet(0.3), "commands although joint_states are malformed"
            robot.spoil = lambda message: None
            robot.wait_for_commands(10, process=process)
            assert not robot.is_hold(robot.trajectories[-1][1])
        assert process.stop() == 0 and "Traceback" not in process.log
        robot.close()


def test_report_folder_that_vanishes_costs_the_report_only(bundle, tmp_path):
    folder = tmp_path / "reports"
    with domain() as own:
        robot = FakeRobot(own)
        parameters = {"model": bundle, "autostart": True, "method": "policy"}
        process = own.start(PLANNER, parameters | {"report": str(folder / "report.json")})
        robot.wait_for_commands(5, process=process)
        shutil.rmtree(folder)
        folder.write_text("a file where the folder was")
        assert process.stop() == 0, process.log
        assert "report.json cannot be written" in process.log and "Traceback" not in process.log
        wait_until(
            lambda: robot.is_hold(robot.trajectories[-1][1]), 5.0, "the safe action did not come first"
        )
        robot.close()


def test_configure_fails_cleanly_and_the_node_lives(place, corrupt):
    robot = FakeRobot(place)
    process = place.start(PLANNER, {"model": corrupt})
    assert not robot.change("configure")
    assert robot.state() == "unconfigured"
    assert not robot.change("configure")
    assert process.log.count("weights.safetensors") == 2 and "Traceback" not in process.log
    assert process.stop() == 0
    robot.close()


def test_sensor_faults_hold_the_robot(bundle):
    with domain() as own:
        robot = FakeRobot(own)
        robot.missing = "RL_calf_joint"
        process = own.start(PLANNER, {"model": bundle, "autostart": True, "method": "policy"})

        process.wait_for_log("RL_calf_joint", 30.0)
        assert robot.quiet(0.5), "commands although a joint is missing"
        wait_until(lambda: "RL_calf_joint" in robot.status()[0], 5.0)
        robot.missing = ""
        robot.wait_for_commands(20, process=process)

        robot.nan = True
        hold_and_resume(robot, process, "angular velocity", lambda: setattr(robot, "nan", False))
        robot.imu = False
        hold_and_resume(robot, process, "imu:", lambda: setattr(robot, "imu", True))
        robot.joints = False
        hold_and_resume(robot, process, "joints:", lambda: setattr(robot, "joints", True))
        assert process.stop() == 0
        robot.close()


def hold_and_resume(robot, process, reason, mend):
    """One hold, silence and a diagnostic that names the reason; commands again after `mend`."""
    process.wait_for_log("holding: no observation", 5.0)
    wait_until(lambda: robot.is_hold(robot.trajectories[-1][1]), 2.0, "no hold")
    before = len(robot.trajectories)
    assert robot.quiet(0.3), "commands although a sensor fails"
    assert not robot.is_hold(robot.trajectories[before - 2][1]), "held more than once"
    wait_until(lambda: reason in robot.status()[0], 5.0, lambda: f"{reason} not in {robot.status()}")
    mend()
    robot.wait_for_commands(20, process=process)
    assert not robot.is_hold(robot.trajectories[-1][1])


def test_bad_commands_are_refused_and_change_nothing(bundle):
    from geometry_msgs.msg import Twist

    with domain() as own:
        robot = FakeRobot(own)
        process = own.start(PLANNER, {"model": bundle, "autostart": True, "method": "policy"})
        robot.wait_for_commands(5, process=process)
        for value in (math.nan, math.inf):
            message = Twist()
            message.linear.x = value
            robot.cmd_vel.publish(message)
            process.wait_for_log("refused cmd_vel", 5.0)
            wait_until(
                lambda v=value: f"linear_x is {v}" in robot.status()[0], 5.0, lambda: str(robot.status())
            )
        robot.wait_for_commands(20, process=process)
        assert not robot.is_hold(robot.trajectories[-1][1])
        robot.close()
