"""A robot folder from a URDF: MJCF with drives, IMU and ground, and a draft of its embodiment.yaml.

MuJoCo reads the URDF; what a URDF does not say is added with values that the user then reviews. The maker's
file is kept beside them, for robot_state_publisher and ros2_control.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import mujoco
import numpy as np
import yaml

from tdmpc2_core.descriptions.tree import WORLD
from tdmpc2_core.errors import UserError
from tdmpc2_core.files import write_text
from tdmpc2_core.robots.rotations import from_roll_pitch_yaw, xyzw_to_wxyz

_SAG = 0.5  # rad (or m) of error at which a drive gives its full effort: sets kp
_DAMPING = 0.5  # share of critical damping: sets kd
_REACH = 0.5  # rad, largest change of a target that an action asks for


@dataclass
class Drive:
    """A joint as the URDF has it; `inertia` is what its drive feels in the default pose, kg m^2."""

    name: str
    lower: float
    upper: float
    effort: float
    velocity: float
    inertia: float = 0.0

    @property
    def default(self) -> float:
        """Zero where the limits allow it, else the nearest tenth of the range inside."""
        room = 0.1 * (self.upper - self.lower)
        return round(min(max(0.0, self.lower + room), self.upper - room), 4)

    @property
    def kp(self) -> float:
        """Proportional gain, N m/rad."""
        return round(self.effort / _SAG, 3)

    @property
    def kd(self) -> float:
        """Damping gain, N m s/rad."""
        return round(2.0 * _DAMPING * (self.kp * self.inertia) ** 0.5, 4)

    @property
    def action_scale(self) -> float:
        """Change of the target for a full action, rad."""
        return round(min(_REACH, 0.25 * (self.upper - self.lower)), 4)


def draft_embodiment(
    name: str, base: str, imu: str, drives: list[Drive], height: float | None, physics_rate: float
) -> str:
    """The YAML of a robot that is to follow a forward and a turning command, or of one bolted down.

    `height` is that of the base at rest, m, and None for a robot bolted to the world, whose draft rewards
    keeping the default pose.
    """
    keys = ("name", "default", "lower", "upper", "action_scale", "kp", "kd", "velocity", "effort")
    joints = [{key: getattr(drive, key) for key in keys} for drive in drives]
    measured = {"source": "joints", "max_age": 0.06}
    terms = [
        {"name": "joint_position", "noise": 0.01, **measured},
        {"name": "joint_velocity", "scale": 0.05, "noise": 0.5, **measured},
        {"name": "previous_action", "source": "self", "history": 1},
    ]
    penalties: list[dict[str, object]] = [
        {"name": "action_rate", "weight": -0.02},
        {"name": "effort", "weight": -0.0001},
    ]
    if height is None:
        rest: dict[str, object] = {"reward": {"terms": [{"name": "stand_pose", "weight": -1.0}, *penalties]}}
    else:
        inertial = {"source": "imu", "max_age": 0.06}
        terms = [
            {"name": "gyro", "scale": 0.25, "noise": 0.1, **inertial},
            {"name": "gravity", "noise": 0.02, **inertial},
            *terms,
            {"name": "command", "source": "command", "history": 1},
        ]
        rest = _walking(height, penalties)
    content = {
        "format": 1,
        "name": name,
        "task": "follow the commanded velocity" if height is not None else "keep the default pose",
        "model": f"{name}.xml",
        "control_rate": 50.0,
        "physics_rate": physics_rate,
        "base_frame": base,
        **({"imu_frame": imu} if height is not None else {}),
        "joints": {"list": joints},
        "observation": {"history": 3, "terms": terms},
        **rest,
    }
    head = (
        "# Drafted from a URDF. Review every number: default pose, gains, action_scale, commands, reward.\n"
    )
    return head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)


def _walking(height: float, penalties: list[dict[str, object]]) -> dict[str, object]:
    """Command, start, reward and termination of a robot that walks."""
    return {
        "command": {
            "terms": [
                {"name": "linear_x", "lower": -0.3, "upper": 0.3},
                {"name": "angular_z", "lower": -0.5, "upper": 0.5},
            ],
            "deadband": 0.05,
            "stand_fraction": 0.15,
        },
        "reset": {"base_height": round(height, 4), "joint_noise": 0.05, "velocity_noise": 0.1},
        "reward": {
            "velocity_time_constant": 0.25,
            "terms": [
                {"name": "track_linear_velocity", "weight": 1.0, "sigma": 0.15},
                {"name": "track_yaw_rate", "weight": 0.5, "sigma": 0.3},
                {"name": "upright", "weight": 0.3, "sigma": 0.2},
                *penalties,
            ],
        },
        "termination": {"max_tilt": 1.0, "min_base_height": round(0.5 * height, 4)},
    }


PHYSICS_RATE = 250.0  # Hz
_MESHES = (".stl", ".obj")
_ARMATURE = "0.01"  # kg m^2, of a drive's rotor; URDF has no place for it
_IMU = "imu_link"


def import_urdf(source: Path, folder: Path, fixed: bool = False) -> Path:
    """Write <name>.xml, <name>.urdf and embodiment.yaml into the new `folder`; returns the path of the YAML.

    `fixed` bolts the root link to the world, as a root link named `world` does; otherwise it moves freely.
    Fixed joints keep their links as frames. The IMU's frame is imu_link, or the root link if there is none.

    Raises:
        UserError: the file is no URDF that MuJoCo can read, a mesh is missing, a joint has no limits.
    """
    robot = _parse(source)
    name = robot.get("name", "robot")
    if folder.exists():
        raise UserError(f"{folder}: exists already; give a folder that does not exist yet")
    mount = _mount(robot)
    fixed = fixed or mount is not None
    drives = _drives(robot, source)
    meshes = _meshes(robot, source)
    folder.mkdir(parents=True)
    for file, target in meshes.items():
        shutil.copyfile(file, folder / target)
    try:
        scene, height = _scene(robot, folder, drives, fixed, source)
    except UserError:
        shutil.rmtree(folder)
        raise
    base = next(scene.iter("body"))
    base.attrib.update(mount or {})
    imu = next(base.iter("site")).get("name", "")
    draft = draft_embodiment(name, base.get("name", ""), imu, drives, None if fixed else height, PHYSICS_RATE)
    ElementTree.indent(scene)
    write_text(folder / f"{name}.xml", ElementTree.tostring(scene, encoding="unicode") + "\n")
    shutil.copyfile(source, folder / f"{name}.urdf")
    path = folder / "embodiment.yaml"
    write_text(path, draft)
    return path


def _parse(source: Path) -> Element:
    try:
        root = ElementTree.parse(source).getroot()
    except (OSError, ElementTree.ParseError) as problem:
        raise UserError(f"{source}: cannot be read as XML: {problem}") from None
    if root.tag != "robot":
        raise UserError(f"{source}: expected <robot>, got <{root.tag}>; run xacro on a xacro file first")
    return root


def _mount(robot: Element) -> dict[str, str] | None:
    """Take a root link named world and its joint out; returns the place of the link below it, for MJCF."""
    world = next((link for link in robot.findall("link") if link.get("name") == WORLD), None)
    joint = next((j for j in robot.findall("joint") if j.find(f"parent[@link='{WORLD}']") is not None), None)
    if world is None or joint is None:
        return None
    robot.remove(world)
    robot.remove(joint)
    origin = joint.find("origin")
    place = {} if origin is None else origin.attrib
    rpy = (float(angle) for angle in place.get("rpy", "0 0 0").split())
    quaternion = xyzw_to_wxyz(from_roll_pitch_yaw(*rpy))
    return {"pos": place.get("xyz", "0 0 0"), "quat": " ".join(f"{value:.10g}" for value in quaternion)}


def _drives(robot: Element, source: Path) -> list[Drive]:
    """The joints that move, in the file's order."""
    drives = []
    for joint in robot.findall("joint"):
        name, limit = joint.get("name", ""), joint.find("limit")
        if joint.get("type") == "fixed":
            continue
        if joint.get("type") not in ("revolute", "prismatic") or limit is None:
            raise UserError(
                f"{source}: joint {name!r} is {joint.get('type')}; only revolute and prismatic joints with "
                "limits can be driven, make others fixed"
            )
        values = {key: float(limit.get(key, 0.0)) for key in ("lower", "upper", "effort", "velocity")}
        if values["effort"] <= 0.0 or values["velocity"] <= 0.0 or values["lower"] >= values["upper"]:
            raise UserError(f"{source}: joint {name!r} needs lower, upper, effort and velocity in its limit")
        drives.append(Drive(name, **values))
    if not drives:
        raise UserError(f"{source}: no joint moves")
    return drives


