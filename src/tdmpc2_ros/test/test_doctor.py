"""The doctor of the ROS side as a process: with a robot, without one, and with faults made on purpose."""

from __future__ import annotations

import json
import threading
import time

import pytest
from fake_robot import FakeRobot
from processes import Domain, domain
from random_agent import random_bundle
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_ros import qos
from tdmpc2_ros.doctor import __main__ as doctor
from tdmpc2_ros.doctor import checks as doctor_checks
from tdmpc2_ros.doctor.robot import RunningRobot
from tdmpc2_ros.messages import joint_state_message

DOCTOR = "tdmpc2_ros.doctor"


def examine(own: Domain, *arguments: str, **environment: str) -> tuple[int, dict[str, dict]]:
    """Exit code and findings by check."""
    code = "import sys, os; os.environ.update(eval(sys.argv.pop(1)))\n"
    code += "from tdmpc2_ros.doctor.__main__ import main\n"
    process = own.run(["-c", code + "sys.exit(main())", repr(environment), "--json", *arguments])
    result = process.wait(60.0)
    assert "Traceback" not in process.log, process.log
    found = json.loads(process.log[process.log.index("[\n") : process.log.rindex("]") + 1])
    return result, {item["check"]: item for item in found}


def test_nothing_runs():
    with domain() as own:
        code, found = examine(own, "--timeout", "1")
    assert code == 1
    assert found["joint_states"]["level"] == "fail" and "0 publishers" in found["joint_states"]["found"]
    assert "--offline" in found["joint_states"]["advice"]
    assert found["controllers"]["level"] == "fail" and "nobody listens" in found["controllers"]["found"]
    assert found["middleware"]["level"] == found["messages"]["level"] == "ok"


def test_offline_leaves_the_robot_out():
    with domain() as own:
        code, found = examine(own, "--offline")
    assert code == 0, found
    assert "joint_states" not in found and found["bundle"]["level"] == "ok"


def test_simulation_runs_and_two_planners_are_too_many(tmp_path):
    with domain() as own:
        simulation = own.start("tdmpc2_ros.simulator.node")
        simulation.wait_for_log("standing until commands come")
        code, found = examine(own, "--timeout", "20")
        assert code == 0, found
        assert "listens to joint_trajectory_controller" in found["controllers"]["found"]
        assert found["imu_sensor_broadcaster/imu"]["level"] in ("ok", "warn")
        assert "none runs yet" in found["planner"]["found"]
        parameters = {"model": random_bundle(tmp_path), "autostart": True, "method": "policy"}
        planners = [own.start("tdmpc2_ros.planner.node", parameters) for _ in range(2)]
        for planner in planners:
            planner.wait_for_log("planning: policy", 40.0)
        code, found = examine(own, "--timeout", "20")
        assert code == 1 and "2 publishers" in found["planner"]["found"], found["planner"]


def test_planner_that_is_discovered_late(monkeypatch):
    topic = "joint_trajectory_controller/joint_trajectory"
    with domain() as own:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(own.id))
        own.node.create_publisher(JointTrajectory, topic, 1)
        with RunningRobot(doctor.Embodiment.load("quadruped"), "", 10.0) as there:
            late = threading.Timer(2.0, own.node.create_publisher, (JointTrajectory, topic, 1))
            late.start()
            finding = there.planner()
            late.join()
    assert finding.level == "fail" and finding.found.startswith("2 publishers"), finding


def test_joint_missing_from_joint_states():
    with domain() as own:
        robot = FakeRobot(own)
        robot.missing = "FR_calf_joint"
        code, found = examine(own, "--timeout", "10")
        robot.close()
    assert code == 1
    assert found["joint_states"]["level"] == "fail" and "FR_calf_joint" in found["joint_states"]["found"]


def test_stamps_of_another_clock_are_pointed_out():
    with domain() as own:
        publisher = own.node.create_publisher(JointState, "a/joint_states", qos.SENSOR_OUTPUT)
        names = list(doctor.Embodiment.load("quadruped").joint_names)
        own.node.create_timer(
            0.02,
            lambda: publisher.publish(joint_state_message(time.time() - 60.0, names, [0.0] * 12, [0.0] * 12)),
        )
        code, found = examine(own, "--timeout", "10", "--namespace", "a")
    assert code == 1, "no IMU and no controller"
    assert found["joint_states"]["level"] == "warn" and "clock" in found["joint_states"]["advice"]


def test_middleware_that_is_not_there():
    with domain() as own:
        code, found = examine(own, "--timeout", "1", RMW_IMPLEMENTATION="rmw_nonexistent_cpp")
    assert code == 1
    assert found["middleware"]["level"] == "fail" and "rmw_nonexistent_cpp" in found["middleware"]["found"]
    assert found["running robot"]["level"] == "warn"


@pytest.mark.parametrize(
    ("check", "environment", "level", "text"),
    [
        (doctor_checks.network, {"ROS_DOMAIN_ID": "7"}, "ok", "domain 7"),
        (doctor_checks.network, {"ROS_DOMAIN_ID": "150"}, "warn", "domain 150"),
        (doctor_checks.network, {"ROS_DOMAIN_ID": "900"}, "fail", "900"),
        (doctor_checks.network, {"ROS_DOMAIN_ID": "robot"}, "fail", "robot"),
        (doctor_checks.network, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "HERE"}, "fail", "HERE"),
        (doctor_checks.distribution, {"ROS_DISTRO": "humble"}, "fail", "humble"),
        (
            doctor_checks.middleware,
            {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"},
            "fail",
            "rmw_cyclonedds_cpp cannot be loaded",
        ),
    ],
)
def test_environment(check, environment, level, text):
    finding = check(environment)
    assert finding.level == level and text in finding.found and bool(finding.advice) == (level != "ok")


def test_message_package_that_is_missing(monkeypatch):
    monkeypatch.setattr(doctor_checks, "_MESSAGES", ("sensor_msgs", "absent_msgs"))
    (finding,) = doctor_checks.messages()
    assert finding.level == "fail" and "absent_msgs" in finding.found and "ros-absent-msgs" in finding.advice


def test_mistakes_in_the_call(capsys):
    assert doctor.main(["--timeout", "0"]) == 2
    assert doctor.main(["--rebot", "x"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 2


def test_lines_tell_what_to_do(capsys):
    assert doctor.main(["--offline", "--model", "/nowhere/bundle"]) == 1
    printed = capsys.readouterr().out
    assert "FAIL  bundle" in printed and "-> --model names the folder" in printed
