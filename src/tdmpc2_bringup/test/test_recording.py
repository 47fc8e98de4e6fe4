"""What rosbag2 is told to record is what this suite's recorder records."""

from pathlib import Path

import pytest
import yaml
from workspace_support import SOURCE

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy  # noqa: E402

from tdmpc2_bringup.layout import layout  # noqa: E402
from tdmpc2_bringup.robot_files import RobotFiles  # noqa: E402
from tdmpc2_bringup.settings import Settings  # noqa: E402
from tdmpc2_core.robots import Embodiment, shipped_names  # noqa: E402
from tdmpc2_ros import qos  # noqa: E402
from tdmpc2_ros.recorder.node import LATCHED, recorded_types  # noqa: E402

BRINGUP = SOURCE / "tdmpc2_bringup"
NOT_OF_A_WALKER = {"/goal_pose", "/simulator/tool_pose"}
NOT_OF_AN_ARM = {"/imu_sensor_broadcaster/imu", "/cmd_vel", "/simulator/floating_base_state"}


@pytest.mark.parametrize("robot", shipped_names())
def test_the_files_name_what_the_recorder_records(robot):
    topics = (BRINGUP / "config" / f"{robot}_bag_topics.txt").read_text(encoding="utf-8").split()
    overrides = yaml.safe_load((BRINGUP / "config" / f"{robot}_bag_qos.yaml").read_text(encoding="utf-8"))
    missing = NOT_OF_AN_ARM if Embodiment.load(robot).pose_command else NOT_OF_A_WALKER
    every = {f"/{topic.lstrip('/')}" for topic in recorded_types(False)}
    assert set(topics) == every - missing and list(overrides) == topics
    for topic, profile in overrides.items():
        assert profile["depth"] > 100
        if "reliability" in profile:
            QoSReliabilityPolicy.get_from_short_key(profile["reliability"])
            QoSDurabilityPolicy.get_from_short_key(profile["durability"])
        if topic.lstrip("/") in LATCHED:
            assert profile["durability"] == qos.LATCHED.durability.short_key
    assert overrides["/clock"]["reliability"] == qos.CLOCK.reliability.short_key


def _recorder(tmp_path, installed=True, **given):
    settings = Settings(record="bag", **given)
    plan = layout(RobotFiles("quadruped", settings, BRINGUP, tmp_path), lambda package: installed)
    (node,) = (node for node in plan.nodes if node.executable == "recorder")
    return node, plan


def test_the_recorder_of_a_launch_is_ours_unless_rosbag2_is_asked_for_and_there(tmp_path):
    assert _recorder(tmp_path)[0].package == "tdmpc2_ros"
    node, _ = _recorder(tmp_path, recorder="rosbag2")
    assert node.package == "rosbag2_transport"
    assert (
        node.parameters[0]["storage.uri"] == "bag" and "/joint_states" in node.parameters[0]["record.topics"]
    )
    node, plan = _recorder(tmp_path, installed=False, recorder="rosbag2")
    assert node.package == "tdmpc2_ros" and any("stands in" in note for note in plan.notes)


def test_names_follow_namespace_and_controller(tmp_path):
    given = {"sim": "gazebo", "controller": "effort_trajectory_controller", "namespace": "/r1"}
    node, _ = _recorder(tmp_path, recorder="rosbag2", **given)
    topics = node.parameters[0]["record.topics"]
    assert {"/r1/joint_states", "/r1/planner/decision", "/clock", "/diagnostics"} <= set(topics)
    assert "/r1/effort_trajectory_controller/joint_trajectory" in topics
    assert not any("joint_trajectory_controller" in topic for topic in topics)
    path = Path(node.parameters[0]["record.qos_profile_overrides_path"])
    overrides = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert "/r1/planner/status" in overrides
