"""A maker's URDF (http://wiki.ros.org/urdf/XML) as a tree of links and joints; every mistake one sentence.

Names are data: whatever they hold, nothing here makes a path of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, cast
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from tdmpc2_core.descriptions.tree import Array, Mimic, Pose, Shape, Tree, TreeJoint, TreeLink
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.rotations import from_matrix, from_roll_pitch_yaw, rotate, to_matrix

_KINDS = ("revolute", "continuous", "prismatic", "fixed", "floating")
_LIMITS = ("lower", "upper", "effort", "velocity")
_GREY = (0.6, 0.6, 0.6, 1.0)


class RawInertia(NamedTuple):
    """Mass, kg, centre of mass (3,), m, and inertia (3, 3) about it, kg m^2, in some link's axes."""

    mass: float
    com: Array
    matrix: Array


class Urdf(NamedTuple):
    """What a URDF holds. `tree` has each link's own mass and no inertia, which is as given in `inertias`."""

    tree: Tree
    inertias: dict[str, RawInertia]
    mesh_folder: str  # of the file's own <mujoco> block
    notes: list[str]  # what was left out, in sentences


def read_urdf(source: Path) -> Urdf:
    """Read a URDF file.

    Raises:
        UserError: it is no URDF, or not one whole tree of links, or a number or a joint is not understood.
    """
    return _Reader(source).read()


