"""A robot folder from a URDF: MJCF with drives, IMU and ground, and a draft of its embodiment.yaml.

Every link becomes a body, so that each frame of the maker is one; links that are fixed to each other are
weighed as one. What a URDF does not say is added with values that the user then reviews. The maker's file is
kept beside them, for robot_state_publisher and ros2_control.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import mujoco
import numpy as np
import yaml

from tdmpc2_core.descriptions.meshes import find_mesh, take_mesh
from tdmpc2_core.descriptions.read_urdf import (
    RawInertia,
    Urdf,
    at,
    compose,
    lumped,
    physical,
    read_urdf,
)
from tdmpc2_core.descriptions.tree import NOWHERE, WORLD, Pose, Shape, TreeJoint
from tdmpc2_core.envs.robot.drives import compile_model, settle_couplings
from tdmpc2_core.errors import UserError
from tdmpc2_core.files import write_text
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.rotations import xyzw_to_wxyz

_SAG = 0.5  # rad (or m) of error at which a drive gives its full effort: sets kp
_STEADY = 0.5  # rad of a drive's own oscillation that a physics step may cover
_DAMPING = 0.5  # share of critical damping: sets kd
_REACH = 0.5  # rad, largest change of a target that an action asks for
_ON_THE_GROUND = 0.02  # m
PHYSICS_RATE = 250.0  # Hz


@dataclass
class Drive:
    """A joint as the URDF has it; one without ends is driven within one turn.

    `inertia` is what its drive feels in the default pose, kg m^2, `least_inertia` what it feels while all
    other joints give way.
    """

    name: str
    lower: float
    upper: float
    effort: float
    velocity: float
    inertia: float = 0.0
    least_inertia: float = math.inf

    @property
    def default(self) -> float:
        """Zero where the limits allow it, else the nearest tenth of the range inside."""
        room = 0.1 * (self.upper - self.lower)
        return round(min(max(0.0, self.lower + room), self.upper - room), 4)

    @property
    def kp(self) -> float:
        """Proportional gain, N m/rad."""
        stiffest = self.least_inertia * (_STEADY * PHYSICS_RATE) ** 2
        return max(round(min(self.effort / _SAG, stiffest), 3), 0.001)

    @property
    def kd(self) -> float:
        """Damping gain, N m s/rad."""
        return round(2.0 * _DAMPING * (self.kp * self.inertia) ** 0.5, 4)

    @property
    def action_scale(self) -> float:
        """Change of the target for a full action, rad."""
        return max(round(min(_REACH, 0.25 * (self.upper - self.lower)), 4), 1e-4)


def draft_embodiment(
    name: str,
    base: str,
    imu: str,
    drives: list[Drive],
    height: float | None,
    physics_rate: float,
    notes: Sequence[str] = (),
) -> str:
    """The YAML of a robot that is to follow a forward and a turning command, or of one bolted down.

    `height` is that of the base at rest, m, and None for a robot bolted to the world, whose draft rewards
    keeping the default pose. `notes` become comments.
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
    head += "".join(f"# {' '.join(note.split())}\n" for note in notes)
    return head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)


def _walking(height: float, penalties: list[dict[str, object]]) -> dict[str, object]:
    """Command, start, reward and termination of a robot that walks or rolls.

    A base whose frame is on the ground has no height to keep.
    """
    stands = height > _ON_THE_GROUND
    start = {"base_height": round(height, 4)} if stands else {}
    fall = {"min_base_height": round(0.5 * height, 4)} if stands else {}
    return {
        "command": {
            "terms": [
                {"name": "linear_x", "lower": -0.3, "upper": 0.3},
                {"name": "angular_z", "lower": -0.5, "upper": 0.5},
            ],
            "deadband": 0.05,
            "stand_fraction": 0.15,
        },
        "reset": {**start, "joint_noise": 0.05, "velocity_noise": 0.1},
        "reward": {
            "velocity_time_constant": 0.25,
            "terms": [
                {"name": "track_linear_velocity", "weight": 1.0, "sigma": 0.15},
                {"name": "track_yaw_rate", "weight": 0.5, "sigma": 0.3},
                {"name": "upright", "weight": 0.3, "sigma": 0.2},
                *penalties,
            ],
        },
        "termination": {"max_tilt": 1.0, **fall},
    }