def _meshes(robot: Element, source: Path) -> dict[Path, str]:
    """Collision meshes and the names that they get; pictures made of meshes are left to the maker's file."""
    found: dict[Path, str] = {}
    for link in robot.findall("link"):
        for visual in link.findall("visual"):
            if visual.find("geometry/mesh") is not None:
                link.remove(visual)
        for mesh in link.iterfind("collision/geometry/mesh"):
            file = _file(mesh.get("filename", ""), source)
            if file is None or file.suffix.lower() not in _MESHES:
                raise UserError(
                    f"{source}: collision mesh {mesh.get('filename')!r} is missing or neither STL nor OBJ; "
                    "give that file or a primitive shape"
                )
            found[file] = f"{link.get('name')}_{file.name}"
            mesh.set("filename", found[file])
    return found


def _file(name: str, source: Path) -> Path | None:
    """A file as a URDF names it: relative, absolute, file:// or package://NAME/..., NAME above the URDF."""
    if name.startswith("package://"):
        places = [parent / name.removeprefix("package://") for parent in source.resolve().parents]
    else:
        places = [source.parent / name.removeprefix("file://")]
    return next((place for place in places if place.is_file()), None)


def _scene(
    robot: Element, folder: Path, drives: list[Drive], fixed: bool, source: Path
) -> tuple[Element, float]:
    """The MJCF, and the height of the base at which the lowest shape touches the ground, m."""
    options = SubElement(SubElement(robot, "mujoco"), "compiler")
    # keep links without joints, shapes without contact, and meshes where they were put
    options.attrib.update(fusestatic="false", discardvisual="false", strippath="false", balanceinertia="true")
    text = ElementTree.tostring(robot, encoding="unicode")
    try:
        spec = mujoco.MjSpec.from_string(text)
        spec.modelfiledir = str(folder)
        spec.compile()
        scene = ElementTree.fromstring(spec.to_xml())
    except (ValueError, mujoco.FatalError) as problem:
        raise UserError(f"{source}: MuJoCo cannot read it: {' '.join(str(problem).split())}") from None
    world = scene.find("worldbody")
    base = None if world is None else world.find("body")
    if world is None or base is None:
        raise UserError(f"{source}: the root link has no inertial; MuJoCo needs its mass")
    _prepare(scene, world, base, drives, fixed)
    model = mujoco.MjModel.from_xml_string(ElementTree.tostring(scene, encoding="unicode"), _assets(folder))
    height = _height(model, drives)
    inertia = _inertia(model, drives)
    for drive, value in zip(drives, inertia, strict=True):
        drive.inertia = value
    if not fixed:
        base.set("pos", f"0 0 {height:.4g}")
    _actuators(scene, drives)
    return scene, height


