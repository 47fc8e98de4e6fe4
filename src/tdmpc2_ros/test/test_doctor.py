"""The doctor of the ROS side as a process: with a robot, without one, and with faults made on purpose."""

from __future__ import annotations

import json
import threading
import time

import pytest
from fake_robot import FakeRobot
from geometry_msgs.msg import TwistStamped
from processes import Domain, domain
from random_agent import random_bundle
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Imu, JointState
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_ros import qos
from tdmpc2_ros.doctor import __main__ as doctor
from tdmpc2_ros.doctor import checks as doctor_checks
from tdmpc2_ros.doctor.robot import RunningRobot
from tdmpc2_ros.messages import imu_message, joint_state_message, to_time

DOCTOR = "tdmpc2_ros.doctor"
LISTENER = """
import rclpy
from geometry_msgs.msg import Twist
rclpy.init()
node = rclpy.create_node("listener")
node.create_subscription(Twist, "cmd_vel", print, 1)
print("ready", flush=True)
rclpy.spin(node)
"""


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


def test_simulation_runs_and_two_commanders_are_too_many(tmp_path):
    with domain() as own:
        simulation = own.start("tdmpc2_ros.simulator.node")
        simulation.wait_for_log("standing until commands come")
        code, found = examine(own, "--timeout", "20")
        assert code == 0, found
        assert "listens to joint_trajectory_controller" in found["controllers"]["found"]
        assert found["imu_sensor_broadcaster/imu"]["level"] in ("ok", "warn")
        assert "none runs yet" in found["planner"]["found"]
        parameters = {"model": random_bundle(tmp_path), "autostart": True, "method": "policy"}
        planner = own.start("tdmpc2_ros.planner.node", parameters)
        planner.wait_for_log("planning: policy", 40.0)
        own.node.create_publisher(JointTrajectory, "joint_trajectory_controller/joint_trajectory", 1)
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


def looked(own: Domain, monkeypatch) -> dict:
    """Findings about the running robot, by check."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(own.id))
    with RunningRobot(doctor.Embodiment.load("quadruped"), "", 10.0) as there:
        return {finding.check: finding for finding in [*there.sensors(), *there.commands()]}


def test_simulated_time_is_healthy_where_the_clock_is_and_named_where_it_is_not(monkeypatch):
    """Stamps of a simulation are 1.8e9 s behind system time."""
    names = list(doctor.Embodiment.load("quadruped").joint_names)
    with domain() as own:
        joints = own.node.create_publisher(JointState, "joint_states", qos.SENSOR_OUTPUT)
        clock = own.node.create_publisher(ClockMessage, "/clock", qos.CLOCK)
        running, started = threading.Event(), time.monotonic()
        running.set()

        def publish():
            now = 100.0 + time.monotonic() - started
            if running.is_set():
                clock.publish(ClockMessage(clock=to_time(now)))
            joints.publish(joint_state_message(now, names, [0.0] * 12, [0.0] * 12))

        own.node.create_timer(0.02, publish)
        with_clock = looked(own, monkeypatch)
        running.clear()
        without = looked(own, monkeypatch)
    assert with_clock["joint_states"].level == "ok" and "clock" not in with_clock, with_clock
    assert "simulated time" in with_clock["joint_states"].found
    assert without["joint_states"].level == "fail" and "simulated time" in without["joint_states"].found
    assert without["clock"].level == "fail" and "/clock" in without["clock"].found


def test_what_drivers_get_wrong_is_named(monkeypatch):
    """Zero stamps, an IMU with w first, stamped velocities; a gripper and halves are no fault."""
    names = list(doctor.Embodiment.load("quadruped").joint_names)
    with domain() as own:
        joints = own.node.create_publisher(JointState, "joint_states", qos.SENSOR_OUTPUT)
        imu = own.node.create_publisher(Imu, "imu_sensor_broadcaster/imu", qos.SENSOR_OUTPUT)
        own.node.create_publisher(TwistStamped, "cmd_vel", qos.COMMAND)
        stamped = threading.Event()

        def publish():
            now = time.time() if stamped.is_set() else 0.0
            joints.publish(joint_state_message(now, ["finger"], [0.0], [0.0]))
            for part in (names[:5], names[5:]):
                joints.publish(joint_state_message(now, part, [0.0] * len(part), [0.0] * len(part)))
            imu.publish(imu_message(time.time(), "imu_link", (1, 0, 0, 0), (0, 0, 0), (0, 0, 9.81)))

        own.node.create_timer(0.02, publish)
        listener = own.run(["-c", LISTENER])
        listener.wait_for_log("ready")
        found = looked(own, monkeypatch)
        assert "stamp is zero" in found["joint_states"].found
        assert "contradicts the accelerometer" in found["imu_sensor_broadcaster/imu"].found
        assert "TwistStamped" in found["cmd_vel"].found and "cmd_vel_stamped" in found["cmd_vel"].advice
        stamped.set()
        assert looked(own, monkeypatch)["joint_states"].level == "ok"


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
