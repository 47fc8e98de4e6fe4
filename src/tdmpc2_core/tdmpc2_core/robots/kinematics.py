"""Kinematics of a serial chain of hinges, read from a robot's MJCF; numpy only, single poses or batches.

Used for what a policy sees of a tool's goal (`observation.py`), for goals (`reach.py`) and by scripted
controllers. Angles in rad, lengths in m, everything in the frame of the chain's base body.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.rotations import axis_angle_matrix, cross, skew, to_matrix, wxyz_to_xyzw

Array = NDArray[np.float64]

_ROTATIONS = ("quat", "euler", "axisangle", "xyaxes", "zaxis")


class ChainLink(NamedTuple):
    """A body of the chain: its pose (4, 4) in the body before at joint position 0, and its joint if any."""

    pose: Array
    joint: int | None  # index into the robot's joints
    axis: Array  # (3,) unit vector, body frame
    anchor: Array  # (3,) joint position in the body frame, m


class KinematicChain:
    """From the body `base` to `tool`, a site or body, as functions of the robot's joint positions (..., J).

    Joints that are not part of the chain change nothing. The pose of a link in the one before is
    fixed + sin(q) * sine + (1 - cos(q)) * versine (Rodrigues' formula), which serves all links at once.
    """

    def __init__(self, links: Sequence[ChainLink], tool: Array, num_joints: int) -> None:
        self._links, self._tool, self._num_joints = tuple(links), tool, num_joints
        self._joints = np.array([link.joint or 0 for link in links])
        self._turning = np.flatnonzero([link.joint is not None for link in links])
        self.joints = self._joints[self._turning]  # indices among the robot's, from base to tool
        self._axes = np.array([link.axis for link in links])[self._turning, :, None]
        self._anchors = np.array([link.anchor for link in links])[self._turning, :, None]
        moving = [np.zeros((2, 4, 4)) if link.joint is None else _turn(link) for link in links]
        self._fixed = np.stack([link.pose for link in links])
        self._sine, self._versine = self._fixed @ np.stack(moving, axis=1)

    @staticmethod
    def read(path: Path, base: str, tool: str, joint_names: Sequence[str]) -> KinematicChain:
        """The chain of an MJCF file. Raises UserError when the file has no such chain."""
        return _Reader(path, joint_names).chain(base, tool)

    def extended(self, offset: Array) -> KinematicChain:
        """The chain whose tool lies at `offset` (3,), m, in the frame of this one's."""
        tool = self._tool.copy()
        tool[:3, 3] += tool[:3, :3] @ offset
        return KinematicChain(self._links, tool, self._num_joints)

    def forward(self, joints: ArrayLike) -> tuple[Array, Array]:
        """Tool position (..., 3), m, and rotation matrix (..., 3, 3), in the base frame."""
        *_, tool = self._frames(np.asarray(joints, dtype=np.float64))
        return tool[..., :3, 3], tool[..., :3, :3]

    def origins(self, joints: ArrayLike) -> Array:
        """Positions of the chain's bodies and the tool (..., L + 1, 3), m, in the base frame."""
        return np.stack([f[..., :3, 3] for f in self._frames(np.asarray(joints, dtype=np.float64))], axis=-2)

    def jacobian(self, joints: ArrayLike) -> Array:
        """d(linear, angular velocity of the tool) / d(joint velocities), (..., 6, J), in the base frame."""
        return self.differential(joints)[2]

    def differential(self, joints: ArrayLike) -> tuple[Array, Array, Array]:
        """What `forward` gives, and the `jacobian`, for the price of one."""
        joints = np.asarray(joints, dtype=np.float64)
        *frames, tool = self._frames(joints)
        result = np.zeros((*joints.shape[:-1], 6, self._num_joints))
        turning = np.stack(frames, axis=-3)[..., self._turning, :, :]
        rotation, position = turning[..., :3, :3], turning[..., :3, 3]
        axis = (rotation @ self._axes)[..., 0]
        arm = tool[..., None, :3, 3] - position - (rotation @ self._anchors)[..., 0]
        result[..., :3, self.joints] = np.swapaxes(cross(axis, arm), -1, -2)
        result[..., 3:, self.joints] = np.swapaxes(axis, -1, -2)
        return tool[..., :3, 3], tool[..., :3, :3], result

    def _frames(self, joints: Array) -> list[Array]:
        """Poses (..., 4, 4) of every body of the chain and of the tool."""
        angles = joints[..., self._joints, None, None]
        steps = self._fixed + np.sin(angles) * self._sine + (1.0 - np.cos(angles)) * self._versine
        frames = [steps[..., 0, :, :]]
        for index in range(1, len(self._links)):
            frames.append(frames[-1] @ steps[..., index, :, :])
        return [*frames, frames[-1] @ self._tool]


def _turn(link: ChainLink) -> Array:
    """(2, 4, 4): what sin(q) and 1 - cos(q) multiply in a turn about the link's axis through its anchor."""
    turn = skew(link.axis)
    result = np.zeros((2, 4, 4))
    for part, matrix in zip(result, (turn, turn @ turn), strict=True):
        part[:3, :3], part[:3, 3] = matrix, -matrix @ link.anchor
    return result


class Foot(NamedTuple):
    """Spheres by which a leg touches the ground, in the frame of the body at the end of its chain."""

    chain: KinematicChain
    centres: Array  # (N, 3), m
    radius: float  # m


def read_foot(path: Path, base: str, geom: str, joint_names: Sequence[str]) -> Foot:
    """The leg that ends in the body of a sphere geom; its class mates in that body touch the ground too.

    Raises UserError when the file has no such geom or chain.
    """
    return _Reader(path, joint_names).foot(base, geom)


def mounting(path: Path, base: str, site: str) -> Array:
    """Rotation (3, 3) from the frame of a site that is fixed to the body `base` into that body's.

    Raises UserError when the file has no such site.
    """
    return _Reader(path, ()).mounted(base, site)


class _Reader:
    """One MJCF file. Classes of `default` are followed for joints; `include` is not."""

    def __init__(self, path: Path, joint_names: Sequence[str]) -> None:
        self._path, self._names = path, list(joint_names)
        try:
            self._root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError) as problem:
            raise UserError(f"{path}: cannot be read as MJCF ({problem})") from None
        compiler = self._root.find("compiler")
        settings = {} if compiler is None else compiler.attrib
        self._degrees = settings.get("angle", "degree") == "degree"
        if settings.get("eulerseq", "xyz") != "xyz":
            raise UserError(f"{path}: compiler eulerseq must be xyz, got {settings['eulerseq']!r}")
        self._parents = {child: parent for parent in self._root.iter() for child in parent}
        self._classes: dict[str, dict[str, str]] = {"main": {}}
        for section in self._root.findall("default"):
            self._read_class(section, {})

    def chain(self, base: str, tool: str) -> KinematicChain:
        end = self._named(tool, ("site", "body"))
        root = self._named(base, ("body",))
        bodies = [end] if end.tag == "body" else [self._parents[end]]
        while bodies[0] is not root:
            if bodies[0] not in self._parents or bodies[0].tag == "worldbody":
                raise UserError(f"{self._path}: {tool!r} does not hang below the body {base!r}")
            bodies.insert(0, self._parents[bodies[0]])
        links = [self._link(body) for body in bodies[1:]]
        pose = np.eye(4) if end.tag == "body" else self._pose(end)
        return KinematicChain(links, pose, len(self._names))

    def foot(self, base: str, name: str) -> Foot:
        geom = self._named(name, ("geom",))
        body = self._parents[geom]
        mates = [other for other in body.findall("geom") if other.get("class") == geom.get("class")]
        size = geom.get("size") or next(
            (
                found.attrib["size"]
                for section in self._root.iter("default")
                if section.get("class") == geom.get("class")
                for found in section.findall("geom")
                if "size" in found.attrib
            ),
            "0",
        )
        centres = np.array([_numbers(mate.get("pos", "0 0 0")) for mate in mates])
        return Foot(self.chain(base, body.get("name") or ""), centres, float(_numbers(size)[0]))

    def mounted(self, base: str, name: str) -> Array:
        site, rotation = self._named(name, ("site",)), np.eye(3)
        element = site
        while element.get("name") != base or element.tag != "body":
            rotation = self._pose(element)[:3, :3] @ rotation
            element = self._parents[element]
            if (
                element.tag == "worldbody"
                or element.find("joint") is not None
                and element.get("name") != base
            ):
                raise UserError(f"{self._path}: site {name!r} is not fixed to the body {base!r}")
        return rotation

    def _named(self, name: str, kinds: Sequence[str]) -> ElementTree.Element:
        for kind in kinds:
            for element in self._root.iter(kind):
                if element.get("name") == name:
                    return element
        raise UserError(f"{self._path}: no {' or '.join(kinds)} named {name!r}")

    def _link(self, body: ElementTree.Element) -> ChainLink:
        joints = [child for child in body if child.tag in ("joint", "freejoint")]
        if len(joints) > 1:
            raise UserError(f"{self._path}: body {body.get('name')!r} has {len(joints)} joints; one at most")
        if not joints:
            return ChainLink(self._pose(body), None, np.zeros(3), np.zeros(3))
        joint, name = joints[0], joints[0].get("name")
        values = self._default(joint) | dict(joint.attrib)
        if joint.tag != "joint" or values.get("type", "hinge") != "hinge" or name not in self._names:
            raise UserError(
                f"{self._path}: joint {name!r} of the tool's chain must be a hinge of the embodiment"
            )
        axis = _numbers(values.get("axis", "0 0 1"))
        anchor = _numbers(values.get("pos", "0 0 0"))
        return ChainLink(self._pose(body), self._names.index(name), axis / np.linalg.norm(axis), anchor)

    def _pose(self, element: ElementTree.Element) -> Array:
        result = np.eye(4)
        result[:3, 3] = _numbers(element.get("pos", "0 0 0"))
        given = [key for key in _ROTATIONS if key in element.attrib]
        if not given:
            return result
        values = _numbers(element.attrib[given[0]])
        if given[0] == "quat":
            result[:3, :3] = to_matrix(wxyz_to_xyzw(values / np.linalg.norm(values)))
        elif given[0] == "euler":
            angles = np.radians(values) if self._degrees else values
            for axis, angle in zip(np.eye(3), angles, strict=True):  # about the turned axes, in order
                result[:3, :3] = result[:3, :3] @ axis_angle_matrix(axis, angle)
        else:
            raise UserError(f"{self._path}: {given[0]} of {element.get('name')!r}: give quat or euler")
        return result

    def _read_class(self, section: ElementTree.Element, inherited: dict[str, str]) -> None:
        joint = section.find("joint")
        values = inherited | ({} if joint is None else dict(joint.attrib))
        self._classes[section.get("class", "main")] = values
        for child in section.findall("default"):
            self._read_class(child, values)

    def _default(self, joint: ElementTree.Element) -> dict[str, str]:
        name, body = joint.get("class"), joint
        while name is None and body in self._parents:
            body = self._parents[body]
            name = body.get("childclass")
        return self._classes.get(name or "main", {})


def _numbers(text: str) -> Array:
    return np.array(text.split(), dtype=np.float64)
