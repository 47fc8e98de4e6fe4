"""The recorder node as a process: bags that other tools open, also after SIGKILL."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest
import rclpy
import yaml
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Twist, TwistStamped
from processes import domain, wait_until
from rclpy.duration import Duration
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from tdmpc2_ros import qos
from tdmpc2_ros.messages import joint_state_message
from tdmpc2_ros.recorder.bag import BagWriter, Splitting
from tdmpc2_ros.recorder.node import Recorder

RECORDER = "tdmpc2_ros.recorder.node"
NAMES = ("b", "a")


def _count(bag: Path, topic: str) -> tuple[int, list]:
    """Messages of a topic read by rosbags, and their content."""
    with AnyReader([bag]) as reader:
        connections = [c for c in reader.connections if c.topic == topic]
        rows = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(connections)]
        assert sum(c.msgcount for c in connections) == len(rows)
    return len(rows), rows


def _publish(own, bag: Path, number: int, profile=qos.SENSOR_OUTPUT, **parameters):
    """Start a recorder, send `number` joint states and commands at 100 Hz."""
    process = own.start(RECORDER, {"output": str(bag), **parameters})
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
        process = _publish(own, tmp_path / "bag", 150, storage="sqlite3")
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


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_killed_recorder_keeps_all_but_the_last_second(tmp_path, storage):
    with domain() as own:
        process = _publish(own, tmp_path / "bag", 250, storage=storage)
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    number, _ = _count(tmp_path / "bag", "/joint_states")
    assert 100 <= number <= 250


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_full_disk_leaves_a_whole_bag_and_an_error(tmp_path, storage):
    """The limit on the size of files stands for the disk: what is beyond is refused within a write."""
    start = (
        "import resource, sys\nfrom tdmpc2_ros.recorder.node import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))\nsys.exit(main())\n"
    )
    bag = tmp_path / "bag"
    with domain() as own:
        arguments = ["--ros-args", "-p", f"output:={bag}", "-p", f"storage:={storage}"]
        process = own.run(["-c", start, *arguments])
        joints = own.node.create_publisher(JointState, "joint_states", qos.SENSOR_OUTPUT)
        wait_until(lambda: joints.get_subscription_count() > 0, 20.0, lambda: process.log)
        names = [f"joint_{k}" for k in range(100)]
        message = joint_state_message(1.0, names, [0.0] * 100, [0.0] * 100)
        wait_until(lambda: joints.publish(message) or process.popen.poll() is not None, 20.0)
        assert process.wait() == 2 and "[ERROR]" in process.log, process.log
        assert "cannot be written any more" in process.log and "Traceback" not in process.log
    number, _ = _count(bag, "/joint_states")
    content = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    with AnyReader([bag]) as reader:
        assert len(list(reader.messages())) == content["message_count"] >= number > 10
    assert not list(bag.glob(".*"))


def test_ring_keeps_the_last_minutes_and_save_keeps_them_for_good(tmp_path):
    bag = tmp_path / "bag"
    with domain() as own:
        settings = own.node.create_publisher(String, "planner/settings", qos.LATCHED)
        settings.publish(String(data="{}"))
        process = _publish(own, bag, 450, ring_minutes=0.05)
        answer = own.call("/recorder/save", Trigger)
        assert answer.success, answer.message
        (saved,) = tmp_path.glob("bag_saved_*")
        _, rows = _count(saved, "/joint_states")
        stamps = [row.header.stamp.sec for row in rows]
        assert stamps == list(range(stamps[0], stamps[-1] + 1)), "a gap"
        assert stamps[0] > 20 and len(stamps) > 100, "not the last 3 s at 100 Hz"
        assert stamps[-1] == 449, f"{449 - stamps[-1]} messages that came before the call are not saved"
        assert _count(saved, "/planner/settings")[0] >= 1, "latched before the ring's first file began"
        before = {path.name: path.stat().st_size for path in saved.iterdir()}
        assert process.stop(signal.SIGINT) == 0, process.log
        assert {path.name: path.stat().st_size for path in saved.iterdir()} == before


def test_save_keeps_what_the_executor_has_not_come_to(tmp_path, monkeypatch):
    """Messages that wait in their queue when the service is called: the executor may take the call first."""
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    with domain() as own:
        rclpy.init(args=["--ros-args", "-p", f"output:={tmp_path / 'bag'}"], domain_id=own.id)
        try:
            recorder = Recorder()
            joints = own.node.create_publisher(JointState, "joint_states", qos.STATUS)
            wait_until(lambda: joints.get_subscription_count() > 0, 20.0)
            for k in range(10):
                joints.publish(joint_state_message(float(k), NAMES, [0.0, 1.0], [2.0, 3.0]))
            assert joints.wait_for_all_acked(Duration(seconds=10.0))
            assert recorder.bag.counts["/joint_states"] == 0, "somebody spins"
            answer = recorder._on_save(Trigger.Request(), Trigger.Response())
            assert answer.success, answer.message
            recorder.bag.close()
            recorder.destroy_node()
        finally:
            rclpy.shutdown()
    (saved,) = tmp_path.glob("bag_saved_*")
    assert [row.header.stamp.sec for row in _count(saved, "/joint_states")[1]] == list(range(10))


def _files(bag: Path) -> list[dict]:
    """Of the metadata: path, start, duration and count of every file, which must be there."""
    content = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert sorted(path.name for path in bag.glob("bag_*")) == sorted(content["relative_file_paths"])
    return content["files"]


def test_a_file_ends_after_max_bag_duration(tmp_path):
    bag = tmp_path / "bag"
    with domain() as own:
        process = _publish(own, bag, 130, max_bag_duration=0.4)
        time.sleep(0.3)
        assert process.stop(signal.SIGINT) == 0, process.log
    files = _files(bag)
    assert len(files) >= 3
    # a file ends with the first message after its time, which one message per 10 ms brings soon
    assert max(each["duration"]["nanoseconds"] for each in files) < 0.4e9
    assert min(each["duration"]["nanoseconds"] for each in files[:-1]) > 0.2e9
    number, rows = _count(bag, "/joint_states")
    assert _complete([row.header.stamp.sec for row in rows], 129)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_file_ends_at_max_bag_size(tmp_path, storage):
    writer = BagWriter(tmp_path / "bag", storage, Splitting(size=100_000))
    topic = writer.add_topic("/settings", "std_msgs/msg/String")
    text = get_typestore(Stores.ROS2_JAZZY).types["std_msgs/msg/String"]("x" * 995)
    data = get_typestore(Stores.ROS2_JAZZY).serialize_cdr(text, "std_msgs/msg/String")
    for k in range(300):
        writer.write(topic, 10_000_000 * k, data)
    writer.close()
    files, total = _files(writer.path), 300 * len(data)
    assert 0.5 * total / 100_000 < len(files) < 2.0 * total / 100_000 + 2
    for each in files[:-1]:
        held, size = each["message_count"] * len(data), (writer.path / each["path"]).stat().st_size
        assert 50_000 < held < 110_000 and size < 160_000  # indices and the schema come on top
    assert _count(writer.path, "/settings")[0] == 300 == sum(each["message_count"] for each in files)


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