class _Reader:
    """One file."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.notes: list[str] = []
        try:
            self.robot = ElementTree.parse(source).getroot()
        except (OSError, ElementTree.ParseError, LookupError, ValueError) as problem:
            raise UserError(f"{source}: cannot be read as XML: {problem}") from None
        if self.robot.tag != "robot":
            raise UserError(
                f"{source}: expected <robot>, got <{self.robot.tag}>; run xacro on a xacro file first"
            )
        if any(element.tag.startswith("{http://www.ros.org/wiki/xacro}") for element in self.robot.iter()):
            raise self.error("holds xacro elements; run xacro on it first")

    def error(self, text: str) -> UserError:
        return UserError(f"{self.source}: {text}")

    def read(self) -> Urdf:
        links = {link.get("name", ""): link for link in self.named("link")}
        joints = [self.joint(joint) for joint in self.named("joint")]
        order = self.order(list(links), joints)
        self.check_mimics(joints)
        inertias = {name: self.inertia(link, name) for name, link in links.items()}
        tree_links = tuple(
            TreeLink(
                name, inertias[name].mass, _still(inertias[name].com), np.zeros(3), self.shapes(name, link)
            )
            for name, link in ((name, links[name]) for name in order)
        )
        folder = self.robot.find("mujoco/compiler")
        if self.robot.find("mujoco") is not None:
            self.notes.append("the file's own <mujoco> block is left out")
        tree = Tree(self.robot.get("name") or "robot", order[0], tree_links, tuple(joints))
        return Urdf(tree, inertias, "" if folder is None else folder.get("meshdir", ""), self.notes)

    def named(self, kind: str) -> list[Element]:
        """Elements of a kind, each with a name of its own."""
        found = self.robot.findall(kind)
        names = [element.get("name", "") for element in found]
        if "" in names:
            raise self.error(f"a {kind} has no name")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise self.error(f"{kind} {twice!r} stands there more than once; each needs a name of its own")
        return found

    def order(self, links: list[str], joints: list[TreeJoint]) -> list[str]:
        """The links, parents first. Raises UserError where they are not one tree."""
        above: dict[str, str] = {}
        for joint in joints:
            for end in (joint.parent, joint.child):
                if end not in links:
                    raise self.error(f"joint {joint.name!r} names a link {end!r}, and there is none")
            if joint.child in above:
                raise self.error(f"link {joint.child!r} is the child of two joints; a URDF is a tree")
            above[joint.child] = joint.parent
        if not links:
            raise self.error("has no link")
        roots = [name for name in links if name not in above]
        if not roots:
            raise self.error("every link has a parent, so the joints go in a circle; a URDF is a tree")
        if len(roots) > 1:
            names = " and ".join(map(repr, roots[:2]))
            raise self.error(f"links {names} both have no parent; a URDF is one tree, join them")
        found = [roots[0]]
        for name in found:  # grows while it is walked
            found.extend(joint.child for joint in joints if joint.parent == name)
        if len(found) < len(links):
            lost = next(name for name in links if name not in found)
            raise self.error(f"link {lost!r} hangs on itself through its joints; a URDF is a tree")
        return found

    def check_mimics(self, joints: list[TreeJoint]) -> None:
        moving = {joint.name: joint for joint in joints if joint.kind not in ("fixed", "floating")}
        for joint in joints:
            seen, at = {joint.name}, joint
            while at.mimic is not None:
                if at.mimic.joint not in moving:
                    raise self.error(
                        f"joint {at.name!r} is to mimic {at.mimic.joint!r}, and no moving joint has that name"
                    )
                at = moving[at.mimic.joint]
                if at.name in seen:
                    raise self.error(f"joint {joint.name!r} mimics itself; one of a group must lead")
                seen.add(at.name)

    # ---- parts ----
    def joint(self, element: Element) -> TreeJoint:
        name, kind = element.get("name", ""), element.get("type")
        where = f"joint {name!r}"
        if kind not in _KINDS:
            raise self.error(f"{where} is {kind!r}; accepted: {', '.join(_KINDS)}")
        axis = self.numbers(element.find("axis"), "xyz", (1.0, 0.0, 0.0), where)
        limit, dynamics, mimic = element.find("limit"), element.find("dynamics"), element.find("mimic")
        moves = kind not in ("fixed", "floating")
        if moves and not np.linalg.norm(axis) > 0.0:
            raise self.error(f"{where} has the axis 0 0 0; give the direction that it moves in")
        ends = {key: self.number(limit, key, 0.0, where) for key in _LIMITS}
        if kind == "continuous":
            ends |= {"lower": 0.0, "upper": 0.0}
        if ends["lower"] > ends["upper"]:
            raise self.error(f"{where} has lower {ends['lower']:g} above upper {ends['upper']:g}")
        if kind in ("revolute", "prismatic") and mimic is None and ends["lower"] == ends["upper"]:
            kind = self.endless(kind, limit, where)
        return TreeJoint(
            name,
            cast(Literal["revolute", "continuous", "prismatic", "fixed", "floating"], kind),
            self.link_name(element, "parent", where),
            self.link_name(element, "child", where),
            self.pose(element, where),
            axis / np.linalg.norm(axis) if moves else np.zeros(3),
            **{key: value if moves else 0.0 for key, value in ends.items()},
            damping=abs(self.number(dynamics, "damping", 0.0, where)),
            friction=abs(self.number(dynamics, "friction", 0.0, where)),
            mimic=self.mimic(mimic, where) if mimic is not None and moves else None,
        )

    def endless(self, kind: str, limit: Element | None, where: str) -> str:
        """What a joint is whose lower and upper limits are the same, or not there.

        An exporter that was not told any limit writes four zeros.
        """
        given = {} if limit is None else {key: self.number(limit, key, 0.0, where) for key in _LIMITS}
        stated = limit is not None and ("lower" in limit.attrib or "upper" in limit.attrib)
        if stated and (kind == "prismatic" or any(given.values())):
            self.notes.append(f"{where} is fixed, as its lower and upper limit are the same")
            return kind
        if limit is None or kind == "prismatic":
            raise self.error(f"{where} needs lower, upper, effort and velocity in its limit")
        self.notes.append(f"{where} has no limits: it turns without end")
        return "continuous"

    def mimic(self, element: Element, where: str) -> Mimic:
        factor, offset = (self.number(element, *key, where) for key in (("multiplier", 1.0), ("offset", 0.0)))
        return Mimic(element.get("joint", ""), factor, offset)

    def link_name(self, joint: Element, role: str, where: str) -> str:
        element = joint.find(role)
        if element is None or not element.get("link"):
            raise self.error(f"{where} has no {role} link")
        return element.get("link", "")

    def inertia(self, link: Element, name: str) -> RawInertia:
        """Of one link in its own axes; nothing where it has no <inertial>, whatever its shapes."""
        inertial, where = link.find("inertial"), f"link {name!r}"
        if inertial is None:
            return RawInertia(0.0, np.zeros(3), np.zeros((3, 3)))
        mass = self.number(inertial.find("mass"), "value", 0.0, where)
        if mass < 0.0:
            raise self.error(f"{where} has the mass {mass:g} kg; it must not be negative")
        given = inertial.find("inertia")
        xx, xy, xz, yy, yz, zz = (
            self.number(given, key, 0.0, where) for key in ("ixx", "ixy", "ixz", "iyy", "iyz", "izz")
        )
        pose = self.pose(inertial, where)
        turn = to_matrix(pose.orientation)
        matrix = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        return RawInertia(mass, pose.position, turn @ matrix @ turn.T)

    def shapes(self, name: str, link: Element) -> tuple[Shape, ...]:
        """Collision shapes and pictures made of primitives; pictures made of meshes stay in the URDF."""
        found = []
        for role in ("collision", "visual"):
            for element in link.findall(role):
                shape = self.shape(element, f"{role} of link {name!r}", role == "collision")
                if shape is not None and (shape.collides or shape.kind != "mesh"):
                    found.append(shape)
        return tuple(found)

    def shape(self, element: Element, where: str, collides: bool) -> Shape | None:
        geometry = element.find("geometry")
        form = None if geometry is None else next(iter(geometry), None)
        if form is None:
            return None
        pose = self.pose(element, where)
        if form.tag == "mesh":
            scale = self.numbers(form, "scale", (1.0, 1.0, 1.0), where)
            return Shape("mesh", tuple(scale.tolist()), pose, _GREY, collides, form.get("filename", ""))
        if form.tag == "box":
            size = tuple(self.numbers(form, "size", None, where).tolist())
        elif form.tag == "sphere":
            size = (self.number(form, "radius", None, where),)
        elif form.tag in ("cylinder", "capsule"):
            size = tuple(self.number(form, key, None, where) for key in ("radius", "length"))
        else:
            raise self.error(f"{where} is a {form.tag}; accepted: box, sphere, cylinder, capsule and mesh")
        if min(size) <= 0.0:
            if collides:
                self.notes.append(f"{where} is left out: a {form.tag} without extent")
            return None
        kind = cast(Literal["box", "sphere", "cylinder", "capsule"], form.tag)
        return Shape(kind, size, pose, self.colour(element), collides)

    def colour(self, element: Element) -> tuple[float, ...]:
        colour = element.find("material/color")
        try:
            values = tuple(
                float(value) for value in (colour.get("rgba", "") if colour is not None else "").split()
            )
        except ValueError:
            return _GREY
        return values if len(values) == 4 and all(0.0 <= value <= 1.0 for value in values) else _GREY

    # ---- numbers ----
    def pose(self, element: Element, where: str) -> Pose:
        origin = element.find("origin")
        position = self.numbers(origin, "xyz", (0.0, 0.0, 0.0), where)
        rpy = self.numbers(origin, "rpy", (0.0, 0.0, 0.0), where)
        return Pose(position, np.asarray(from_roll_pitch_yaw(*rpy), dtype=np.float64))

    def number(self, element: Element | None, key: str, default: float | None, where: str) -> float:
        text = None if element is None else element.get(key)
        if text is None and default is not None:
            return default
        return self._finite([text or ""], key, where)[0]

    def numbers(
        self, element: Element | None, key: str, default: Iterable[float] | None, where: str
    ) -> Array:
        """Three of them."""
        text = None if element is None else element.get(key)
        if (text is None or not text.strip()) and default is not None:
            return np.array(tuple(default))
        values = self._finite((text or "").split(), key, where)
        if len(values) != 3:
            raise self.error(f"{where}: {key} needs three numbers, got {text!r}")
        return np.array(values)

    def _finite(self, words: list[str], key: str, where: str) -> list[float]:
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = [math.nan]
        if not all(map(math.isfinite, values)):
            raise self.error(f"{where}: {key} must be a number, got {' '.join(words)!r}")
        return values


def _still(position: Array) -> Pose:
    return Pose(position, np.array([0.0, 0.0, 0.0, 1.0]))


def compose(outer: Pose, inner: Pose) -> Pose:
    """The pose in the outer frame of what has the pose `inner` in the frame at `outer`."""
    turn = to_matrix(outer.orientation) @ to_matrix(inner.orientation)
    return Pose(outer.position + rotate(outer.orientation, inner.position), from_matrix(turn))


def at(joint: TreeJoint, position: float) -> Pose:
    """Where `joint` puts its child's frame, in its parent's, at a position in rad or m."""
    if joint.kind == "prismatic":
        return compose(joint.pose, _still(position * joint.axis))
    half = 0.5 * position
    turn = np.append(np.sin(half) * joint.axis, np.cos(half))
    return compose(joint.pose, Pose(np.zeros(3), turn))


def lumped(parts: Iterable[tuple[Pose, RawInertia]]) -> RawInertia:
    """Bodies that are fixed to each other as one, in the frame that their poses are in."""
    placed = []
    for pose, part in parts:
        turn = to_matrix(pose.orientation)
        com = pose.position + turn @ part.com
        placed.append((part.mass, com, turn @ part.matrix @ turn.T))
    mass = sum(each[0] for each in placed)
    centre = sum((m * com for m, com, _ in placed), np.zeros(3)) / mass if mass > 0.0 else np.zeros(3)
    matrix = np.zeros((3, 3))
    for m, com, inertia in placed:
        arm = com - centre
        matrix += inertia + m * (arm @ arm * np.eye(3) - np.outer(arm, arm))
    return RawInertia(mass, centre, matrix)


_LEAST_RADIUS = 1e-4  # m: a body is taken to reach at least this far from its centre in every direction
_SMALL_RADIUS = 1e-2  # m: what moves a body's second moments by less than this radius is a small change


def physical(part: RawInertia) -> tuple[Array, Array, float]:
    """The nearest inertia that a body of that mass can have: along its axes (3,), kg m^2, the axes' xyzw, and
    how far it is from the given one, as a share of that.

    A body's second moments of mass, tr(I) / 2 - I, are positive in every direction; those that are not are
    raised to a least value (P. M. Wensing et al., Linear matrix inequalities for physically consistent
    inertial parameter identification, RA-L 2018).
    """
    moments, axes = np.linalg.eigh(0.5 * np.trace(part.matrix) * np.eye(3) - part.matrix)
    raised = np.maximum(moments, max(part.mass * _LEAST_RADIUS**2, 1e-12))
    axes[:, 2] *= np.sign(np.linalg.det(axes))  # right-handed
    scale = max(float(np.abs(moments).max()), part.mass * _SMALL_RADIUS**2)
    change = float(np.abs(raised - moments).max() / scale)
    return raised.sum() - raised, from_matrix(axes), change
