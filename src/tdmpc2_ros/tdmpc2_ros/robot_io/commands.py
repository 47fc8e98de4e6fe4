"""Checks of the commands that the simulation node accepts, as ros2_control's joint_trajectory_controller and
forward_position_controller make them. A message that fails a check is refused as a whole.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.messages import to_seconds
from tdmpc2_core.robots.trajectory import Trajectory


class CommandError(UserError):
    """The command is refused; the one before it stays in force."""


def read_trajectory(message: JointTrajectory, embodiment: Embodiment, now: float) -> Trajectory:
    """The positions of a JointTrajectory whose joints may come in any order; stamp zero starts it now.

    With a stamp, points that lie in the past are left out. Velocities and the like are refused.

    Args:
        now: the node clock, s.

    Raises:
        CommandError: joints missing, unknown or given twice, a wrong length, a number that is not finite,
            times that do not increase, or nothing left to play.
    """
    order = _joint_order(list(message.joint_names), embodiment)
    if not message.points:
        raise CommandError("joint_trajectory: no points; at least one is needed")
    for index, point in enumerate(message.points):
        _check_point(index, point, len(order))
    times = np.array([to_seconds(point.time_from_start) for point in message.points])
    if times[0] < 0.0 or (np.diff(times) <= 0.0).any():
        raise CommandError(
            "joint_trajectory: time_from_start of the points must increase, from zero or above"
        )
    points = np.array([point.positions for point in message.points], dtype=np.float64)[:, order]
    _check_finite(points, embodiment, "joint_trajectory: positions")
    stamp = to_seconds(message.header.stamp)
    if stamp != 0.0:
        times = times + (stamp - now)
        points, times = points[times > 0.0], times[times > 0.0]
        if not len(times):
            raise CommandError("joint_trajectory: it ended before it arrived; stamp zero starts it now")
    return Trajectory(np.clip(points, embodiment.lower, embodiment.upper), times)


def read_forward_command(message: Float64MultiArray, embodiment: Embodiment) -> NDArray[np.float64]:
    """Targets (J,), rad, in embodiment order, inside the joint limits.

    Raises:
        CommandError: another number of values than joints, or a value that is not finite.
    """
    targets = np.array(message.data, dtype=np.float64)
    if targets.shape != (embodiment.num_joints,):
        raise CommandError(
            f"commands: {targets.size} values, {embodiment.num_joints} are needed (one per joint)"
        )
    _check_finite(targets[None], embodiment, "commands: values")
    return np.clip(targets, embodiment.lower, embodiment.upper)


def _joint_order(names: list[str], embodiment: Embodiment) -> list[int]:
    """Where each joint of the embodiment stands in `names`."""
    wanted = embodiment.joint_names
    problems = {
        "unknown joint": sorted(set(names) - set(wanted)),
        "missing joint": [name for name in wanted if name not in names],
        "joint given twice:": sorted({name for name in names if names.count(name) > 1}),
    }
    for problem, found in problems.items():
        if found:
            raise CommandError(
                f"joint_trajectory: {problem} {', '.join(found)}; "
                f"each of the robot's {len(wanted)} joints must be named once"
            )
    return [names.index(name) for name in wanted]


def _check_point(index: int, point: JointTrajectoryPoint, count: int) -> None:
    if len(point.positions) != count:
        raise CommandError(
            f"joint_trajectory: point {index} has {len(point.positions)} positions, "
            f"{count} are needed (one per joint)"
        )
    for kind in ("velocities", "accelerations", "effort"):
        if len(getattr(point, kind)):
            raise CommandError(f"joint_trajectory: point {index} has {kind}; only positions are accepted")


def _check_finite(values: NDArray[np.float64], embodiment: Embodiment, what: str) -> None:
    for row in values:
        for name, value in zip(embodiment.joint_names, row, strict=True):
            if not math.isfinite(value):
                raise CommandError(f"{what}: {name} is {value}; finite values are needed")
