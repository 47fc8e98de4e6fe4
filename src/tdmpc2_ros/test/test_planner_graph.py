"""The planner in a ROS graph as people have it: drivers that share topics, other types, other clocks."""

from __future__ import annotations

import json
import math
import time

import pytest
from fake_robot import PLANNER, FakeRobot
from processes import domain, wait_until
from random_agent import ROBOT, random_bundle
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

from tdmpc2_core.robots import Embodiment
from tdmpc2_ros import qos
from tdmpc2_ros.messages import to_time

pytestmark = pytest.mark.timeout(400)
STRANGERS = """
import rclpy
from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import Imu, JointState
rclpy.init()
node = rclpy.create_node("strangers")
node.create_publisher(TwistStamped, "cmd_vel", 1)
node.create_publisher(Imu, "joint_states", 1)
node.create_subscription(JointState, "joint_trajectory_controller/joint_trajectory", print, 1)
rclpy.spin(node)
"""
QUICK = {"autostart": True, "method": "policy"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return random_bundle(tmp_path_factory.mktemp("graph"))


def blind(tmp_path) -> str:
    """A bundle of the robot whose policy reads no joint velocity."""
    mapping = ROBOT.to_dict()
    terms = mapping["observation"]["terms"]
    mapping["observation"]["terms"] = [t for t in terms if t["name"] != "joint_velocity"]
    return random_bundle(tmp_path, Embodiment.from_dict(mapping | {"name": "blind"}))


def hold_share(robot, seconds: float) -> float:
    """Share of ticks in which the planner held."""

    def counts():
        values = robot.status()[1]
        return int(values["ticks"]), int(values.get("modes.hold", 0))

    time.sleep(1.2)
    first = counts()
    time.sleep(seconds)
    last = counts()
    return (last[1] - first[1]) / max(1, last[0] - first[0])


def test_a_gripper_beside_the_arm_and_halves_from_two_drivers(bundle):
    """Each message of the robot's joints is followed at once by another of somebody else's."""
    with domain() as own:
        robot = FakeRobot(own)
        process = own.start(PLANNER, {"model": bundle, **QUICK})
        robot.wait_for_commands(10, process=process)
        alone = hold_share(robot, 3.0)
        publisher, send = robot._sensors["joints"][0], robot._sensors["joints"][0].publish

        class WithGripper:
            @staticmethod
            def publish(message):
                send(message)
                fingers = JointState(header=message.header, name=["finger"], position=[math.nan])
                publisher.publish(fingers)

        class Halves:
            @staticmethod
            def publish(message):
                for part in (slice(0, 5), slice(5, None)):
                    half = JointState(header=message.header, name=message.name[part])
                    half.position, half.velocity = message.position[part], message.velocity[part]
                    send(half)

        for sender in (WithGripper, Halves):
            robot._sensors["joints"] = (sender, robot._sensors["joints"][1])
            assert hold_share(robot, 3.0) <= alone + 0.05, sender.__name__
        assert process.stop() == 0 and "refused" not in process.log
        robot.close()


def test_hardware_without_velocities_moves_a_policy_that_reads_none(tmp_path):
    def spoil(message):
        message.velocity = [math.nan] * len(message.name)

    with domain() as own:
        robot = FakeRobot(own)
        robot.spoil = spoil
        process = own.start(PLANNER, {"model": blind(tmp_path), **QUICK})
        robot.wait_for_commands(20, process=process)
        assert process.stop() == 0
        robot.close()


def test_another_type_on_a_topic_is_named(bundle):
    with domain() as own:
        robot = FakeRobot(own)
        own.run(["-c", STRANGERS])  # in a process of their own: DDS refuses two types in one
        process = own.start(PLANNER, {"model": bundle, **QUICK})
        for text in ("TwistStamped, which is not heard", "cmd_vel_stamped to true", "sensor_msgs/msg/Imu"):
            process.wait_for_log(text, 30.0)
            wait_until(lambda t=text: t in robot.status()[0], 10.0, lambda: str(robot.status()))
        wait_until(lambda: "listens for sensor_msgs/msg/JointState" in robot.status()[0], 10.0)
        assert process.log.count("cmd_vel_stamped") == 1
        robot.close()


@pytest.mark.parametrize(
    ("parameters", "shift", "text"),
    [
        ({"use_sim_time": True}, None, "nothing has come on /clock"),
        ({}, -1e18, "the stamp is zero"),
        ({}, 1000.0, "simulated time"),
        ({}, "week", "synchronise"),
    ],
)
def test_the_cause_is_the_clock(bundle, parameters, shift, text):
    """`shift`: what the driver stamps instead of now, s."""

    def spoil(message):
        if shift == "week":
            message.header.stamp.sec -= 7 * 86400
        elif shift is not None:
            message.header.stamp = to_time(max(0.0, shift))

    with domain() as own:
        robot = FakeRobot(own)
        robot.spoil = spoil
        own.start(PLANNER, {"model": bundle, **QUICK, **parameters})
        wait_until(lambda: text in robot.status()[0], 30.0, lambda: str(robot.status()))
        assert "e+09" not in robot.status()[0]
        robot.close()


def test_an_imu_in_another_convention_is_refused(bundle):
    with domain() as own:
        robot = FakeRobot(own)
        publisher, encode = robot._sensors["imu"]

        def swapped(stamp, reading):
            message = encode(stamp, reading)
            message.orientation.x, message.orientation.w = 1.0, 0.0  # w first
            return message

        robot._sensors["imu"] = (publisher, swapped)
        process = own.start(PLANNER, {"model": bundle, **QUICK})
        process.wait_for_log("orientation contradicts the accelerometer", 30.0)
        assert "not w, x, y, z" in process.log and robot.quiet(0.5)
        robot._sensors["imu"] = (publisher, encode)
        robot.wait_for_commands(10, process=process)
        assert process.stop() == 0
        robot.close()


def test_under_simulated_time_latency_is_real_and_the_start_is_clean(bundle, tmp_path):
    """A clock that advances in steps of 4 ms: by it latencies would be 0 or 4 ms."""
    report = tmp_path / "report.json"
    with domain(use_sim_time=True) as own:
        clock = own.node.create_publisher(Clock, "/clock", qos.CLOCK)
        started = time.monotonic()

        def tick():
            clock.publish(Clock(clock=to_time(5.0 + 0.004 * int((time.monotonic() - started) / 0.004))))

        steady = own.node.create_timer(0.004, tick, clock=_steady())
        robot = FakeRobot(own)
        parameters = {"model": bundle, "use_sim_time": True, "report": str(report), **QUICK}
        process = own.start(PLANNER, parameters)
        robot.wait_for_commands(100, process=process)
        assert process.stop() == 0, process.log
        own.node.destroy_timer(steady)
        robot.close()
    assert "in the future" not in process.log and "[ERROR]" not in process.log, process.log
    latency = json.loads(report.read_text())["latency_ms"]
    assert 0.0 < latency["p50"] < 20.0 and latency["p50"] % 4.0 > 1e-3


def _steady():
    from rclpy.clock import Clock as NodeClock
    from rclpy.clock import ClockType

    return NodeClock(clock_type=ClockType.STEADY_TIME)
