"""What a launch starts for given settings, as plain data; `robot_launch` makes actions of it.

No launch imports.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tdmpc2_bringup.controllers import COMMAND_CONTROLLERS, broadcasters
from tdmpc2_bringup.recording import recorder_parameters
from tdmpc2_bringup.robot_files import RobotFiles
from tdmpc2_bringup.settings import Settings
from tdmpc2_core.config import closest
from tdmpc2_core.descriptions import read_stance
from tdmpc2_core.errors import UserError

Installed = Callable[[str], bool]
"""Whether a ROS package is there."""
Role = Literal["", "essential", "gate", "planner"]


THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""Of OpenMP, where the user has not set them: by default its idle threads spin on every core."""


@dataclass(frozen=True)
class NodeSpec:
    """One process. Of `parameters`, files and mappings, later ones win; no name leaves the program's own.

    role: `essential` ends the launch when it ends; `gate` must end with code 0 before the planner is
    activated; `planner` is the lifecycle node that is brought to active.
    """

    package: str
    executable: str
    name: str = ""
    parameters: tuple[str | dict[str, Any], ...] = ()
    arguments: tuple[str, ...] = ()
    remappings: tuple[tuple[str, str], ...] = ()
    role: Role = ""
    ours: bool = True  # takes --log-level, and `THREADS` into its environment


