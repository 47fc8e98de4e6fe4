"""The pose command of an embodiment file: where an operator can send a tool, and what counts as there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tdmpc2_core.config import setting

Point = tuple[float, float, float]

POSE_NAMES = ("x", "y", "z", "qx", "qy", "qz", "qw")
"""Entries of a pose command: position in m and unit quaternion, both in the robot's base frame."""


@dataclass(frozen=True)
class PoseCommandSpec:
    """A goal for the tool, as geometry_msgs/PoseStamped in `base_frame`. Without a goal the robot holds.

    A goal stands until another comes or it is cleared. Training draws goals as tool poses of joint positions
    within `joint_span` of the default pose, inside the box, with every link above `clearance`.
    """

    kind: Literal["pose"] = setting(why="geometry_msgs/PoseStamped")
    tool: str = setting(why="site or body of the robot model that is brought to the goal")
    lower: Point = setting(unit="m", why="lowest x, y, z of a goal that is accepted, in the base frame")
    upper: Point = setting(unit="m", why="highest x, y, z of a goal that is accepted")
    joint_span: tuple[float, ...] = setting(unit="rad", low=0, why="training: one half width per joint")
    clearance: float = setting(0.0, unit="m", why="training: height of links behind the first two, and tool")
    position_tolerance: float = setting(0.02, unit="m", above=0, why="distance at which a goal is reached")
    rotation_tolerance: float = setting(0.1, unit="rad", above=0, why="angle reported beside it")
    reach_seconds: float = setting(2.0, unit="s", above=0, why="time in which a goal is to be reached")
    stand_fraction: float = setting(0.0, low=0, high=1, why="training: share of goals that are where it is")
    resample_seconds: float = setting(4.0, unit="s", above=0, why="training: time between new goals")

    def __post_init__(self) -> None:
        if not self.tool:
            raise ValueError("tool must not be empty")
        for axis, low, high in zip("xyz", self.lower, self.upper, strict=True):
            if low >= high:
                raise ValueError(f"lower {axis} must be below upper {axis}, got {low:g} and {high:g} m")
        if self.resample_seconds < self.reach_seconds:
            raise ValueError(
                f"resample_seconds must be at least reach_seconds ({self.reach_seconds:g} s), "
                f"got {self.resample_seconds:g} s"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the entries in the order of the command vector."""
        return POSE_NAMES

    def outside(self, position: Point) -> str:
        """Why a goal's position, m, lies outside the box; empty where it does not."""
        for axis, value, low, high in zip("xyz", position, self.lower, self.upper, strict=True):
            if not low <= value <= high:
                return f"{axis} is {value:.3f} m, must lie in [{low:g}, {high:g}] m"
        return ""