_ARMATURE = 0.01  # kg m^2, of a drive's rotor; URDF has no place for it
_BEARING = 1e-4  # kg m^2, of a joint without a drive, so that a wheel without mass can be computed
_TOKEN, _TOKEN_INERTIA = 1e-12, 1e-9  # kg, kg m^2: of a moving link without mass, which MuJoCo does not take
_HOLDING = 3.0  # drafted effort, as a multiple of what holds all that hangs on the joint level
_LEAST_EFFORT, _VELOCITY = 1.0, 3.0  # N m and rad/s, drafted where the file gives none
_FAR_OFF = 0.01  # share of an inertia that is changed without a word
_IMU = "imu_link"


def import_urdf(
    source: Path, folder: Path, fixed: bool = False, note: Callable[[str], None] = lambda text: None
) -> Path:
    """Write <name>.xml, <name>.urdf and embodiment.yaml into the new `folder`; returns the path of the YAML.

    `fixed` bolts the root link to the world, as a root link named `world` does; otherwise it moves freely.
    Fixed joints keep their links as frames. The IMU's frame is imu_link, or the root link if there is none.
    <name> is that of the robot in letters and digits. `note` is told, in sentences, what was assumed.

    Raises:
        UserError: the file is no whole URDF, a mesh is missing, no joint moves. No folder is left then.
    """
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder}: exists already; give a folder that does not exist yet")
    robot = _Robot(source, read_urdf(source), fixed)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        path = robot.write(partial)
        partial.rename(folder)
    except OSError as problem:
        raise UserError(f"{folder}: cannot be made ({problem})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for text in robot.notes:
        note(text)
    return folder / path.name


class _Robot:
    """A URDF on its way to MJCF."""

    def __init__(self, source: Path, urdf: Urdf, fixed: bool) -> None:
        self.source, self.urdf = source, urdf
        self.notes = list(urdf.notes)
        self.name = re.sub(r"[^A-Za-z0-9_-]+", "_", urdf.tree.name).strip("_-")[:64] or "robot"
        self.links = {link.name: link for link in urdf.tree.links}
        joints = _with_locked_fixed(urdf.tree.joints)
        self.base, self.floating, self.place = self._find_base(joints, fixed)
        # the joint above the base, if any, is the free one or that of the mount
        self.joints = {joint.child: joint for joint in joints if joint.child != self.base}
        stray = next((joint.name for joint in self.joints.values() if joint.kind == "floating"), None)
        if stray is not None:
            raise UserError(
                f"{source}: joint {stray!r} is floating; only the root link's one joint may be, make others "
                "fixed"
            )
        self.driven = [j for j in joints if j.child in self.joints and j.kind != "fixed" and not j.mimic]
        if not self.driven:
            raise UserError("; ".join([f"{source}: no joint moves", *self.notes]))
        kept = [self.base, *self.joints]
        if self.floating and not any(shape.collides for name in kept for shape in self.links[name].shapes):
            raise UserError(
                f"{source}: no link has a collision shape, and so the robot would fall through the ground; "
                "give it some, or bolt it down with --fixed"
            )
        self.assets: dict[tuple[str, tuple[float, ...]], str] = {}

    def _find_base(self, joints: Sequence[TreeJoint], fixed: bool) -> tuple[str, bool, Pose]:
        """The base link, whether it moves freely, and where it is bolted otherwise.

        A root that is a mere frame above one floating joint, or `world` above one fixed joint, is left out.
        """
        root = self.urdf.tree.root
        below = [joint for joint in joints if joint.parent == root]
        bare = not self.urdf.inertias[root].mass and not self.links[root].shapes
        if len(below) == 1 and bare:
            (joint,) = below
            if joint.kind == "floating":
                return joint.child, not fixed, NOWHERE
            if joint.kind == "fixed" and root == WORLD:
                return joint.child, False, joint.pose
        return root, not fixed and root != WORLD, NOWHERE

    def write(self, folder: Path) -> Path:
        """All files, into an empty folder; the path of the YAML."""
        scene, base = self._scene(folder)
        drives = [_drive(joint) for joint in self.driven]
        actuator = SubElement(scene, "actuator")
        positions = [SubElement(actuator, "position", name=each.name, joint=each.name) for each in drives]
        model = self._compile(scene, folder)
        self._complete(model, drives)
        height = _height(model, drives)
        if self.floating:
            base.set("pos", f"0 0 {height:.4g}")
        for drive, element in zip(drives, positions, strict=True):
            limit = f"{-drive.effort:g} {drive.effort:g}"
            element.attrib.update(kp=f"{drive.kp:g}", kv=f"{drive.kd:g}", forcerange=limit)
        ElementTree.indent(scene)
        write_text(folder / f"{self.name}.xml", ElementTree.tostring(scene, encoding="unicode") + "\n")
        shutil.copyfile(self.source, folder / f"{self.name}.urdf")
        imu = _IMU if _IMU in self.joints else self.base
        draft = draft_embodiment(
            self.name, self.base, imu, drives, height if self.floating else None, PHYSICS_RATE, self.notes
        )
        path = folder / "embodiment.yaml"
        write_text(path, draft)
        try:
            Embodiment.load(path)
        except UserError as problem:
            raise UserError(f"{self.source}: {str(problem).removeprefix(str(path)).lstrip(': ')}") from None
        return path

    def _compile(self, scene: Element, folder: Path) -> mujoco.MjModel:
        text = ElementTree.tostring(scene, encoding="unicode")
        assets = {file.name: file.read_bytes() for file in folder.iterdir()}
        try:
            return compile_model(text, self.source, assets)
        except UserError:
            for (file, _), mesh in zip(self.assets, scene.iterfind("asset/mesh"), strict=True):
                alone = Element("mujoco")
                SubElement(alone, "asset").append(mesh)
                SubElement(SubElement(alone, "worldbody"), "geom", type="mesh", mesh=mesh.get("name", ""))
                compile_model(ElementTree.tostring(alone, "unicode"), f"{self.source}: {file}", assets)
            raise

    # ---- the MJCF ----
    def _scene(self, folder: Path) -> tuple[Element, Element]:
        """Ground, light, and the robot, which touches the ground and not itself; and the base in it."""
        scene = Element("mujoco", model=self.name)
        SubElement(scene, "compiler", angle="radian", autolimits="true", inertiafromgeom="false")
        SubElement(scene, "option", timestep=f"{1.0 / PHYSICS_RATE:g}", integrator="implicitfast")
        asset, world = SubElement(scene, "asset"), SubElement(scene, "worldbody")
        SubElement(world, "light", directional="true", pos="2 -3 6", dir="-0.3 0.45 -0.85")
        ground = {"name": "ground", "type": "plane", "size": "0 0 0.05", "contype": "1", "conaffinity": "0"}
        SubElement(world, "geom", ground)
        bodies = self._bodies(world)
        for name, body in bodies.items():
            for shape in self.links[name].shapes:
                self._geom(body, shape, name, asset, folder)
        base = bodies[self.base]
        SubElement(base, "camera", name="track", mode="trackcom", pos="0 -2 0.8", xyaxes="1 0 0 0 0.3 0.95")
        followers = [joint for joint in self.joints.values() if joint.mimic]
        if followers:
            equality = SubElement(scene, "equality")
            for joint in followers:
                SubElement(equality, "joint", _coupling(joint))
        carrier = bodies.get(_IMU, base)
        imu = carrier.get("name", "")
        SubElement(carrier, "site", name=imu)
        sensor = SubElement(scene, "sensor")
        SubElement(sensor, "framequat", name="imu_quat", objtype="site", objname=imu)
        SubElement(sensor, "gyro", name="imu_gyro", site=imu)
        SubElement(sensor, "accelerometer", name="imu_accel", site=imu)
        return scene, base

    def _bodies(self, world: Element) -> dict[str, Element]:
        """One body for each link, with its joint, and the inertia of all that is fixed to it."""
        bodies: dict[str, Element] = {}
        groups: dict[str, list[tuple[Pose, RawInertia]]] = {}
        leader: dict[str, tuple[str, Pose]] = {}  # of each link: the link that it is fixed to, and where
        for name in self.links:
            joint = self.joints.get(name)
            if joint is None and name != self.base:
                continue  # the root above the base
            pose = joint.pose if joint else self.place
            parent = bodies[joint.parent] if joint else world
            bodies[name] = SubElement(parent, "body", {"name": self._body_name(name), **_placed(pose)})
            if joint and joint.kind == "fixed":
                to, above = leader[joint.parent]
                leader[name] = to, compose(above, pose)
            else:
                leader[name] = name, NOWHERE
                groups[name] = []
                self._joint(bodies[name], joint)
            to, inside = leader[name]
            groups[to].append((inside, self.urdf.inertias[name]))
        for name, parts in groups.items():
            self._inertial(bodies[name], name, lumped(parts))
        return bodies

    def _body_name(self, link: str) -> str:
        """That of the link, save for a link `world`, whose name MuJoCo keeps for itself."""
        name = link
        while link == WORLD and (name == WORLD or name in self.links):
            name += "_link"
        return name

    def _joint(self, body: Element, joint: TreeJoint | None) -> None:
        if joint is None:
            if self.floating:
                taken, name = {each.name for each in self.joints.values()}, "floating_base"
                while name in taken:
                    name += "_"
                SubElement(body, "freejoint", name=name)
            return
        kind = "slide" if joint.kind == "prismatic" else "hinge"
        element = SubElement(body, "joint", name=joint.name, type=kind, axis=_numbers(joint.axis))
        element.set("armature", f"{_BEARING if joint.mimic else _ARMATURE:g}")
        if joint.lower < joint.upper and not joint.mimic:  # what follows stays where its leader's ends put it
            element.set("range", _numbers((joint.lower, joint.upper)))
        for key, value in (("damping", joint.damping), ("frictionloss", joint.friction)):
            if value:
                element.set(key, _numbers((value,)))

    def _inertial(self, body: Element, name: str, part: RawInertia) -> None:
        if not part.mass and name == self.base:
            if self.floating:
                raise UserError(
                    f"{self.source}: the root link {name!r} and what is fixed to it have no mass, and so "
                    "cannot move freely; give them an inertial, or bolt them down with --fixed"
                )
            return
        if not part.mass:
            token = {"mass": f"{_TOKEN:g}", "diaginertia": _numbers([_TOKEN_INERTIA] * 3)}
            SubElement(body, "inertial", {"pos": "0 0 0", **token})
            return
        moments, axes, change = physical(part)
        if change > _FAR_OFF:
            self.notes.append(
                f"link {name!r} with what is fixed to it has an inertia that no body of {part.mass:g} kg can "
                "have; the nearest one is used"
            )
        weight = {"mass": _numbers((part.mass,)), "diaginertia": _numbers(moments)}
        SubElement(body, "inertial", {**_placed(Pose(part.com, axes)), **weight})

    def _geom(self, body: Element, shape: Shape, link: str, asset: Element, folder: Path) -> None:
        element = SubElement(body, "geom", type=shape.kind, mass="0", rgba=_numbers(shape.rgba))
        if shape.pose is not NOWHERE:
            element.attrib.update(_placed(shape.pose))
        touching = {"contype": "0", "conaffinity": "1"}
        element.attrib.update(
            touching if shape.collides else {"contype": "0", "conaffinity": "0", "group": "1"}
        )
        if shape.kind == "mesh":
            element.set("mesh", self._mesh(shape, link, asset, folder))
        elif shape.kind == "box":
            element.set("size", _numbers(0.5 * edge for edge in shape.size))
        elif shape.kind == "sphere":
            element.set("size", _numbers(shape.size))
        else:
            element.set("size", _numbers((shape.size[0], 0.5 * shape.size[1])))

    def _mesh(self, shape: Shape, link: str, asset: Element, folder: Path) -> str:
        """Name of the asset for a mesh file at a scale, which many shapes may use."""
        file, places = find_mesh(shape.mesh, self.source, self.urdf.mesh_folder)
        where = f"{self.source}: link {link!r}: collision mesh {shape.mesh!r}"
        if file is None:
            looked = ", ".join(repr(str(place)) for place in places) or "nowhere, as it is no file or package"
            raise UserError(
                f"{where} is missing; looked for it at {looked}; source the workspace that holds it, or give "
                "a primitive shape"
            )
        key = str(file.resolve()), shape.size
        if key not in self.assets:
            taken = {known: name for (known, _), name in self.assets.items()}
            name = taken.get(key[0]) or take_mesh(file, folder, len(self.assets))
            self.assets[key] = name
            element = SubElement(
                asset, "mesh", name=f"mesh_{len(self.assets)}", file=name, scale=_numbers(shape.size)
            )
            element.set("inertia", "shell")  # the link has its own; this form takes open surfaces
        return f"mesh_{1 + list(self.assets).index(key)}"

    # ---- what the file leaves open ----
    def _complete(self, model: mujoco.MjModel, drives: list[Drive]) -> None:
        """Inertias that the drives feel, and efforts and velocities where the file gives none."""
        for drive, values in zip(drives, _inertia(model, drives), strict=True):
            drive.inertia, drive.least_inertia = values
        data = _posed(model, drives)
        for drive in drives:
            if drive.effort <= 0.0:
                drive.effort = _holding_effort(model, data, drive.name)
                self.notes.append(f"joint {drive.name!r} has no effort limit: {drive.effort:g} N m assumed")
            if drive.velocity <= 0.0:
                drive.velocity = _VELOCITY
                self.notes.append(f"joint {drive.name!r} has no velocity limit: {_VELOCITY:g} rad/s assumed")


def _with_locked_fixed(joints: Iterable[TreeJoint]) -> list[TreeJoint]:
    """The joints, as fixed ones those with both limits at one place, and what mimics such a one."""
    result, places = list(joints), dict[str, float]()
    changed = True
    while changed:
        changed = False
        for index, joint in enumerate(result):
            if joint.kind not in ("revolute", "prismatic", "continuous"):
                continue
            if joint.mimic and joint.mimic.joint in places:
                place = joint.mimic.multiplier * places[joint.mimic.joint] + joint.mimic.offset
            elif joint.mimic or joint.kind == "continuous" or joint.lower < joint.upper:
                continue
            else:
                place = joint.lower
            places[joint.name], changed = place, True
            result[index] = replace(joint, kind="fixed", pose=at(joint, place), mimic=None)
    return result


def _drive(joint: TreeJoint) -> Drive:
    ends = (-math.pi, math.pi) if joint.kind == "continuous" else (joint.lower, joint.upper)
    return Drive(joint.name, *ends, abs(joint.effort), abs(joint.velocity))


def _coupling(joint: TreeJoint) -> dict[str, str]:
    assert joint.mimic is not None
    factors = _numbers((joint.mimic.offset, joint.mimic.multiplier, 0.0, 0.0, 0.0))
    stiff = {"solref": "0.01 1", "solimp": "0.99 0.999 0.001"}
    return {"joint1": joint.name, "joint2": joint.mimic.joint, "polycoef": factors, **stiff}


def _placed(pose: Pose) -> dict[str, str]:
    return {"pos": _numbers(pose.position), "quat": _numbers(xyzw_to_wxyz(pose.orientation))}


def _numbers(values: Iterable[float]) -> str:
    """All digits, as kinematics are to be the maker's."""
    return " ".join(f"{value:.17g}" for value in values)


def _holding_effort(model: mujoco.MjModel, data: mujoco.MjData, name: str) -> float:
    """N m: a multiple of what holds everything below a joint level, stretched as in the default pose."""
    joint = model.joint(name).id
    body = model.jnt_bodyid[joint]
    weight = model.body_subtreemass[body] * np.abs(model.opt.gravity).max()
    slides = model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE
    arm = 1.0 if slides else float(np.linalg.norm(data.subtree_com[body] - data.xanchor[joint]))
    return float(f"{max(_LEAST_EFFORT, _HOLDING * weight * arm):.2g}")


def _posed(model: mujoco.MjModel, drives: list[Drive]) -> mujoco.MjData:
    data = mujoco.MjData(model)
    for drive in drives:
        data.qpos[model.joint(drive.name).qposadr[0]] = drive.default
    settle_couplings(model, data.qpos)
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


def _inertia(model: mujoco.MjModel, drives: list[Drive]) -> list[tuple[float, float]]:
    """What each drive feels in the default pose, rotor included, while all else stands still, and while all
    else gives way: from the diagonals of the mass matrix and of its inverse."""
    data = _posed(model, drives)
    matrix = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, matrix, data.qM)
    places = [int(model.joint(drive.name).dofadr[0]) for drive in drives]
    inverse = np.linalg.pinv(matrix, hermitian=True)
    return [(float(matrix[dof, dof]), 1.0 / float(inverse[dof, dof])) for dof in places]
