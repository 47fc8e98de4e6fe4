"""The kinematic tree of a robot: links with mass and shapes, joints between them. SI units, radians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
WORLD = "world"
"""Link that a robot with a fixed base is bolted to."""


class Pose(NamedTuple):
    """Position (3,), m, and orientation xyzw (4,) in the parent's frame."""

    position: Array
    orientation: Array


NOWHERE = Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))


@dataclass(frozen=True)
class Shape:
    """A primitive; `size` is the box's edges, the sphere's radius, or the cylinder's radius and length, m."""

    kind: Literal["box", "sphere", "cylinder"]
    size: tuple[float, ...]
    pose: Pose
    rgba: tuple[float, ...]
    collides: bool


@dataclass(frozen=True)
class TreeLink:
    """A rigid body; `mass` 0 for a mere frame. `inertia` (3,), kg m^2, about the axes of `com`."""

    name: str
    mass: float
    com: Pose
    inertia: Array
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class TreeJoint:
    """What moves `child`, whose frame is the joint's; SI units and radians."""

    name: str
    kind: Literal["revolute", "prismatic", "fixed"]
    parent: str
    child: str
    pose: Pose
    axis: Array
    lower: float = 0.0
    upper: float = 0.0
    effort: float = 0.0
    velocity: float = 0.0
    damping: float = 0.0
    friction: float = 0.0


@dataclass(frozen=True)
class Tree:
    """A robot. `root` is the base link of a floating robot and `world` of a fixed one."""

    name: str
    root: str
    links: tuple[TreeLink, ...]
    joints: tuple[TreeJoint, ...]


@dataclass(frozen=True)
class Stance:
    """How a robot stands: what a simulator knows and URDF does not.

    `free_joint` is the MJCF joint of a floating base, empty for a fixed one; `height`, m, that of the base at
    rest; `feet` are the links of the gait clock's feet.
    """

    free_joint: str
    height: float
    feet: tuple[str, ...]
