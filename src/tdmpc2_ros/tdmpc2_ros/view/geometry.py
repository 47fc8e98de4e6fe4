"""What is seen of a robot, and the ways that its plan and its command lead, as points in the world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.rotations import rotate, yaw

Array = NDArray[np.float64]
_AHEAD, _PIECES = 1.0, 20  # s of the path that a command asks for, and lines that it is made of


@dataclass(frozen=True)
class Seen:
    """What is known of the robot at one instant; all of it in the world, but the goal."""

    position: Array  # (3,) of the base, m
    orientation: Array  # (4,) of the base, xyzw
    joints: Array  # (J,), rad, in embodiment order
    plan: Array  # (H, J) set-points, rad; (0, J) without a plan
    command: Array  # (3,): x and y, m/s, yaw rate, rad/s; zeros without one
    goal: Array | None  # (7,) of the tool in the base frame: m, xyzw


def planned_ways(simulation: Simulation, embodiment: Embodiment, seen: Seen) -> Array:
    """Places (H, E, 3), m, of the feet, or else the tool, at the set-points of the plan.

    The base stays where it is: the model does not predict where it goes. The simulation is left at the last
    set-points.
    """
    ways = []
    for row in seen.plan:
        simulation.place(seen.position, seen.orientation, row)
        if embodiment.pose_command:
            tool = simulation.tool_pose()[:3]
            ways.append((seen.position + rotate(seen.orientation, tool))[None])
        else:
            ways.append(simulation.data.geom_xpos[simulation.feet[simulation.foot_starts]].copy())
    return np.array(ways)


def commanded_way(seen: Seen) -> Array:
    """The path (T, 3), m, of the base that the command asks for in the next second."""
    times = np.linspace(0.0, _AHEAD, _PIECES + 1)
    heading = yaw(seen.orientation) + seen.command[2] * times[:-1]
    along, across = seen.command[:2]
    cosine, sine = np.cos(heading), np.sin(heading)
    steps = np.stack([along * cosine - across * sine, along * sine + across * cosine], axis=-1)
    path = np.tile(seen.position, (_PIECES + 1, 1))
    path[1:, :2] += np.cumsum(steps * _AHEAD / _PIECES, axis=0)
    return path
