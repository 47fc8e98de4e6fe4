"""A URDF against the MJCF and YAML of the same robot; each check returns problems.

The URDF is read here by its specification, with rotation matrices, apart from the code that wrote it; MuJoCo
gives the other side.
"""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import mujoco
import numpy as np

from tdmpc2_core.robots import Embodiment

POSES = 5  # joint configurations that are compared
CLOSE = 1e-6  # m, rad, kg, kg m^2


def description_problems(text: str, embodiment: Embodiment, prefix: str = "") -> list[str]:
    """Everything in which the URDF and the robot of the embodiment differ."""
    root = ElementTree.fromstring(text)
    links = {link.get("name"): link for link in root.findall("link")}
    joints = {joint.get("name"): joint for joint in root.findall("joint")}
    problems = _structure(root, links, joints)
    wanted = [prefix + name for name in embodiment.joint_names]
    moving = [name for name, joint in joints.items() if joint.get("type") != "fixed"]
    problems += [f"no joint {name}" for name in wanted if name not in moving]
    problems += [f"joint {name} is not in the embodiment" for name in moving if name not in wanted]
    if problems:
        return problems
    model = mujoco.MjModel.from_xml_path(str(embodiment.model_path))
    problems += _limits(joints, embodiment, model, prefix)
    problems += _motion(joints, embodiment, model, prefix)
    problems += _masses(links, embodiment, model, prefix)
    return problems + _control(root, embodiment, prefix)


def _structure(root: Element, links: dict, joints: dict) -> list[str]:
    """Names once each, one root, every link reached."""
    problems = [] if root.tag == "robot" and root.get("name") else ["not a named robot"]
    for kind, found in (("link", links), ("joint", joints)):
        if len(found) != len(root.findall(kind)):
            problems.append(f"a {kind} name stands twice")
    children = [joint.find("child").get("link") for joint in joints.values()]
    parents = [joint.find("parent").get("link") for joint in joints.values()]
    problems += [f"no link {name}" for name in sorted({*children, *parents} - set(links))]
    if len(children) != len(set(children)) or len(set(links) - set(children)) != 1:
        problems.append("the links are not one tree")
    return problems


def _limits(joints: dict, embodiment: Embodiment, model: mujoco.MjModel, prefix: str) -> list[str]:
    """Limits of the YAML and the MJCF are the same, those of the URDF by their margins wider; gains too."""
    problems = []
    for joint in embodiment.joints:
        given = joints[prefix + joint.name].find("limit")
        wanted = {"lower": joint.lower - 0.1, "upper": joint.upper + 0.1}
        wanted |= {"effort": joint.effort, "velocity": 2.0 * joint.velocity}
        for key, value in wanted.items():
            if abs(float(given.get(key)) - value) > CLOSE:
                problems.append(f"{joint.name}: {key} is {given.get(key)}, must be {value}")
        index = model.joint(joint.name).id
        if np.abs(model.jnt_range[index] - (joint.lower, joint.upper)).max() > CLOSE:
            problems.append(f"{joint.name}: range of the MJCF is not that of the embodiment")
        (actuator,) = np.flatnonzero(model.actuator_trnid[:, 0] == index)
        gains = (model.actuator_gainprm[actuator, 0], -model.actuator_biasprm[actuator, 2])
        if np.abs(np.subtract(gains, (joint.kp, joint.kd))).max() > CLOSE:
            problems.append(
                f"{joint.name}: gains of the MJCF are {gains}, the embodiment has {joint.kp}, {joint.kd}"
            )
        if abs(model.actuator_forcerange[actuator, 1] - joint.effort) > CLOSE:
            problems.append(f"{joint.name}: force range of the MJCF is not the embodiment's effort")
    return problems


def _motion(joints: dict, embodiment: Embodiment, model: mujoco.MjModel, prefix: str) -> list[str]:
    """Pose of every link in the base, in random joint configurations: forward kinematics of both."""
    rng, data, problems = np.random.default_rng(0), mujoco.MjData(model), set()
    base = model.body(embodiment.base_frame).id
    for _ in range(POSES):
        position = rng.uniform(embodiment.lower, embodiment.upper)
        for name, value in zip(embodiment.joint_names, position, strict=True):
            data.qpos[model.joint(name).qposadr[0]] = value
        mujoco.mj_forward(model, data)
        angles = {prefix + n: v for n, v in zip(embodiment.joint_names, position, strict=True)}
        poses = _forward(joints, prefix + embodiment.base_frame, angles)
        turn = data.xmat[base].reshape(3, 3)
        for link, (place, rotation) in poses.items():
            name = link.removeprefix(prefix)
            body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
            if body >= 0:
                point, axes = data.xpos[body], data.xmat[body]
            else:
                site = model.site(name).id
                point, axes = data.site_xpos[site], data.site_xmat[site]
            far = np.abs(turn.T @ (point - data.xpos[base]) - place).max()
            if max(far, np.abs(turn.T @ axes.reshape(3, 3) - rotation).max()) > CLOSE:
                problems.add(f"{link}: forward kinematics differ")
    return sorted(problems)


