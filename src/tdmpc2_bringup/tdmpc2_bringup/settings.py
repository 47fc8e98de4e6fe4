"""The arguments of the launch files, the same for every robot; and how those of several robots differ.

No launch imports.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tdmpc2_bringup.description import Sim
from tdmpc2_core.config import closest, from_mapping, setting
from tdmpc2_core.errors import UserError
from tdmpc2_ros.naming import MAX_ROBOTS, robot_name

Choice = Literal["auto", "true", "false"]
OnExit = Literal["respawn", "shutdown", "ignore"]
Controller = Literal[
    "joint_trajectory_controller", "forward_position_controller", "effort_trajectory_controller"
]


@dataclass(frozen=True)
class Settings:
    """Every one has a default; an empty text means the robot's own."""

    sim: Sim = setting(
        "mujoco",
        why="what moves: mujoco (mujoco_ros2_control, or this suite's simulation where that is not "
        "installed), gazebo, mock (commands come back as states), none (hardware)",
    )
    headless: bool = setting(True, why="false opens the simulator's window")
    rviz: bool = setting(False, why="true opens RViz")
    use_sim_time: Choice = setting(
        "auto", why="take time from /clock; auto: where mujoco_ros2_control or Gazebo publishes it"
    )
    namespace: str = setting("", why="namespace of all nodes and topics")
    prefix: str = setting("", why="before every joint and link name, such as left_")
    controller: Controller = setting("joint_trajectory_controller", why="what the planner commands")
    controllers_file: str = setting("", why="parameters of the controller manager")
    params_file: str = setting("", why="parameters of this suite's nodes")
    model: str = setting("", why="checkpoint bundle")
    description_file: str = setting("", why="URDF or xacro instead of the one made from the embodiment")
    hardware_plugin: str = setting(
        "", why="sim:=none: ros2_control plug-in; empty: the robot's own driver runs the controllers"
    )
    hardware_parameters: str = setting(
        "", why='sim:=none: parameters of the plug-in, "robot_ip=10.0.0.2 ..."'
    )
    autostart: Choice = setting("auto", why="bring the planner to active; auto: not on hardware")
    shadow: bool = setting(False, why="true: the planner decides and publishes ~/plan, commands nothing")
    supervisor: bool = setting(
        True, why="start the supervisor, which stops the robot where the planner dies, hangs or is one of two"
    )
    on_planner_exit: OnExit = setting(
        "respawn",
        why="when the planner ends by itself: respawn (started again, and brought to active as autostart "
        "says), shutdown (the launch ends), ignore (the controller holds its last target)",
    )
    joy: bool = setting(
        False, why="true: a gamepad drives while its left shoulder button is held (joy, teleop_twist_joy)"
    )
    record: str = setting("", why="folder for a rosbag2, which must not exist; empty records nothing")
    recorder: Literal["node", "rosbag2"] = setting(
        "node", why="what writes the bag: this suite's recorder, or rosbag2_transport's with the same topics"
    )
    log_level: Literal["debug", "info", "warn", "error", "fatal"] = setting(
        "info", why="severity from which nodes log"
    )


@dataclass(frozen=True)
class Argument:
    """A launch argument: everything as text."""

    name: str
    default: str
    why: str
    choices: tuple[str, ...]


def arguments() -> tuple[Argument, ...]:
    """The fields of `Settings` as launch takes them."""
    hints = typing.get_type_hints(Settings)
    defaults = Settings()
    result = []
    for field in dataclasses.fields(Settings):
        hint = hints[field.name]
        choices = ("true", "false") if hint is bool else typing.get_args(hint)
        result.append(
            Argument(field.name, _text(getattr(defaults, field.name)), field.metadata["why"], choices)
        )
    return tuple(result)


def settings_from(given: Mapping[str, str]) -> Settings:
    """The settings in launch configurations; others in there are left alone. Raises UserError."""
    hints = typing.get_type_hints(Settings)
    values = {
        name: given[name] == "true" if hint is bool else given[name]
        for name, hint in hints.items()
        if name in given
    }
    return from_mapping(Settings, values, "launch arguments")


def unknown_arguments(given: Iterable[str], known: Iterable[str]) -> str:
    """A sentence about arguments that a launch file does not have, which launch passes over; else empty.

    Those of a launch file that includes it are among them, so they are no mistake as such.
    """
    accepted = list(known)
    strange = [f"{name}{closest(name, accepted)}" for name in sorted(set(given) - set(accepted))]
    return f"launch arguments that have no effect here: {', '.join(strange)}" if strange else ""


def _text(value: bool | str) -> str:
    return value if isinstance(value, str) else str(value).lower()


# ---- several robots ----

SEVERAL = (
    Argument("robot", "quadruped", "shipped robot's name, or folder with embodiment.yaml", ()),
    Argument("robots", "2", f"how many, from 1 to {MAX_ROBOTS}", ()),
)
"""Of the launch file for several robots, beside those of `Settings`."""
_ONE_ONLY = {
    "gazebo": "each would start a Gazebo of its own, and these would share their topics",
    "none": "each has its own driver and hardware_parameters; launch it alone, with namespace and prefix",
}
"""Why a `sim` is for one robot."""


def each_robot(settings: Settings, robots: str) -> tuple[Settings, ...]:
    """Settings of robot1, robot2, ...: what was asked for, and names of their own.

    A robot's nodes and topics are in its namespace, below that of the settings; its name goes before joint
    and link names, because all share /tf; its bag is a folder in `record`.

    Args:
        settings: those that all have in common.
        robots: how many, as launch gives it.

    Raises:
        UserError: `robots` is no number from 1 to `MAX_ROBOTS`, or `sim` is for one robot.
    """
    if not robots.isdecimal() or not 1 <= int(robots) <= MAX_ROBOTS:
        raise UserError(f"robots is {robots!r}, must be a whole number from 1 to {MAX_ROBOTS}")
    count = int(robots)
    if count > 1 and settings.joy:
        raise UserError(f"robots:={count}: joy:=true is for one robot; its gamepad would drive all of them")
    if count > 1 and settings.sim in _ONE_ONLY:
        why = _ONE_ONLY[settings.sim]
        raise UserError(
            f"robots:={count} needs sim:=mujoco or mock; sim:={settings.sim} is for one robot: {why}"
        )
    return tuple(_member(settings, robot_name(number)) for number in range(1, count + 1))


def _member(settings: Settings, name: str) -> Settings:
    return replace(
        settings,
        namespace="/".join(filter(None, (settings.namespace.strip("/"), name))),
        prefix=f"{name}_{settings.prefix}",
        record=str(Path(settings.record) / name) if settings.record else "",
    )
