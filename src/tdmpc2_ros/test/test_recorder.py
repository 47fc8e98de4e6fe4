"""The recorder node as a process: bags that other tools open, also after SIGKILL."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest
import yaml
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Twist, TwistStamped
from processes import domain, wait_until
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

from tdmpc2_ros import qos
from tdmpc2_ros.messages import joint_state_message

RECORDER = "tdmpc2_ros.recorder.node"
NAMES = ("b", "a")


def _count(bag: Path, topic: str) -> tuple[int, list]:
    """Messages of a topic read by rosbags, and their content."""
    with AnyReader([bag]) as reader:
        connections = [c for c in reader.connections if c.topic == topic]
        rows = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(connections)]
        assert sum(c.msgcount for c in connections) == len(rows)
    return len(rows), rows


def _publish(own, bag: Path, number: int, profile=qos.SENSOR_OUTPUT):
    """Start a recorder, send `number` joint states and commands at 100 Hz."""
    process = own.start(RECORDER, {"output": str(bag)})
    joints = own.node.create_publisher(JointState, "joint_states", profile)
    command = own.node.create_publisher(Twist, "cmd_vel", qos.COMMAND)
    for publisher in (joints, command):
        wait_until(lambda p=publisher: p.get_subscription_count() > 0, 20.0, lambda: process.log)
    for k in range(number):
        joints.publish(joint_state_message(float(k), NAMES, [0.1 * k, 1.0], [2.0, 3.0]))
        twist = Twist()
        twist.linear.x = 0.5
        command.publish(twist)
        time.sleep(0.01)
    return process


def _complete(stamps: list[int], last: int) -> bool:
    """No gap up to `last`, but for the first few: the far end of a connection is matched a little later than
    this one, and only this one can be asked."""
    return stamps == list(range(stamps[0], last + 1)) and stamps[0] <= 20


def test_bag_is_complete_after_sigint(tmp_path):
    with domain() as own:
        process = _publish(own, tmp_path / "bag", 150)
        time.sleep(0.3)
        assert process.stop(signal.SIGINT) == 0, process.log
    number, rows = _count(tmp_path / "bag", "/joint_states")
    assert _complete([row.header.stamp.sec for row in rows], 149)
    assert rows[0].name == list(NAMES)
    assert rows[-1].position == pytest.approx([14.9, 1.0])
    assert _count(tmp_path / "bag", "/cmd_vel")[0] >= 130
    information = yaml.safe_load((tmp_path / "bag/metadata.yaml").read_text())["rosbag2_bagfile_information"]
    counts = {
        t["topic_metadata"]["name"]: t["message_count"] for t in information["topics_with_message_count"]
    }
    assert counts["/joint_states"] == number and information["message_count"] == sum(counts.values())
    assert (information["version"], information["storage_identifier"]) == (9, "sqlite3")
    # a second reader: SQL as the storage plugin of rosbag2 uses it
    with sqlite3.connect(tmp_path / "bag" / information["relative_file_paths"][0]) as database:
        query = "SELECT data FROM messages JOIN topics ON topics.id = topic_id WHERE name = '/joint_states'"
        payloads = [row[0] for row in database.execute(query)]
        assert len(payloads) == number
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_killed_recorder_keeps_all_but_the_last_second(tmp_path):
    with domain() as own:
        process = _publish(own, tmp_path / "bag", 350)
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    number, _ = _count(tmp_path / "bag", "/joint_states")
    assert 200 <= number <= 350


def test_best_effort_publishers_are_recorded(tmp_path):
    with domain() as own:
        process = own.start(RECORDER, {"output": str(tmp_path / "bag")})
        joints = own.node.create_publisher(JointState, "joint_states", qos.SENSOR_INPUT)
        wait_until(lambda: joints.get_subscription_count() > 0, 20.0, lambda: process.log)
        for k in range(100):
            joints.publish(joint_state_message(float(k), NAMES, [0.0, 1.0], [2.0, 3.0]))
            time.sleep(0.01)
        time.sleep(0.3)
        assert process.stop(signal.SIGTERM) == 0, process.log
    assert _count(tmp_path / "bag", "/joint_states")[0] >= 90


def test_the_planners_own_topics_and_the_clock_are_recorded(tmp_path):
    """~/status is latched: it is in the bag although it was published before the recorder came."""
    messages = pytest.importorskip("tdmpc2_msgs.msg", reason="tdmpc2_msgs is not built")
    with domain() as own:
        status = own.node.create_publisher(messages.PlannerStatus, "planner/status", qos.LATCHED)
        status.publish(messages.PlannerStatus(robot="dog", mode=3))
        process = own.start(RECORDER, {"output": str(tmp_path / "bag")})
        plan = own.node.create_publisher(messages.PlanChunk, "planner/plan", qos.COMMAND)
        clock = own.node.create_publisher(Clock, "/clock", qos.CLOCK)
        for publisher in (plan, status, clock):
            wait_until(lambda p=publisher: p.get_subscription_count() > 0, 20.0, lambda: process.log)
        time.sleep(1.5)  # by now /clock is heard as best effort
        for k in range(20):
            plan.publish(messages.PlanChunk(names=list(NAMES), horizon=1, values=[0.1, k]))
            clock.publish(Clock(clock=Time(sec=k)))
            time.sleep(0.02)
        time.sleep(0.3)
        assert process.stop(signal.SIGINT) == 0, process.log
    (first, *_) = _count(tmp_path / "bag", "/planner/status")[1]
    assert (first.robot, first.mode) == ("dog", 3)
    assert _count(tmp_path / "bag", "/planner/plan")[1][-1].values[1] == 19.0
    assert _count(tmp_path / "bag", "/clock")[1][-1].clock.sec == 19


def test_a_topic_of_another_type_is_named(tmp_path):
    with domain() as own:
        process = own.start(RECORDER, {"output": str(tmp_path / "bag")})
        own.node.create_publisher(TwistStamped, "cmd_vel", qos.COMMAND)
        process.wait_for_log("geometry_msgs/msg/TwistStamped is not recorded", 20.0)
        assert process.stop(signal.SIGINT) == 0, process.log


def test_existing_folder_is_refused_and_left_alone(tmp_path):
    kept = tmp_path / "bag" / "metadata.yaml"
    kept.parent.mkdir()
    kept.write_text("precious")
    with domain() as own:
        process = own.start(RECORDER, {"output": str(kept.parent)})
        assert process.wait(20.0) == 2
        assert "exists already" in process.log and "Traceback" not in process.log
    assert kept.read_text() == "precious"


def test_unwritable_folder_is_refused(tmp_path):
    target = "/proc/bag" if os.geteuid() == 0 else str(tmp_path / "closed" / "bag")
    (tmp_path / "closed").mkdir(mode=0o500)
    with domain() as own:
        process = own.start(RECORDER, {"output": target})
        assert process.wait(20.0) == 2
        assert "cannot be made" in process.log and "Traceback" not in process.log
