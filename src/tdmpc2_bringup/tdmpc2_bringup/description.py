"""Robot descriptions: the xacro file of an embodiment, and the URDF that it gives for one backend.

No launch imports. The links come from the embodiment's MJCF and YAML, or from a URDF of the robot's maker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.dom.minidom import Document
from xml.etree import ElementTree
from xml.etree.ElementTree import Comment, Element, SubElement

import xacro

from tdmpc2_bringup.controllers import CommandInterface
from tdmpc2_core.descriptions import read_stance, read_tree, urdf_elements
from tdmpc2_core.descriptions.to_urdf import document
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment

Sim = Literal["mujoco", "gazebo", "mock", "none"]
SHARED = "tdmpc2.xacro"
_XACRO = "{http://www.ros.org/wiki/xacro}"


@dataclass(frozen=True)
class Backend:
    """What the description depends on besides the robot; the arguments of urdf/tdmpc2.xacro."""

    sim: Sim = "mock"
    prefix: str = ""
    namespace: str = ""
    command_interface: CommandInterface = "position"
    mujoco_model: str = ""
    headless: bool = True
    controllers_file: str = ""
    hardware_plugin: str = ""
    hardware_parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, str]:
        """As xacro takes them."""
        names = (
            "sim",
            "prefix",
            "namespace",
            "command_interface",
            "mujoco_model",
            "controllers_file",
            "hardware_plugin",
        )
        given = {name: getattr(self, name) for name in names}
        return given | {"headless": "true" if self.headless else "false"}


def xacro_text(embodiment: Embodiment, shared: str = SHARED, links: list[Element] | None = None) -> str:
    """The xacro file of a robot: links and joints, its `<ros2_control>` block, its Gazebo sensors.

    `shared` is where the file finds tdmpc2.xacro; `links` stand in for those made from the MJCF.

    Raises:
        UserError: the MJCF cannot be read or written as URDF.
    """
    ElementTree.register_namespace("xacro", _XACRO.strip("{}"))
    root = Element("robot", name=embodiment.name)
    root.append(Comment(f" Made from {embodiment.name}'s embodiment.yaml and MJCF: change those. "))
    SubElement(root, f"{_XACRO}include", filename=shared)
    if links is None:
        links = urdf_elements(read_tree(embodiment), "${prefix}")
    _widen(links, embodiment)
    root.extend(links)
    stance = read_stance(embodiment)
    followers = [joint.get("name", "") for joint in links if joint.find("mimic") is not None]
    root.append(_control(embodiment, stance.free_joint, followers))
    SubElement(root, f"{_XACRO}tdmpc2_gazebo")
    if embodiment.imu_frame:
        SubElement(root, f"{_XACRO}tdmpc2_gazebo_imu", link=embodiment.imu_frame)
    fixed = {_child(joint): joint.get("name", "") for joint in links if joint.get("type") == "fixed"}
    for foot in stance.feet:
        joint = fixed.get("${prefix}" + foot, "").removeprefix("${prefix}")
        SubElement(root, f"{_XACRO}tdmpc2_gazebo_foot", link=foot, joint=joint)
    return document(root)


def robot_description(source: Path, backend: Backend) -> str:
    """URDF that a xacro file gives for a backend.

    Raises:
        UserError: the file is missing or xacro refuses it.
    """
    if not source.is_file():
        raise UserError(f"{source}: no such file; give the robot's xacro or URDF")
    try:
        result: Document = xacro.process_file(str(source), mappings=backend.arguments)
    except Exception as problem:  # xacro raises what the parser, the file system or an expression raise
        raise UserError(f"{source}: xacro refuses it: {' '.join(str(problem).split())}") from None
    root = ElementTree.fromstring(result.toxml())
    for hardware in root.findall("ros2_control/hardware"):
        for name, value in backend.hardware_parameters.items():
            SubElement(hardware, "param", name=name).text = value
    return document(root)


def maker_links(source: Path, embodiment: Embodiment) -> list[Element] | None:
    """Links, joints and materials of a maker's URDF or xacro, `${prefix}` before names of links and joints.

    None when it has its own control block.

    Raises:
        UserError: it lacks a joint of the embodiment.
    """
    root = ElementTree.fromstring(robot_description(source, Backend()))
    missing = set(embodiment.joint_names) - {joint.get("name") for joint in root.findall("joint")}
    if missing:
        raise UserError(f"{source}: no joint {sorted(missing)[0]!r}, which {embodiment.name} moves")
    if root.find("ros2_control") is not None:
        return None
    links = [element for element in root if element.tag in ("link", "joint", "material")]
    for element in (each for each in links if each.tag != "material"):
        for part, key in (".", "name"), ("parent", "link"), ("child", "link"), ("mimic", "joint"):
            for named in element.findall(part):
                named.set(key, "${prefix}" + named.get(key, ""))
    return links


def hardware_parameters(text: str) -> dict[str, str]:
    """``"robot_ip=10.0.0.2 rate=500"`` as a mapping. Raises UserError."""
    pairs = [part.partition("=") for part in text.split()]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise UserError(f"hardware_parameters: {name!r} is no name=value; separate pairs by spaces")
    return {name: value for name, _, value in pairs}


OVERTRAVEL = 0.1
"""rad by which URDF limits lie outside those that the planner keeps. Joints run past a stop that gives under
load, and ros2_control ends the controller of a joint that is measured 0.0087 rad outside its URDF limits."""
SPEED_MARGIN = 2.0
"""URDF velocity limits over the joints'. A trajectory controller that goes on from its last target covers the
way of two periods in the first, which enforce_command_limits would cut off."""


def _widen(links: list[Element], embodiment: Embodiment) -> None:
    """Move the limits of the embodiment's joints outwards, in place, where they are closer."""
    limits = {f"${{prefix}}{joint.name}": joint for joint in embodiment.joints}
    for element in links:
        joint, limit = limits.get(element.get("name", "")), element.find("limit")
        if element.tag != "joint" or joint is None or limit is None:
            continue
        if element.get("type") != "continuous":
            lower, upper = joint.lower - OVERTRAVEL, joint.upper + OVERTRAVEL
            limit.set("lower", f"{min(float(limit.get('lower', 0.0)), lower):.10g}")
            limit.set("upper", f"{max(float(limit.get('upper', 0.0)), upper):.10g}")
        velocity = max(float(limit.get("velocity", 0.0)), SPEED_MARGIN * joint.velocity)
        limit.set("velocity", f"{velocity:.10g}")


def _control(embodiment: Embodiment, free_joint: str, followers: list[str]) -> Element:
    """The control block; `followers` are the URDF's names of joints that others move."""
    control = Element("ros2_control", name="${prefix}" + embodiment.name, type="system")
    SubElement(control, f"{_XACRO}tdmpc2_hardware", free_joint=free_joint)
    for joint in embodiment.joints:
        SubElement(control, f"{_XACRO}tdmpc2_joint", name=joint.name, initial=f"{joint.default:.10g}")
    for name in followers:
        SubElement(control, f"{_XACRO}tdmpc2_follower", name=name.removeprefix("${prefix}"))
    if embodiment.imu_frame:
        SubElement(control, f"{_XACRO}tdmpc2_imu")
    return control


def _child(joint: Element) -> str:
    child = joint.find("child")
    return "" if child is None else child.get("link", "")
