"""Checks of what a launch starts, and of controller configurations, without a ROS installation.

Each returns problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tdmpc2_bringup.layout import Layout, NodeSpec
from tdmpc2_core.config import from_mapping
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment

CONTROLLER_TYPES = {
    "forward_command_controller/ForwardCommandController",
    "imu_sensor_broadcaster/IMUSensorBroadcaster",
    "joint_state_broadcaster/JointStateBroadcaster",
    "joint_trajectory_controller/JointTrajectoryController",
}
PROGRAMS = {
    "controller_manager": {"ros2_control_node", "spawner"},
    "mujoco_ros2_control": {"ros2_control_node"},
    "robot_state_publisher": {"robot_state_publisher"},
    "ros_gz_bridge": {"parameter_bridge"},
    "ros_gz_sim": {"create"},
    "rviz2": {"rviz2"},
    "joy": {"joy_node", "game_controller_node"},
    "teleop_twist_joy": {"teleop_node"},
}
"""Executables of other packages; those of ours come from their setup.py."""
_MOTION = ("linear.x", "linear.y", "angular.yaw")
PARAMETERS = {
    "robot_state_publisher": {"robot_description"},
    "game_controller_node": {"autorepeat_rate", "deadzone", "device_id"},
    "teleop_node": {
        *("require_enable_button", "enable_button", "enable_turbo_button", "publish_stamped_twist"),
        *(f"{what}_{name}" for what in ("axis", "scale") for name in _MOTION),
    },
}
OF_EVERY_NODE = {"use_sim_time"}
_WILD = "/**/"


def controller_problems(file: Path, embodiment: Embodiment, prefix: str = "") -> list[str]:
    """A controllers YAML against the robot it is for."""
    content = yaml.safe_load(file.read_text("utf-8"))
    problems = [f"{name}: key without {_WILD} fails in a namespace" for name in content if name[:4] != _WILD]
    nodes = {name.removeprefix(_WILD): body["ros__parameters"] for name, body in content.items()}
    manager = nodes.pop("controller_manager")
    controllers = {name: value["type"] for name, value in manager.items() if isinstance(value, dict)}
    problems += [
        f"{name}: unknown type {kind}" for name, kind in controllers.items() if kind not in CONTROLLER_TYPES
    ]
    problems += [f"{name}: not a controller of the manager" for name in nodes if name not in controllers]
    rate = manager["update_rate"]
    if embodiment.physics_rate % rate or rate % embodiment.control_rate:
        problems.append(f"update_rate {rate} does not divide the physics rate into whole control periods")
    if manager.get("enforce_command_limits") is not True:
        problems.append("enforce_command_limits is not on")
    interfaces = {"position", "velocity", "effort"}
    joints = [prefix + name for name in embodiment.joint_names]
    for name, parameters in nodes.items():
        if "joints" in parameters and parameters["joints"] != joints:
            problems.append(f"{name}: joints are not those of {embodiment.name}, in its order")
        commands = parameters.get("command_interfaces", [])
        given = [*commands, *parameters.get("state_interfaces", [])]
        given += [parameters["interface_name"]] if "interface_name" in parameters else []
        problems += [f"{name}: unknown interface {each}" for each in given if each not in interfaces]
        if commands and parameters.get("interpolate_from_desired_state") is not True:
            problems.append(f"{name}: interpolate_from_desired_state is not on")
        if commands == ["effort"]:
            gains = {joint: (each["p"], each["d"]) for joint, each in parameters["gains"].items()}
            wanted = {prefix + joint.name: (joint.kp, joint.kd) for joint in embodiment.joints}
            problems += [] if gains == wanted else [f"{name}: gains are not those of {embodiment.name}"]
    imu = nodes.get("imu_sensor_broadcaster", {})
    if imu.get("frame_id") != (embodiment.imu_frame and prefix + embodiment.imu_frame):
        problems.append(f"imu_sensor_broadcaster: frame_id is not {prefix}{embodiment.imu_frame}")
    return problems


def layout_problems(
    layout: Layout, executables: Mapping[str, set[str]], settings: Mapping[str, type]
) -> list[str]:
    """What a launch starts: programs, parameters and their values, files, and controllers exist.

    `executables` per package and `settings`, a dataclass per executable, are those of this suite.
    """
    problems = []
    for node in layout.nodes:
        known = {**PROGRAMS, **executables}
        if node.executable not in known.get(node.package, set()):
            problems.append(f"{node.package} has no executable {node.executable}")
            continue
        for given in node.parameters:
            if isinstance(given, dict):
                problems += _values(node, given, settings)
        problems += [f"no file {path}" for path in _paths(node) if not Path(path).exists()]
        if node.executable == "spawner":
            problems += _controllers(node)
    arguments = [text for include in layout.includes for text in include.arguments.values()]
    paths = [part for text in arguments for part in text.split() if part.startswith("/")]
    return problems + [f"no file {path}" for path in paths if not Path(path).exists()]


def _values(node: NodeSpec, given: dict[str, Any], settings: Mapping[str, type]) -> list[str]:
    own = {name: value for name, value in given.items() if name not in OF_EVERY_NODE}
    if node.executable not in settings:
        unknown = set(own) - PARAMETERS.get(node.executable, set())
        return [f"{node.executable} has no parameter {name}" for name in sorted(unknown)]
    try:
        from_mapping(settings[node.executable], own, node.executable)
    except UserError as problem:
        return [str(problem)]
    return []


def _paths(node: NodeSpec) -> list[str]:
    texts = [each for each in node.parameters if isinstance(each, str)]
    texts += [value for each in node.parameters if isinstance(each, dict) for value in each.values()]
    texts += node.arguments
    return [text for text in texts if isinstance(text, str) and text.startswith("/") and "@" not in text]


def _controllers(node: NodeSpec) -> list[str]:
    names = node.arguments[: node.arguments.index("--param-file")]
    file = Path(node.arguments[node.arguments.index("--param-file") + 1])
    if not file.is_file():
        return []
    content = yaml.safe_load(file.read_text("utf-8"))
    manager = next(body["ros__parameters"] for key, body in content.items() if "controller_manager" in key)
    return [f"{file.name} has no controller {name}" for name in names if name not in manager]