def _assets(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _prepare(scene: Element, world: Element, base: Element, drives: list[Drive], fixed: bool) -> None:
    """Ground, light, camera, free joint, IMU, rotor inertia; the robot touches the ground and not itself."""
    option: dict[str, Any] = {"timestep": f"{1.0 / PHYSICS_RATE:g}", "integrator": "implicitfast"}
    scene.insert(1, Element("option", option))
    world.insert(
        0, Element("geom", name="ground", type="plane", size="0 0 0.05", contype="1", conaffinity="0")
    )
    world.insert(0, Element("light", directional="true", pos="2 -3 6", dir="-0.3 0.45 -0.85"))
    SubElement(base, "camera", name="track", mode="trackcom", pos="0 -2 0.8", xyaxes="1 0 0 0 0.3 0.95")
    if not fixed:
        base.insert(0, Element("freejoint", name="floating_base"))
    for geom in base.iter("geom"):
        if geom.get("contype") != "0":
            geom.attrib.update(contype="0", conaffinity="1")
    moving = {drive.name for drive in drives}
    for joint in base.iter("joint"):
        if joint.get("name") in moving:
            joint.attrib.pop("actuatorfrcrange", None)  # the drive has the limit
            joint.set("armature", _ARMATURE)
    carrier = next((body for body in base.iter("body") if body.get("name") == _IMU), base)
    imu = carrier.get("name", "")
    SubElement(carrier, "site", name=imu)
    sensor = SubElement(scene, "sensor")
    SubElement(sensor, "framequat", name="imu_quat", objtype="site", objname=imu)
    SubElement(sensor, "gyro", name="imu_gyro", site=imu)
    SubElement(sensor, "accelerometer", name="imu_accel", site=imu)


def _actuators(scene: Element, drives: list[Drive]) -> None:
    actuator = SubElement(scene, "actuator")
    for drive in drives:
        limit = f"{-drive.effort:g} {drive.effort:g}"
        gains = {"kp": f"{drive.kp:g}", "kv": f"{drive.kd:g}", "forcerange": limit}
        SubElement(actuator, "position", gains, name=drive.name, joint=drive.name)


def _posed(model: mujoco.MjModel, drives: list[Drive]) -> mujoco.MjData:
    data = mujoco.MjData(model)
    for drive in drives:
        data.qpos[model.joint(drive.name).qposadr[0]] = drive.default
    mujoco.mj_forward(model, data)
    return data


def _height(model: mujoco.MjModel, drives: list[Drive]) -> float:
    """How far the lowest colliding shape is below the base in the default pose, m."""
    data, lowest = _posed(model, drives), 0.0
    for geom in np.flatnonzero(model.geom_conaffinity):
        up = data.geom_xmat[geom].reshape(3, 3)[2]
        centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
        round_shape = model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_SPHERE
        reach = half[0] if round_shape else np.abs(up) @ half
        lowest = min(lowest, float(data.geom_xpos[geom, 2] + up @ centre - reach))
    return -lowest


def _inertia(model: mujoco.MjModel, drives: list[Drive]) -> list[float]:
    """Inertia that each drive feels in the default pose, rotor included: the mass matrix's diagonal."""
    data = _posed(model, drives)
    matrix = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, matrix, data.qM)
    return [float(matrix[dof, dof]) for dof in (model.joint(drive.name).dofadr[0] for drive in drives)]
