"""Several robots from one launch: all that differs from one to the next. No launch imports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tdmpc2_bringup.settings import Argument, Settings
from tdmpc2_bringup.specs import Layout, NodeSpec
from tdmpc2_core.errors import UserError
from tdmpc2_ros.naming import MAX_ROBOTS, robot_name

ARGUMENTS = (
    Argument("robot", "quadruped", "shipped robot's name, or folder with embodiment.yaml", ()),
    Argument("robots", "2", f"how many, from 1 to {MAX_ROBOTS}", ()),
)
"""Of the launch file for several robots, beside those of `Settings`."""
_ONE_ONLY = {
    "gazebo": "each would start a Gazebo of its own, and these would share their topics",
    "none": "each has its own driver and hardware_parameters; launch it alone, with namespace and prefix",
}
"""Why a `sim` is for one robot."""
_CLOCK = ("/clock", "clock")  # into the namespace


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