@dataclass(frozen=True)
class Include:
    """A launch file of another package."""

    package: str
    file: str
    arguments: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Everything that a launch starts; `notes` are sentences for the log, such as what stood in for what."""

    nodes: tuple[NodeSpec, ...]
    includes: tuple[Include, ...] = ()
    notes: tuple[str, ...] = ()
    autostart: bool = True


CONFIGURED = "configured"
"""The gate that every planner has: its own configuration."""


class Gates:
    """All start closed; `open` says when none is left."""

    def __init__(self) -> None:
        self._closed = {CONFIGURED}

    def add(self, name: str) -> str:
        """One gate more, such as a process that must end, and what `open` takes: two of one name are two."""
        gate = f"{name} {len(self._closed)}"
        self._closed.add(gate)
        return gate

    def open(self, gate: str) -> bool:
        """Note that it has happened; True when it was the last."""
        self._closed.discard(gate)
        return not self._closed


def layout(robot: RobotFiles, installed: Installed, plugins: Collection[str] = ()) -> Layout:
    """All nodes for a robot and its settings.

    Args:
        robot: the robot, its files and settings.
        installed: whether a ROS package is there; optional ones are done without, with a note.
        plugins: hardware plug-ins of ros2_control that are installed; empty where they are not known.

    Raises:
        UserError: a package that the backend needs is missing, or settings and files do not fit.
    """
    settings = robot.settings
    _check_controller(robot)
    _check_model(robot)
    _check_plugin(settings.hardware_plugin if settings.sim == "none" else "", plugins)
    backend = _backend(robot, installed)
    sim_time = settings.use_sim_time == "true" or (settings.use_sim_time == "auto" and backend.clock)
    base = backend.layout(robot, sim_time)
    nodes, notes = list(base.nodes), [*backend.notes, *base.notes]
    publishes = any(node.executable == "robot_state_publisher" for node in nodes)
    if settings.sim == "none" and not settings.hardware_plugin:
        publishes = True  # the driver does
    if not publishes:
        if installed("robot_state_publisher"):
            nodes.append(_state_publisher(robot, sim_time))
        else:
            notes.append("robot_state_publisher is not installed: no frames, no robot_description")
    if _supervised(settings):
        nodes.append(_supervisor(robot, sim_time))
    nodes.append(_planner(robot, sim_time))
    if settings.record:
        theirs = settings.recorder == "rosbag2"
        if theirs and not installed("rosbag2_transport"):
            notes.append(
                "recorder:=rosbag2: rosbag2_transport is not installed; tdmpc2_ros recorder stands in"
            )
            theirs = False
        nodes.append(_rosbag2(robot, sim_time) if theirs else _recorder(robot, sim_time))
    if settings.rviz:
        if installed("rviz2"):
            nodes += [_rviz(robot, sim_time), _markers(robot, sim_time)]
        else:
            notes.append("rviz:=true is ignored: the package rviz2 is not installed")
    if settings.joy:
        if lacking := [name for name in _JOY if not installed(name)]:
            notes.append(f"joy:=true is ignored: not installed: {', '.join(lacking)}")
        else:
            nodes += _joy(robot)
    autostart = settings.autostart == "true" or (settings.autostart == "auto" and settings.sim != "none")
    if not autostart:
        notes.append("the planner stays unconfigured until ros2 lifecycle set brings it to active")
    return replace(base, nodes=tuple(nodes), notes=tuple(notes), autostart=autostart)


class _Backend(NamedTuple):
    """What moves the robot: `layout` makes its part of a robot's layout, given whether time is /clock's."""

    layout: Callable[[RobotFiles, bool], Layout]
    clock: bool = False  # publishes /clock by itself
    notes: tuple[str, ...] = ()  # on the choice


def _backend(robot: RobotFiles, installed: Installed) -> _Backend:
    settings = robot.settings
    if settings.sim == "none" and not settings.hardware_plugin:
        return _Backend(_external_driver)
    lacking = _missing(settings.sim, installed)
    if not lacking:
        part = _gazebo if settings.sim == "gazebo" else _ros2_control
        return _Backend(part, clock=settings.sim in ("mujoco", "gazebo"))
    names = ", ".join(lacking)
    if settings.sim == "mujoco":
        note = f"sim:=mujoco: not installed: {names}; tdmpc2_ros mujoco_sim stands in for ros2_control"
        return _Backend(_own_simulation, notes=(note,))
    raise UserError(
        f"sim:={settings.sim} needs packages that are not installed: {names}; or take sim:=mujoco"
    )


def _output(robot: RobotFiles) -> str:
    forward = robot.settings.controller == "forward_position_controller"
    return "forward_position" if forward else "joint_trajectory"


def _supervised(settings: Settings) -> bool:
    # a supervisor commands a hold where its planner fails: not a robot that another controller moves
    return settings.supervisor and not settings.shadow


def _supervisor(robot: RobotFiles, sim_time: bool) -> NodeSpec:
    parameters = {
        "robot": robot.robot,
        "model": robot.model,
        "prefix": robot.prefix,
        "output": _output(robot),
        "use_sim_time": sim_time,
    }
    return _our_node(robot, "supervisor", parameters, remappings=_remappings(robot))


def _planner(robot: RobotFiles, sim_time: bool) -> NodeSpec:
    parameters = {
        "robot": robot.robot,
        "model": robot.model,
        "prefix": robot.prefix,
        "output": _output(robot),
        "supervisor": _supervised(robot.settings),
        "autostart": False,
        "shadow": robot.settings.shadow,
        "use_sim_time": sim_time,
    }
    return _our_node(robot, "planner", parameters, role="planner", remappings=_remappings(robot))


def _recorder(robot: RobotFiles, sim_time: bool) -> NodeSpec:
    parameters = {"output": robot.settings.record, "use_sim_time": sim_time}
    return _our_node(robot, "recorder", parameters, remappings=_remappings(robot))


def _rosbag2(robot: RobotFiles, sim_time: bool) -> NodeSpec:
    settings = robot.settings
    given = recorder_parameters(robot.embodiment, settings.record, robot.bag_qos, settings.namespace)
    renamed = {f"/{old}": f"/{new}" for old, new in _remappings(robot)}
    given["record.topics"] = [_renamed(topic, renamed) for topic in given["record.topics"]]
    parameters = (given | {"use_sim_time": sim_time},)
    return NodeSpec("rosbag2_transport", "recorder", "recorder", parameters, ours=False)


def _renamed(topic: str, names: dict[str, str]) -> str:
    """rosbag2 takes topics by name, past remappings."""
    for old, new in names.items():
        topic = topic.removesuffix(old) + new if topic.endswith(old) else topic
    return topic


def _our_node(
    robot: RobotFiles,
    name: str,
    parameters: dict[str, Any],
    role: Role = "",
    remappings: tuple[tuple[str, str], ...] = (),
) -> NodeSpec:
    """A node of this suite, named after its program; its own parameters win over those of the file."""
    files = (robot.parameters, parameters)
    return NodeSpec("tdmpc2_ros", name, name, files, remappings=remappings, role=role)


def _rviz(robot: RobotFiles, sim_time: bool) -> NodeSpec:
    frame = f"{robot.prefix}{robot.embodiment.base_frame}"
    arguments = ("-d", str(robot.share / "rviz" / "robot.rviz"), "-f", frame)
    return NodeSpec("rviz2", "rviz2", "rviz2", ({"use_sim_time": sim_time},), arguments=arguments, ours=False)


def _markers(robot: RobotFiles, sim_time: bool) -> NodeSpec:
    parameters = {"robot": robot.robot, "prefix": robot.prefix, "use_sim_time": sim_time}
    return _our_node(robot, "markers", parameters)


_JOY = ("joy", "teleop_twist_joy")
# game_controller_node numbers sticks and buttons alike for every pad that SDL knows; 1 is forward or left
_STICKS = {"linear_x": 1, "linear_y": 0, "angular_z": 2}  # left stick upright and across, right one across
_DEAD_MAN = 9  # left shoulder button
_JOY_RATE = 20.0  # Hz, also while nothing changes: silence is a stop


def _joy(robot: RobotFiles) -> tuple[NodeSpec, NodeSpec]:
    """A gamepad's driver, and what makes cmd_vel of it while its dead-man button is held.

    Full sticks are the upper ends of the ranges that the robot was trained for. Raises UserError.
    """
    twist = robot.embodiment.twist_command
    if twist is None:
        raise UserError(
            f"joy:=true drives walking robots; {robot.embodiment.name} takes no velocity commands"
        )
    most = {str(term.name): term.upper for term in twist.terms}
    parameters: dict[str, Any] = {"require_enable_button": True, "enable_button": _DEAD_MAN}
    parameters |= {"enable_turbo_button": -1, "publish_stamped_twist": False}
    for name, axis in _STICKS.items():
        of = name.replace("_", ".").replace("angular.z", "angular.yaw")
        parameters[f"axis_{of}"] = axis if name in most else -1
        parameters[f"scale_{of}"] = float(most.get(name, 0.0))
    driver = {"autorepeat_rate": _JOY_RATE, "deadzone": 0.12}
    return (
        NodeSpec("joy", "game_controller_node", "joy_node", (driver,), ours=False),
        NodeSpec("teleop_twist_joy", "teleop_node", "teleop_twist_joy_node", (parameters,), ours=False),
    )


def _remappings(robot: RobotFiles) -> tuple[tuple[str, str], ...]:
    """The planner's trajectory goes to the controller that is chosen."""
    if robot.settings.controller != "effort_trajectory_controller":
        return ()
    return (
        ("joint_trajectory_controller/joint_trajectory", f"{robot.settings.controller}/joint_trajectory"),
    )


