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
    """A primitive or a mesh; `size` is the box's edges, the sphere's radius, the cylinder's radius and length
    (without the ends of a capsule), all in m, or the mesh's scale, whose file is `mesh`."""

    kind: Literal["box", "sphere", "cylinder", "capsule", "mesh"]
    size: tuple[float, ...]
    pose: Pose
    rgba: tuple[float, ...]
    collides: bool
    mesh: str = ""


@dataclass(frozen=True)
class TreeLink:
    """A rigid body; `mass` 0 for a mere frame. `inertia` (3,), kg m^2, about the axes of `com`."""

    name: str
    mass: float
    com: Pose
    inertia: Array
    shapes: tuple[Shape, ...]


class Mimic(NamedTuple):
    """A joint that another one moves: its position is multiplier * that of `joint` + offset."""

    joint: str
    multiplier: float
    offset: float


@dataclass(frozen=True)
class TreeJoint:
    """What moves `child`, whose frame is the joint's; SI units and radians.

    `effort` and `velocity` are 0 where they are not known, `lower` and `upper` where there is no end.
    """

    name: str
    kind: Literal["revolute", "continuous", "prismatic", "fixed", "floating"]
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
    mimic: Mimic | None = None


@dataclass(frozen=True)
class Tree:
    """A robot. `root` is the base link of a floating robot and `world` of a fixed one. Parents come first."""

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
