"""Writes the kinematic tree of an embodiment as URDF (http://wiki.ros.org/urdf/XML), shapes as primitives."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from tdmpc2_core.descriptions.from_mjcf import read_tree
from tdmpc2_core.descriptions.tree import NOWHERE, WORLD, Joint, Link, Pose, Shape, Tree
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.rotations import to_roll_pitch_yaw


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


def _link(link: Link, name: str) -> Element:
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


def _joint(joint: Joint, names: dict[str, str], prefix: str) -> Element:
    element = Element("joint", name=prefix + joint.name, type=joint.kind)
    SubElement(element, "parent", link=names[joint.parent])
    SubElement(element, "child", link=names[joint.child])
    _origin(element, joint.pose)
    if joint.kind != "fixed":
        SubElement(element, "axis", xyz=_numbers(joint.axis))
        limits = {key: _number(getattr(joint, key)) for key in ("lower", "upper", "effort", "velocity")}
        SubElement(element, "limit", limits)
        SubElement(element, "dynamics", damping=_number(joint.damping), friction=_number(joint.friction))
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
