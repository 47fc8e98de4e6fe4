"""The planner knows its controller: processes, and controller_manager_msgs as far as the planner reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_robot import PLANNER, FakeRobot
from processes import domain, wait_until
from random_agent import ROBOT, random_bundle
from std_msgs.msg import String

from tdmpc2_ros import qos

MANAGER = Path(__file__).with_name("stand_in_manager.py")
NAME = "joint_trajectory_controller"
pytestmark = pytest.mark.timeout(400)

INTERFACES = {
    "msg/NamedLifecycleState.msg": "string name\nlifecycle_msgs/State state\n",
    "msg/ControllerManagerActivity.msg": (
        "std_msgs/Header header\n"
        "NamedLifecycleState[] controllers\nNamedLifecycleState[] hardware_components\n"
    ),
    "msg/ControllerState.msg": "string name\nstring state\n",
    "srv/ListControllers.srv": "---\nControllerState[] controller\n",
}
"""Names and fields that the planner reads, as ros2_control has them."""
CMAKE = """cmake_minimum_required(VERSION 3.16)
project(controller_manager_msgs)
find_package(ament_cmake REQUIRED)
find_package(lifecycle_msgs REQUIRED)
find_package(std_msgs REQUIRED)
find_package(rosidl_default_generators REQUIRED)
rosidl_generate_interfaces(${PROJECT_NAME} %s DEPENDENCIES lifecycle_msgs std_msgs)
ament_package()
"""
PACKAGE = """<package format="3"><name>controller_manager_msgs</name><version>0.0.1</version>
<description>Interfaces for a test.</description><maintainer email="nobody@example.com">nobody</maintainer>
<license>BSD-3-Clause</license><buildtool_depend>ament_cmake</buildtool_depend>
<buildtool_depend>rosidl_default_generators</buildtool_depend><depend>lifecycle_msgs</depend>
<depend>std_msgs</depend><exec_depend>rosidl_default_runtime</exec_depend>
<member_of_group>rosidl_interface_packages</member_of_group>
<export><build_type>ament_cmake</build_type></export></package>
"""


@pytest.fixture(scope="module")
def interfaces(tmp_path_factory):
    """Environment of processes that have controller_manager_msgs."""
    if shutil.which("colcon") is None or shutil.which("c++") is None:
        pytest.skip("the interfaces are built with colcon and a C++ compiler")
    folder = tmp_path_factory.mktemp("interfaces")
    source = folder / "src" / "controller_manager_msgs"
    for name, text in INTERFACES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    (source / "CMakeLists.txt").write_text(CMAKE % " ".join(f'"{name}"' for name in INTERFACES))
    (source / "package.xml").write_text(PACKAGE)
    command = [
        "colcon",
        "build",
        "--base-paths",
        "src",
        "--cmake-args",
        f"-DPython3_EXECUTABLE={sys.executable}",
    ]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=360)
    assert built.returncode == 0, built.stdout + built.stderr
    place = folder / "install" / "controller_manager_msgs"
    (packages,) = place.glob("lib/python3*/site-packages")
    paths = {"AMENT_PREFIX_PATH": place, "LD_LIBRARY_PATH": place / "lib", "PYTHONPATH": packages}
    return {name: f"{path}{os.pathsep}{os.environ.get(name, '')}" for name, path in paths.items()}


def test_a_controller_that_is_not_active_is_a_mode_with_a_reason(interfaces, monkeypatch, tmp_path):
    for name, value in interfaces.items():
        monkeypatch.setenv(name, value)
    with domain() as own:
        tell = own.node.create_publisher(String, "stand_in/controllers", qos.LATCHED)
        tell.publish(String(data=f"{NAME}=active joint_state_broadcaster=active"))
        manager = own.run([str(MANAGER)])
        manager.wait_for_log("ready")
        robot = FakeRobot(own)
        parameters = {"model": random_bundle(tmp_path), "autostart": True, "method": "policy"}
        process = own.start(PLANNER, parameters)
        robot.wait_for_commands(10, process=process)
        for states, reason in (
            (f"{NAME}=inactive", f"{NAME} is inactive"),
            (f"{NAME}=unconfigured", f"{NAME} is unconfigured"),
            ("joint_state_broadcaster=active", f"{NAME} is not loaded"),
        ):
            tell.publish(String(data=states))
            process.wait_for_log(f"not commanding: {reason}", 10.0)
            wait_until(lambda r=reason: r in robot.status()[0], 5.0, lambda: str(robot.status()))
            assert robot.status()[1]["mode"] == "no_controller"
            assert robot.quiet(0.3), "commands that nobody hears"
            robot.position = robot.position + 0.02  # it is moved meanwhile
            come_back(robot, tell, process)
        manager.kill()
        wait_until(
            lambda: "controller manager is gone" in robot.status()[0], 40.0, lambda: str(robot.status())
        )
        assert process.stop() == 0 and "Traceback" not in process.log
        robot.close()


def come_back(robot, tell, process) -> None:
    """The controller is active again: commands start at the measured position, and no faster than allowed."""
    before = len(robot.trajectories)
    tell.publish(String(data=f"{NAME}=active"))
    robot.wait_for_commands(5, process=process)
    order = [list(robot.trajectories[before][1].joint_names).index(name) for name in ROBOT.joint_names]
    first = np.array(robot.trajectories[before][1].points[0].positions)[order]
    step = ROBOT.safety.max_target_rate * ROBOT.control_period
    assert np.abs(first - robot.position).max() <= step + 1e-6


def test_without_the_messages_the_planner_says_so_once(tmp_path):
    with domain() as own:
        process = own.start(PLANNER, {"model": random_bundle(tmp_path)})
        robot = FakeRobot(own)
        assert robot.change("configure")
        process.wait_for_log("controller_manager_msgs is not installed")
        assert process.stop() == 0
        assert process.log.count("controller_manager_msgs is not installed") == 1
        robot.close()
