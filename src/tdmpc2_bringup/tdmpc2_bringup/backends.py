"""What each `sim` needs beside the planner. No launch imports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tdmpc2_bringup.controllers import COMMAND_CONTROLLERS, broadcasters
from tdmpc2_bringup.robot_files import RobotFiles
from tdmpc2_bringup.specs import Include, Layout, NodeSpec
from tdmpc2_core.descriptions import read_stance
from tdmpc2_core.errors import UserError

Installed = Callable[[str], bool]
"""Whether a ROS package is there."""

_NEEDED = {
    "mujoco": ("mujoco_ros2_control", "controller_manager", "robot_state_publisher"),
    "gazebo": (
        "gz_ros2_control",
        "ros_gz_sim",
        "ros_gz_bridge",
        "controller_manager",
        "robot_state_publisher",
    ),
    "mock": ("controller_manager", "robot_state_publisher"),
    "none": ("controller_manager", "robot_state_publisher"),
}


def missing(sim: str, installed: Installed) -> list[str]:
    """Packages that a backend needs and that are not there."""
    return [name for name in _NEEDED[sim] if not installed(name)]


def own_simulation(robot: RobotFiles, sim_time: bool) -> Layout:
    """This suite's simulation node, which stands in for ros2_control."""
    parameters = {
        "robot": robot.robot,
        "prefix": robot.prefix,
        "publish_clock": sim_time,
        "view": not robot.settings.headless,
    }
    node = NodeSpec(
        "tdmpc2_ros", "mujoco_sim", "mujoco_sim", (robot.parameters, parameters), role="essential"
    )
    return Layout((node,))


def external_driver() -> Layout:
    """Nothing: the robot's own driver runs the controller manager."""
    note = "sim:=none without hardware_plugin: the robot's own driver must run its controllers"
    return Layout((), notes=(note,))


def ros2_control(robot: RobotFiles, sim_time: bool) -> Layout:
    """The controller manager of MuJoCo, mock or hardware, and the spawner of its controllers."""
    mujoco = robot.settings.sim == "mujoco"
    manager = NodeSpec(
        "mujoco_ros2_control" if mujoco else "controller_manager",
        "ros2_control_node",
        parameters=(robot.controllers, {"use_sim_time": sim_time}),
        remappings=(("~/robot_description", "robot_description"),),
        role="essential",
    )
    return Layout((state_publisher(robot, sim_time), manager, _spawner(robot)))


def gazebo(robot: RobotFiles, sim_time: bool) -> Layout:
    """Gazebo with our world; its plug-in runs the controller manager."""
    settings, stance = robot.settings, read_stance(robot.embodiment)
    world = robot.share / "worlds" / "flat.sdf"
    server = "-r -s --headless-rendering" if settings.headless else "-r"
    name = f"{robot.prefix}{robot.embodiment.name}"
    place = (
        "-topic",
        "robot_description",
        "-name",
        name,
        "-allow_renaming",
        "true",
        "-z",
        f"{stance.height:g}",
    )
    topics = f"/{settings.namespace.strip('/')}/".replace("//", "/")
    contacts = [
        f"{topics}{robot.prefix}{foot}_contact@ros_gz_interfaces/msg/Contacts[gz.msgs.Contacts"
        for foot in stance.feet
    ]
    bridged = ("/clock@rosgraph_msgs/msg/Clock[gz.msgs.Clock", *contacts)
    nodes = (
        state_publisher(robot, sim_time),
        NodeSpec("ros_gz_sim", "create", arguments=place if stance.free_joint else place[:-2], ours=False),
        NodeSpec("ros_gz_bridge", "parameter_bridge", arguments=bridged, ours=False),
        _spawner(robot),
    )
    arguments = {"gz_args": f"{server} {world}", "on_exit_shutdown": "true"}
    return Layout(nodes, (Include("ros_gz_sim", "gz_sim.launch.py", arguments),))


def state_publisher(robot: RobotFiles, sim_time: bool) -> NodeSpec:
    """robot_state_publisher, which also hands the description to the controller manager."""
    parameters: dict[str, Any] = {"robot_description": robot.description(), "use_sim_time": sim_time}
    return NodeSpec("robot_state_publisher", "robot_state_publisher", "robot_state_publisher", (parameters,))


def _spawner(robot: RobotFiles) -> NodeSpec:
    names = (*broadcasters(robot.embodiment), robot.settings.controller)
    arguments = (*names, "--param-file", robot.controllers)
    return NodeSpec(
        "controller_manager",
        "spawner",
        arguments=arguments,
        role="gate",
        ours=False,
    )


def check_controller(robot: RobotFiles) -> None:
    """Raise UserError when the backend cannot take what the chosen controller commands."""
    controller, sim = robot.settings.controller, robot.settings.sim
    if COMMAND_CONTROLLERS[controller] == "effort" and sim in ("mujoco", "mock"):
        what = "moves joints by position" if sim == "mujoco" else "does not turn torque into motion"
        raise UserError(f"controller:={controller} needs sim:=gazebo or none; sim:={sim} {what}")