def _forward(joints: dict, base: str, angles: dict[str, float]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Position and rotation matrix of every link below `base`."""
    poses = {base: (np.zeros(3), np.eye(3))}
    waiting = [j for j in joints.values() if j.find("child").get("link") != base]
    while waiting:
        ready = [j for j in waiting if j.find("parent").get("link") in poses]
        if not ready:
            return poses
        for joint in ready:
            place, rotation = poses[joint.find("parent").get("link")]
            offset, turn = _origin(joint)
            place, rotation = place + rotation @ offset, rotation @ turn
            if joint.get("type") != "fixed":
                axis, angle = _vector(joint.find("axis").get("xyz")), angles[joint.get("name")]
                slide = joint.get("type") == "prismatic"
                place = place + rotation @ axis * angle if slide else place
                rotation = rotation if slide else rotation @ _about(axis, angle)
            poses[joint.find("child").get("link")] = place, rotation
            waiting.remove(joint)
    return poses


def _masses(links: dict, embodiment: Embodiment, model: mujoco.MjModel, prefix: str) -> list[str]:
    """Mass, centre of mass and inertia of every link, and of the robot as a whole."""
    problems, totals = [], np.zeros((2, 1 + 3 + 9))
    base = model.body(embodiment.base_frame).id
    for body in range(base, model.nbody):
        name = model.body(body).name
        if name == "goal" or _root(model, body) != base:
            continue
        mujoco_side = model.body_mass[body], model.body_ipos[body], model.body_inertia[body]
        axes = np.zeros(9)
        mujoco.mju_quat2Mat(axes, model.body_iquat[body])
        axes = axes.reshape(3, 3)
        ours = _moments(mujoco_side[0], mujoco_side[1], axes @ np.diag(mujoco_side[2]) @ axes.T)
        theirs = _urdf_moments(links[prefix + name])
        totals += np.stack([ours, theirs])
        if np.abs(ours - theirs).max() > CLOSE:
            problems.append(f"{prefix}{name}: mass, centre of mass or inertia differ")
    if np.abs(totals[0] - totals[1]).max() > CLOSE:
        problems.append("total mass or inertia differ")
    return problems


def _root(model: mujoco.MjModel, body: int) -> int:
    while model.body_parentid[body]:
        body = model.body_parentid[body]
    return body


def _urdf_moments(link: Element) -> np.ndarray:
    inertial = link.find("inertial")
    if inertial is None:
        return np.zeros(13)
    values = {key: float(value) for key, value in inertial.find("inertia").items()}
    order = (("ixx", "ixy", "ixz"), ("ixy", "iyy", "iyz"), ("ixz", "iyz", "izz"))
    tensor = np.array([[values[key] for key in row] for row in order])
    place, turn = _origin(inertial)
    return _moments(float(inertial.find("mass").get("value")), place, turn @ tensor @ turn.T)


def _moments(mass: float, centre: np.ndarray, inertia: np.ndarray) -> np.ndarray:
    """Mass, first moment and inertia about the link's origin (parallel axis theorem), as 13 numbers."""
    about = inertia + mass * (centre @ centre * np.eye(3) - np.outer(centre, centre))
    return np.concatenate([[mass], mass * centre, about.ravel()])


def _control(root: Element, embodiment: Embodiment, prefix: str) -> list[str]:
    """The ros2_control block: joints in order, interfaces, IMU; sensors and frames that are named exist."""
    control = root.find("ros2_control")
    if control is None:
        return ["no ros2_control block"]
    problems = [] if (control.findtext("hardware/plugin") or "").count("/") == 1 else ["no hardware plugin"]
    names = [joint.get("name") for joint in control.findall("joint")]
    if names != [prefix + name for name in embodiment.joint_names]:
        problems.append("joints of ros2_control are not those of the embodiment, in its order")
    for joint in control.findall("joint"):
        states = {each.get("name") for each in joint.findall("state_interface")}
        if not {"position", "velocity"} <= states or len(joint.findall("command_interface")) != 1:
            problems.append(f"{joint.get('name')}: interfaces")
    sensors = {sensor.get("name") for sensor in control.findall("sensor")}
    if sensors != ({f"{prefix}imu"} if embodiment.imu_frame else set()):
        problems.append(f"sensors of ros2_control: {sorted(sensors)}")
    collisions = {each.get("name") for each in root.iter("collision")}
    problems += [
        f"contact sensor of {name.text}, which is no collision shape"
        for name in root.iterfind("gazebo/sensor/contact/collision")
        if name.text not in collisions
    ]
    frames = {each.get("name") for each in (*root.findall("link"), *root.findall("joint"))}
    references = [each.get("reference") for each in root.findall("gazebo") if each.get("reference")]
    return problems + [f"gazebo refers to {name}" for name in references if name not in frames]


def _origin(element: Element) -> tuple[np.ndarray, np.ndarray]:
    origin = element.find("origin")
    if origin is None:
        return np.zeros(3), np.eye(3)
    roll, pitch, yaw = _vector(origin.get("rpy", "0 0 0"))
    x, y, z = np.eye(3)
    return _vector(origin.get("xyz", "0 0 0")), _about(z, yaw) @ _about(y, pitch) @ _about(x, roll)


def _about(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rodrigues' formula."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _vector(text: str) -> np.ndarray:
    return np.array([float(part) for part in text.split()])
