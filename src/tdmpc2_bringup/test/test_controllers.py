"""The controllers YAML of every robot fits its embodiment, and ROS 2 can read it."""

import subprocess
import sys
from pathlib import Path

import pytest
from bringup_checks import controller_problems
from workspace_support import SOURCE

from tdmpc2_bringup.controllers import controllers_text
from tdmpc2_core.robots import Embodiment

FILES = sorted((SOURCE / "tdmpc2_bringup" / "config").glob("*_controllers.yaml"))
QUADRUPED = SOURCE / "tdmpc2_bringup" / "config" / "quadruped_controllers.yaml"

READ_WITH_ROS = """
import sys, rclpy
rclpy.init(args=["--ros-args", "--params-file", sys.argv[1]], domain_id=101)
for name in ("controller_manager", "joint_trajectory_controller", "forward_position_controller"):
    for space in ("", "/r1"):
        options = {"namespace": space, "automatically_declare_parameters_from_overrides": True}
        node = rclpy.create_node(name, **options)
        print(space + name, *sorted(node.get_parameters_by_prefix("")))
"""


def robot_of(file: Path) -> Embodiment:
    """The embodiment that a controllers file is named after."""
    return Embodiment.load(file.name.removesuffix("_controllers.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_controllers_fit_the_robot(file):
    assert controller_problems(file, robot_of(file)) == []


@pytest.mark.parametrize(
    ("text", "broken", "problem"),
    [
        ("      - RR_calf_joint", "      - RR_calf", "joints are not those of quadruped"),
        ("enforce_command_limits: true", "enforce_command_limits: false", "enforce_command_limits"),
        ("desired_state: true", "desired_state: false", "interpolate_from_desired_state is not on"),
        ("update_rate: 250", "update_rate: 200", "update_rate 200"),
        ("interface_name: position", "interface_name: posture", "unknown interface posture"),
        ("p: 60.0", "p: 61.0", "gains are not those of quadruped"),
        ("/**/imu_sensor_broadcaster:", "imu_sensor_broadcaster:", "fails in a namespace"),
        ("/ForwardCommandController", "/ForwardController", "unknown type"),
        ("frame_id: imu_link", "frame_id: imu", "frame_id is not imu_link"),
    ],
)
def test_a_broken_file_is_noticed(tmp_path, text, broken, problem):
    file = tmp_path / QUADRUPED.name
    original = QUADRUPED.read_text(encoding="utf-8")
    assert text in original
    file.write_text(original.replace(text, broken), encoding="utf-8")
    problems = controller_problems(file, robot_of(file))
    assert problems and all(problem in each for each in problems)


def test_planner_outputs_name_these_controllers():
    text = QUADRUPED.read_text(encoding="utf-8")
    for output in ("joint_trajectory", "forward_position"):
        assert f"\n/**/{output}_controller:\n" in text


def test_ros_reads_the_file():
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    command = [sys.executable, "-c", READ_WITH_ROS, str(QUADRUPED)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    read = {name: set(parameters) for name, *parameters in map(str.split, result.stdout.splitlines())}
    assert {"update_rate", "enforce_command_limits"} <= read["controller_manager"]
    assert {"joints", "command_interfaces"} <= read["joint_trajectory_controller"]
    assert {"joints", "interface_name"} <= read["forward_position_controller"]
    assert {name.removeprefix("/r1") for name in read if name.startswith("/r1")} == {
        name for name in read if "/" not in name
    }
    assert all(read["/r1" + name] == read[name] for name in read if "/" not in name)


@pytest.mark.parametrize("prefix", ["", "left_"])
def test_controllers_made_with_a_prefix_fit_too(tmp_path, prefix):
    file = tmp_path / "controllers.yaml"
    robot = Embodiment.load("quadruped")
    file.write_text(controllers_text(robot, prefix), encoding="utf-8")
    assert controller_problems(file, robot, prefix) == []