# ---- several robots ----

_CLOCK = ("/clock", "clock")  # into the namespace


def own_clock(plan: Layout, settings: Settings) -> Layout:
    """The same nodes, on the clock of their own MuJoCo: as many on /clock would make time jump.

    Where something else publishes /clock, all share it.
    """
    if settings.sim != "mujoco":
        return plan
    return replace(plan, nodes=tuple(map(_on_own_clock, plan.nodes)))


def _on_own_clock(node: NodeSpec) -> NodeSpec:
    arguments = node.arguments
    if node.executable == "spawner":  # newer controller managers hand no remapping on to controllers
        arguments = (*arguments, "--controller-ros-args", "-r {}:={}".format(*_CLOCK))
    return replace(node, arguments=arguments, remappings=(*node.remappings, _CLOCK))


# ---- what each `sim` needs beside the planner ----

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


def _missing(sim: str, installed: Installed) -> list[str]:
    """Packages that a backend needs and that are not there."""
    return [name for name in _NEEDED[sim] if not installed(name)]


def _own_simulation(robot: RobotFiles, sim_time: bool) -> Layout:
    """This suite's simulation node, which stands in for ros2_control."""
    parameters = {
        "robot": robot.robot,
        "prefix": robot.prefix,
        "publish_clock": sim_time,
        "view": not robot.settings.headless,
    }
    node = _our_node(robot, "mujoco_sim", parameters, role="essential")
    return Layout((node,))


