"""What a launch file starts for given settings. No launch imports; `robot_launch` makes actions of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tdmpc2_bringup import backends
from tdmpc2_bringup.backends import Installed
from tdmpc2_bringup.robot_files import RobotFiles
from tdmpc2_bringup.specs import Layout, NodeSpec
from tdmpc2_core.errors import UserError

_TRAJECTORY = "{}/joint_trajectory"


def layout(robot: RobotFiles, installed: Installed) -> Layout:
    """All nodes for a robot and its settings.

    Args:
        robot: the robot, its files and settings.
        installed: whether a ROS package is there; optional ones are done without, with a note.

    Raises:
        UserError: a package that the backend needs is missing, or settings and files do not fit.
    """
    settings = robot.settings
    backends.check_controller(robot)
    backend, notes, clock = _backend(robot, installed)
    sim_time = settings.use_sim_time == "true" or (settings.use_sim_time == "auto" and clock)
    base = backend(robot, sim_time)
    nodes, notes = list(base.nodes), [*notes, *base.notes]
    publishes = any(node.executable == "robot_state_publisher" for node in nodes)
    if settings.sim == "none" and not settings.hardware_plugin:
        publishes = True  # the driver does
    if not publishes:
        if installed("robot_state_publisher"):
            nodes.append(backends.state_publisher(robot, sim_time))
        else:
            notes.append("robot_state_publisher is not installed: no frames, no robot_description")
    nodes.append(_planner(robot, sim_time))
    if settings.record:
        nodes.append(_recorder(robot, sim_time))
    if settings.rviz:
        if installed("rviz2"):
            nodes.append(_rviz(robot, sim_time))
        else:
            notes.append("rviz:=true is ignored: the package rviz2 is not installed")
    autostart = settings.autostart == "true" or (settings.autostart == "auto" and settings.sim != "none")
    if not autostart:
        notes.append("the planner stays unconfigured until ros2 lifecycle set brings it to active")
    return replace(base, nodes=tuple(nodes), notes=tuple(notes), autostart=autostart)


def _backend(
    robot: RobotFiles, installed: Installed
) -> tuple[Callable[[RobotFiles, bool], Layout], list[str], bool]:
    """What makes the backend's layout, notes on the choice, and whether it publishes /clock by itself."""
    settings = robot.settings
    if settings.sim == "none" and not settings.hardware_plugin:
        return (lambda *_: backends.external_driver()), [], False
    lacking = backends.missing(settings.sim, installed)
    if not lacking:
        simulated = settings.sim in ("mujoco", "gazebo")
        backend = backends.gazebo if settings.sim == "gazebo" else backends.ros2_control
        return backend, [], simulated
    names = ", ".join(lacking)
    if settings.sim == "mujoco":
        note = f"sim:=mujoco: not installed: {names}; tdmpc2_ros mujoco_sim stands in for ros2_control"
        return backends.own_simulation, [note], False
    raise UserError(
        f"sim:={settings.sim} needs packages that are not installed: {names}; or take sim:=mujoco"
    )


def _planner(robot: RobotFiles, sim_time: bool) -> NodeSpec:
    forward = robot.settings.controller == "forward_position_controller"
    parameters = {
        "robot": robot.robot,
        "model": robot.model,
        "prefix": robot.prefix,
        "output": "forward_position" if forward else "joint_trajectory",
        "autostart": False,
        "use_sim_time": sim_time,
    }
    return NodeSpec(
        "tdmpc2_ros",
        "planner",
        "planner",
        (robot.parameters, parameters),
        remappings=_remappings(robot),
        role="planner",
    )


def _recorder(robot: RobotFiles, sim_time: bool) -> NodeSpec:
    parameters = {"output": robot.settings.record, "use_sim_time": sim_time}
    return NodeSpec(
        "tdmpc2_ros",
        "recorder",
        "recorder",
        (robot.parameters, parameters),
        remappings=_remappings(robot),
    )


def _rviz(robot: RobotFiles, sim_time: bool) -> NodeSpec:
    frame = f"{robot.prefix}{robot.embodiment.base_frame}"
    arguments = ("-d", str(robot.share / "rviz" / "robot.rviz"), "-f", frame)
    return NodeSpec("rviz2", "rviz2", "rviz2", ({"use_sim_time": sim_time},), arguments=arguments, ours=False)


def _remappings(robot: RobotFiles) -> tuple[tuple[str, str], ...]:
    """The planner's trajectory goes to the controller that is chosen."""
    if robot.settings.controller != "effort_trajectory_controller":
        return ()
    return (
        (_TRAJECTORY.format("joint_trajectory_controller"), _TRAJECTORY.format(robot.settings.controller)),
    )
