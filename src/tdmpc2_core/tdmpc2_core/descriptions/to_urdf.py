"""An embodiment as URDF (http://wiki.ros.org/urdf/XML), read from its MJCF and YAML; shapes as primitives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import mujoco
import numpy as np

from tdmpc2_core.descriptions.tree import (
    NOWHERE,
    WORLD,
    Mimic,
    Pose,
    Shape,
    Stance,
    Tree,
    TreeJoint,
    TreeLink,
)
from tdmpc2_core.envs.robot.drives import compile_model, couplings
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.rotations import rotate, to_roll_pitch_yaw, wxyz_to_xyzw

_KINDS: dict[int, Literal["revolute", "prismatic"]] = {
    mujoco.mjtJoint.mjJNT_HINGE: "revolute",
    mujoco.mjtJoint.mjJNT_SLIDE: "prismatic",
}


def read_tree(embodiment: Embodiment) -> Tree:
    """The tree of a robot.

    Raises:
        UserError: the MJCF does not compile, or holds what is not written to URDF: a joint that the YAML
            does not list, several joints in one body, a joint off the origin of its body, a mesh.
    """
    return _Reader(embodiment).tree()


def read_stance(embodiment: Embodiment) -> Stance:
    """How the robot stands in the world. Raises UserError."""
    return _Reader(embodiment).stance()


class _Reader:
    """Walks one compiled model."""

    def __init__(self, embodiment: Embodiment) -> None:
        self.embodiment, self.path = embodiment, embodiment.model_path
        self.model = compile_model(self.path)
        self.given = {joint.name: joint for joint in embodiment.joints}

    def tree(self) -> Tree:
        base = self.base()
        links, joints = [], []
        floating = self.floats(base)
        root = self.name(base) if floating else WORLD
        if not floating:
            links.append(_frame(WORLD))
        for body in self.below(base):
            links.append(self.link(body))
            if body != base or not floating:
                joints.append(self.joint(body, WORLD if body == base else ""))
        known = {link.name for link in links}
        for site, parent in self.sites(set(self.below(base))):
            name = self.model.site(site).name
            if name not in known:
                links.append(_frame(name))
                pose = Pose(self.model.site_pos[site].copy(), wxyz_to_xyzw(self.model.site_quat[site]))
                joints.append(TreeJoint(f"{name}_fixed", "fixed", self.name(parent), name, pose, np.zeros(3)))
        return Tree(self.embodiment.name, root, tuple(links), tuple(joints))

    def stance(self) -> Stance:
        base = self.base()
        height = self.embodiment.reset.base_height or float(self.model.body_pos[base][2])
        names = self.embodiment.clock.feet if self.embodiment.clock else ()
        geoms = [mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_GEOM, name) for name in names]
        if -1 in geoms:
            raise UserError(f"{self.path}: no geom named {names[geoms.index(-1)]!r}, a foot of the clock")
        feet = tuple(self.name(self.model.geom_bodyid[geom]) for geom in geoms)
        first = self.model.body_jntadr[base]
        return Stance(self.model.joint(first).name if self.floats(base) else "", height, feet)

    def base(self) -> int:
        body = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, self.embodiment.base_frame)
        if body < 0:
            raise UserError(f"{self.path}: no body named {self.embodiment.base_frame!r}, the base_frame")
        return body

    def floats(self, base: int) -> bool:
        first = self.model.body_jntadr[base]
        return self.model.body_jntnum[base] == 1 and self.model.jnt_type[first] == mujoco.mjtJoint.mjJNT_FREE

    def below(self, base: int) -> list[int]:
        """The base and every body under it, parents first."""
        found = [base]
        for body in range(base + 1, self.model.nbody):
            if self.model.body_parentid[body] in found:
                found.append(body)
        return found

    def sites(self, bodies: set[int]) -> list[tuple[int, int]]:
        """Named sites of the bodies, with their body."""
        pairs = [(site, int(self.model.site_bodyid[site])) for site in range(self.model.nsite)]
        return [(site, body) for site, body in pairs if body in bodies and self.model.site(site).name]

    def name(self, body: int) -> str:
        return self.model.body(body).name or f"body_{body}"

    def link(self, body: int) -> TreeLink:
        model = self.model
        start, count = model.body_geomadr[body], model.body_geomnum[body]
        shapes = [shape for geom in range(start, start + count) for shape in self.shapes(geom)]
        com = Pose(model.body_ipos[body].copy(), wxyz_to_xyzw(model.body_iquat[body]))
        inertia = model.body_inertia[body].copy()
        return TreeLink(self.name(body), float(model.body_mass[body]), com, inertia, tuple(shapes))

    def joint(self, body: int, parent: str) -> TreeJoint:
        model, child = self.model, self.name(body)
        pose = Pose(model.body_pos[body].copy(), wxyz_to_xyzw(model.body_quat[body]))
        parent = parent or self.name(model.body_parentid[body])
        count, index = model.body_jntnum[body], model.body_jntadr[body]
        if count == 0:
            return TreeJoint(f"{child}_fixed", "fixed", parent, child, pose, np.zeros(3))
        if count > 1:
            raise UserError(f"{self.path}: body {child!r} has {count} joints; a URDF link has at most one")
        name, kind = model.joint(index).name, _KINDS.get(model.jnt_type[index])
        if kind is None:
            raise UserError(f"{self.path}: joint {name!r} is neither a hinge nor a slide")
        mimic = self.mimic(index)
        if name not in self.given and mimic is None:
            raise UserError(
                f"{self.path}: joint {name!r} is not in the embodiment {self.embodiment.name!r}; add it to "
                "joints.list or remove it, which welds the body"
            )
        if np.abs(model.jnt_pos[index]).max() > 1e-9 or abs(model.qpos0[model.jnt_qposadr[index]]) > 1e-9:
            raise UserError(
                f"{self.path}: joint {name!r} has pos or ref; put the body's frame at the joint instead"
            )
        dof = model.jnt_dofadr[index]
        given = self.given.get(mimic.joint if mimic else name)  # what follows has no drive of its own
        lower, upper = model.jnt_range[index] if mimic or not given else (given.lower, given.upper)
        return TreeJoint(
            name,
            kind,
            parent,
            child,
            pose,
            axis=model.jnt_axis[index].copy(),
            lower=float(lower),
            upper=float(upper),
            effort=given.effort if given else 0.0,
            velocity=given.velocity if given else 0.0,
            damping=float(model.dof_damping[dof]),
            friction=float(model.dof_frictionloss[dof]),
            mimic=mimic,
        )

    def mimic(self, joint: int) -> Mimic | None:
        """How a joint without a drive follows another one; None where it does not, or not linearly."""
        model = self.model
        for follower, leader, factors in couplings(model):
            if follower == model.jnt_qposadr[joint] and not factors[2:].any():
                name = model.joint(int(np.flatnonzero(model.jnt_qposadr == leader)[0])).name
                return None if model.joint(joint).name in self.given else Mimic(name, factors[1], factors[0])
        return None

    def shapes(self, geom: int) -> list[Shape]:
        model = self.model
        kind, size = model.geom_type[geom], model.geom_size[geom]
        pose = Pose(model.geom_pos[geom].copy(), wxyz_to_xyzw(model.geom_quat[geom]))
        material = model.geom_matid[geom]
        rgba = model.mat_rgba[material] if material >= 0 else model.geom_rgba[geom]
        look = tuple(round(float(value), 4) for value in rgba)
        collides = bool(model.geom_contype[geom] or model.geom_conaffinity[geom])
        radius, half = float(size[0]), float(size[1])
        if kind == mujoco.mjtGeom.mjGEOM_BOX:
            return [Shape("box", tuple(2.0 * float(value) for value in size), pose, look, collides)]
        if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
            return [Shape("sphere", (radius,), pose, look, collides)]
        if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
            return [Shape("cylinder", (radius, 2.0 * half), pose, look, collides)]
        if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:  # URDF has none
            middle = Shape("cylinder", (radius, 2.0 * half), pose, look, collides)
            offset = rotate(pose.orientation, np.array([0.0, 0.0, half]))
            ends = [Pose(pose.position + sign * offset, pose.orientation) for sign in (-1.0, 1.0)]
            return [middle, *(Shape("sphere", (radius,), end, look, collides) for end in ends)]
        if kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID:  # URDF has none: the sphere of equal volume
            return [Shape("sphere", (float(np.cbrt(size.prod())),), pose, look, collides)]
        what = mujoco.mjtGeom(kind).name.removeprefix("mjGEOM_").lower()
        body = self.name(model.geom_bodyid[geom])
        raise UserError(
            f"{self.path}: body {body!r} has a geom of type {what}, and only box, sphere, cylinder, "
            "capsule and ellipsoid are written to URDF; give the robot's own URDF instead"
        )


def _frame(name: str) -> TreeLink:
    return TreeLink(name, 0.0, NOWHERE, np.zeros(3), ())


def urdf_text(embodiment: Embodiment, prefix: str = "") -> str:
    """The robot as a URDF document; `prefix` goes before every link and joint name. Raises UserError."""
    root = Element("robot", name=embodiment.name)
    root.extend(urdf_elements(read_tree(embodiment), prefix))
    return document(root)


def urdf_elements(tree: Tree, prefix: str = "") -> list[Element]:
    """Links and joints, each joint before the link that it moves.

    The link `world` of a fixed robot keeps its name, as simulators look for it.
    """
    names = {link.name: link.name if link.name == WORLD else prefix + link.name for link in tree.links}
    above = {joint.child: joint for joint in tree.joints}
    elements = []
    for link in tree.links:
        if link.name in above:
            elements.append(_joint(above[link.name], names, prefix))
        elements.append(_link(link, names[link.name]))
    return elements


def document(root: Element) -> str:
    """An XML document, indented."""
    ElementTree.indent(root)
    return '<?xml version="1.0"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _link(link: TreeLink, name: str) -> Element:
    element = Element("link", name=name)
    if link.mass > 0.0:
        inertial = SubElement(element, "inertial")
        _origin(inertial, link.com)
        SubElement(inertial, "mass", value=_number(link.mass))
        axes = zip(("ixx", "iyy", "izz"), map(_number, link.inertia), strict=True)
        SubElement(inertial, "inertia", {**dict(axes), "ixy": "0", "ixz": "0", "iyz": "0"})
    for shape in link.shapes:
        visual = SubElement(element, "visual")
        _shape(visual, shape)
        colour = _numbers(shape.rgba)
        material = SubElement(visual, "material", name="rgba_" + colour.replace(" ", "_"))
        SubElement(material, "color", rgba=colour)
    for index, shape in enumerate(shape for shape in link.shapes if shape.collides):
        # named as Gazebo names them, for its contact sensors
        number = f"_{index}" if index else ""
        _shape(SubElement(element, "collision", name=f"{name}_collision{number}"), shape)
    return element


def _shape(parent: Element, shape: Shape) -> None:
    _origin(parent, shape.pose)
    geometry = SubElement(parent, "geometry")
    if shape.kind == "box":
        SubElement(geometry, "box", size=_numbers(shape.size))
    elif shape.kind == "sphere":
        SubElement(geometry, "sphere", radius=_number(shape.size[0]))
    else:
        radius, length = map(_number, shape.size)
        SubElement(geometry, "cylinder", radius=radius, length=length)


def _joint(joint: TreeJoint, names: dict[str, str], prefix: str) -> Element:
    element = Element("joint", name=prefix + joint.name, type=joint.kind)
    SubElement(element, "parent", link=names[joint.parent])
    SubElement(element, "child", link=names[joint.child])
    _origin(element, joint.pose)
    if joint.kind != "fixed":
        SubElement(element, "axis", xyz=_numbers(joint.axis))
        limits = {key: _number(getattr(joint, key)) for key in ("lower", "upper", "effort", "velocity")}
        SubElement(element, "limit", limits)
        SubElement(element, "dynamics", damping=_number(joint.damping), friction=_number(joint.friction))
    if joint.mimic:
        factors = {key: _number(getattr(joint.mimic, key)) for key in ("multiplier", "offset")}
        SubElement(element, "mimic", {"joint": prefix + joint.mimic.joint, **factors})
    return element


def _origin(parent: Element, pose: Pose) -> None:
    same = all(np.array_equal(a, b) for a, b in zip(pose, NOWHERE, strict=True))
    if not same:
        rpy = to_roll_pitch_yaw(pose.orientation)
        SubElement(parent, "origin", xyz=_numbers(pose.position), rpy=_numbers(rpy))


def _numbers(values: Iterable[float]) -> str:
    return " ".join(map(_number, values))


def _number(value: float) -> str:
    """Ten significant digits: forward kinematics keep to 1e-9."""
    return f"{0.0 if abs(value) < 1e-12 else value:.10g}"
