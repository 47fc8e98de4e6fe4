"""Checks of launch files and controller configurations without a ROS installation; each returns problems."""

import ast
from pathlib import Path
from typing import Any

import yaml
from workspace_support import SOURCE

CONTROLLER_TYPES = {
    "forward_command_controller/ForwardCommandController",
    "imu_sensor_broadcaster/IMUSensorBroadcaster",
    "joint_state_broadcaster/JointStateBroadcaster",
    "joint_trajectory_controller/JointTrajectoryController",
}
OF_EVERY_NODE = {"use_sim_time"}


def controller_problems(file: Path, embodiment: Any) -> list[str]:
    """A controllers YAML against the robot it is for."""
    nodes = {name: body["ros__parameters"] for name, body in yaml.safe_load(file.read_text("utf-8")).items()}
    manager = nodes.pop("controller_manager")
    controllers = {name: value["type"] for name, value in manager.items() if isinstance(value, dict)}
    problems = [
        f"{name}: unknown type {kind}" for name, kind in controllers.items() if kind not in CONTROLLER_TYPES
    ]
    problems += [f"{name}: not a controller of the manager" for name in nodes if name not in controllers]
    rate = manager["update_rate"]
    if embodiment.physics_rate % rate or rate % embodiment.control_rate:
        problems.append(f"update_rate {rate} does not divide the physics rate into whole control periods")
    if manager.get("enforce_command_limits") is not True:
        problems.append("enforce_command_limits is not on")
    interfaces = {"position", "velocity", "effort"}
    for name, parameters in nodes.items():
        if "joints" in parameters and tuple(parameters["joints"]) != embodiment.joint_names:
            problems.append(f"{name}: joints are not those of {embodiment.name}, in its order")
        given = [*parameters.get("command_interfaces", []), *parameters.get("state_interfaces", [])]
        given += [parameters["interface_name"]] if "interface_name" in parameters else []
        problems += [f"{name}: unknown interface {each}" for each in given if each not in interfaces]
    imu = nodes.get("imu_sensor_broadcaster", {})
    if imu.get("frame_id") != embodiment.imu_frame:
        problems.append(f"imu_sensor_broadcaster: frame_id is not {embodiment.imu_frame}")
    return problems


def launch_problems(
    file: Path, executables: dict[str, set[str]], parameters: dict[str, set[str]]
) -> list[str]:
    """A launch file's nodes: executables by package, and parameters by executable, are what exists."""
    problems = []
    for call in calls(file, "Node", "LifecycleNode"):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        package, executable = literal(given["package"]), literal(given["executable"])
        if executable not in executables.get(package, set()):
            problems.append(f"{package} has no executable {executable}")
            continue
        for dictionary in (each for each in ast.walk(given["parameters"]) if isinstance(each, ast.Dict)):
            names = {literal(key) for key in dictionary.keys if key is not None}
            unknown = names - parameters[executable] - OF_EVERY_NODE
            problems += [f"{executable} has no parameter {name}" for name in sorted(unknown)]
    return problems


def missing_files(file: Path) -> list[str]:
    """Files that the robot of a launch file needs and that do not exist."""
    robot = file.name.removesuffix(".launch.py")
    share = SOURCE / "tdmpc2_bringup"
    needed = [share / "config" / f"{robot}.yaml", share / "config" / f"{robot}_controllers.yaml"]
    core = SOURCE / "tdmpc2_core" / "tdmpc2_core"
    needed += [core / "robots" / "models" / robot / "embodiment.yaml", core / "bundles" / robot]
    return [str(each.relative_to(SOURCE)) for each in needed if not each.exists()]


def calls(file: Path, *names: str) -> list[ast.Call]:
    """Calls of the named functions in a Python file."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file)))
    found = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return [call for call in found if call.func.id in names]


def literal(node: ast.AST) -> str:
    """Text of a string literal; other expressions are not looked into."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