def _external_driver(robot: RobotFiles, sim_time: bool) -> Layout:
    """Nothing: the robot's own driver runs the controller manager."""
    note = "sim:=none without hardware_plugin: the robot's own driver must run its controllers"
    return Layout((), notes=(note,))


def _ros2_control(robot: RobotFiles, sim_time: bool) -> Layout:
    """The controller manager of MuJoCo, mock or hardware, and the spawner of its controllers."""
    mujoco = robot.settings.sim == "mujoco"
    manager = NodeSpec(
        "mujoco_ros2_control" if mujoco else "controller_manager",
        "ros2_control_node",
        parameters=(robot.controllers, {"use_sim_time": sim_time}),
        remappings=(("~/robot_description", "robot_description"),),
        role="essential",
    )
    return Layout((_state_publisher(robot, sim_time), manager, _spawner(robot)))


def _gazebo(robot: RobotFiles, sim_time: bool) -> Layout:
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
        _state_publisher(robot, sim_time),
        NodeSpec("ros_gz_sim", "create", arguments=place if stance.free_joint else place[:-2], ours=False),
        NodeSpec("ros_gz_bridge", "parameter_bridge", arguments=bridged, ours=False),
        _spawner(robot),
    )
    arguments = {"gz_args": f"{server} {world}", "on_exit_shutdown": "true"}
    return Layout(nodes, (Include("ros_gz_sim", "gz_sim.launch.py", arguments),))


def _state_publisher(robot: RobotFiles, sim_time: bool) -> NodeSpec:
    """robot_state_publisher, which also hands the description to the controller manager."""
    parameters: dict[str, Any] = {"robot_description": robot.description(), "use_sim_time": sim_time}
    return NodeSpec("robot_state_publisher", "robot_state_publisher", "robot_state_publisher", (parameters,))


_MANAGER_SECONDS = "120"
"""Longest start of a manager and its hardware; without a limit the spawner waits for ever."""


def _spawner(robot: RobotFiles) -> NodeSpec:
    names = (*broadcasters(robot.embodiment), robot.settings.controller)
    arguments = (*names, "--param-file", robot.controllers, "--controller-manager-timeout", _MANAGER_SECONDS)
    return NodeSpec(
        "controller_manager",
        "spawner",
        arguments=arguments,
        role="gate",
        ours=False,
    )


def _check_model(robot: RobotFiles) -> None:
    """Raise UserError when there is no bundle: the planner would stay idle."""
    if not Path(robot.model).exists():
        which = "model" if robot.settings.model else f"robot {robot.embodiment.name}"
        raise UserError(f"{which}: no checkpoint bundle {robot.model!r}; give its folder as model:=FOLDER")


def _check_plugin(name: str, known: Collection[str]) -> None:
    """Raise UserError when no package offers the plug-in: the manager would wait for it for ever."""
    if name and known and name not in known:
        raise UserError(
            f"hardware_plugin: no installed package offers {name!r}{closest(name, known)}; installed: "
            f"{', '.join(sorted(known))}"
        )


def _check_controller(robot: RobotFiles) -> None:
    """Raise UserError when the backend cannot take what the chosen controller commands."""
    controller, sim = robot.settings.controller, robot.settings.sim
    if COMMAND_CONTROLLERS[controller] == "effort" and sim in ("mujoco", "mock"):
        what = "moves joints by position" if sim == "mujoco" else "does not turn torque into motion"
        raise UserError(f"controller:={controller} needs sim:=gazebo or none; sim:={sim} {what}")
