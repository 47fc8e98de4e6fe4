"""Public robot files against `tdmpc2 import-urdf`: which are imported, and whether they are the same robot.

Every *.urdf below the folders is imported into a temporary folder, moving freely, or bolted down where the
import says that it must be. Frames of all links, at random joint positions, are compared with those that
follow from the URDF by the matrices below, which share no code with the import; so is the sum of all masses.
Set AMENT_PREFIX_PATH for package:// names.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import mujoco
import numpy as np
from common import parser, results_of, save, script
from numpy.typing import NDArray

from tdmpc2_core.descriptions.from_urdf import import_urdf
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import UserError, natural
from tdmpc2_core.robots import Embodiment

Array = NDArray[np.float64]
POSES = 5  # random ones, beside that of zeros
SECONDS = 0.2  # of simulated standing


@dataclass
class Row:
    """One file. Errors are the largest over all links and poses: of a coordinate, m, and of an entry of the
    rotation matrix; `refused` is the import's sentence."""

    collection: str
    robot: str
    file: str
    links: int = 0
    joints: int = 0  # that move, in the URDF
    drives: int = 0  # in the embodiment
    base: str = ""
    position_error: float = math.nan
    rotation_error: float = math.nan
    mass: float = math.nan  # kg, of all inertials
    mass_error: float = math.nan
    steady: bool = False  # MuJoCo computes it standing in its default pose without a warning
    notes: int = 0
    seconds: float = math.nan
    refused: str = ""

    @property
    def same(self) -> bool:
        """Whether the import is the URDF's robot."""
        return max(self.position_error, self.rotation_error) < 1e-6 and self.mass_error < 1e-6

    def cells(self) -> dict[str, str | int]:
        """Of the table"""
        return {
            "robot": self.robot,
            "collection": self.collection,
            "joints": self.joints,
            "drives": self.drives,
            "base": self.base,
            "mass kg": f"{self.mass:.3f}",
            "mass error kg": f"{self.mass_error:.0e}",
            "position error m": f"{self.position_error:.0e}",
            "rotation error": f"{self.rotation_error:.0e}",
            "steady": "yes" if self.steady else "no",
        }


def main() -> None:
    """Survey the folders."""
    options = parser(__doc__ or "", "python benchmarks/urdf_survey.py robots/unitree robots/anymal")
    options.add_argument(
        "folders", nargs="+", type=Path, help="of URDFs; the last part of each is a collection"
    )
    options.add_argument("--processes", type=natural, default=1, help="files at a time (default 1)")
    args = options.parse_args()
    args.out = results_of(args.out)
    files = [(file, folder) for folder in args.folders for file in sorted(folder.rglob("*.urdf"))]
    rows = []
    with ProcessPoolExecutor(args.processes) as pool:
        for row in pool.map(survey, *zip(*files, strict=True)):
            rows.append(row)
            print(line(row), flush=True)
    write(rows, args.out)


def write(rows: list[Row], folder: Path) -> None:
    """The two tables, by name of the robot."""
    print(summary(rows))
    ordered = sorted(rows, key=lambda row: (row.robot.lower(), row.collection, row.file))
    imported = [row.cells() for row in ordered if not row.refused]
    refused = [
        {"robot": row.robot, "collection": row.collection, "why not": row.refused}
        for row in ordered
        if row.refused
    ]
    save(folder, "urdf_survey", imported, files=len(rows), summary=summary(rows))
    save(folder, "urdf_survey_refused", refused)


def survey(file: Path, folder: Path) -> Row:
    """Import one file and compare."""
    row = Row(folder.name, file.stem, str(file.relative_to(folder)))
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        notes: list[str] = []
        target, row.base = Path(place) / "robot", "free"
        try:
            try:
                path = import_urdf(file, target, note=notes.append)
            except UserError as problem:
                if "--fixed" not in str(problem):
                    raise
                row.base, path = "bolted", import_urdf(file, target, fixed=True, note=notes.append)
            robot = Embodiment.load(path)
            simulation = Simulation(robot)
            compare(row, ElementTree.parse(file).getroot(), simulation)
            row.notes = len(notes)
        except UserError as problem:
            row.refused = sentence(problem, file, folder)
    row.seconds = round(time.perf_counter() - begun, 2)
    return row


def sentence(problem: UserError, file: Path, folder: Path) -> str:
    """The import's, without this machine's folders."""
    text = " ".join(str(problem).split()).removeprefix(f"{file}: ").partition("; looked for it at")[0]
    return text.replace(f"{folder}/", "")


def compare(row: Row, urdf: Element, simulation: Simulation) -> None:
    """Fill in what the two say of the same robot."""
    model, data = simulation.model, simulation.data
    row.base = "free" if simulation.floating else "bolted"
    row.links, row.drives = len(urdf.findall("link")), simulation.embodiment.num_joints
    joints = [joint for joint in urdf.findall("joint") if joint.get("type") not in ("fixed", "floating")]
    row.joints = len(joints)
    for _ in range(round(SECONDS * simulation.embodiment.physics_rate)):
        simulation.step(simulation.embodiment.default_position)
    row.steady = not any(warning.number for warning in data.warning)
    masses = [float(mass.get("value", "0")) for mass in urdf.findall("link/inertial/mass")]
    row.mass = sum(masses)
    row.mass_error = abs(float(model.body_mass.sum()) - row.mass)
    rng = np.random.default_rng(0)
    row.position_error = row.rotation_error = 0.0
    for pose in range(1 + POSES):
        positions = {joint.get("name", ""): position(joint, rng, pose > 0) for joint in joints}
        for _ in joints:  # followers of followers
            for joint in joints:
                mimic = joint.find("mimic")
                if mimic is not None:
                    leader = positions[mimic.get("joint", "")]
                    factor, offset = float(mimic.get("multiplier", "1")), float(mimic.get("offset", "0"))
                    positions[joint.get("name", "")] = factor * leader + offset
        frames = forward(urdf, positions)
        for name, value in positions.items():
            index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)
            if index >= 0:
                data.qpos[model.jnt_qposadr[index]] = value
        mujoco.mj_kinematics(model, data)
        differences(row, frames, simulation)


def position(joint: Element, rng: np.random.Generator, drawn: bool) -> float:
    """Of a joint: 0 or where its limits are, or a random one within them, rad or m."""
    limit = joint.find("limit")
    low, high = (0.0 if limit is None else float(limit.get(key, "0")) for key in ("lower", "upper"))
    if joint.get("type") == "continuous":
        low, high = -math.pi, math.pi
    return float(rng.uniform(low, high)) if drawn else min(max(0.0, low), high)


def forward(urdf: Element, positions: dict[str, float]) -> dict[str, Array]:
    """Pose (4, 4) of every link in the root link's frame."""
    children: dict[str, list[Element]] = {}
    for joint in urdf.findall("joint"):
        children.setdefault(attribute(joint, "parent", "link", ""), []).append(joint)
    below = {attribute(joint, "child", "link", "") for joint in urdf.findall("joint")}
    root = next(link.get("name", "") for link in urdf.findall("link") if link.get("name") not in below)
    frames, waiting = {root: np.eye(4)}, [root]
    while waiting:
        parent = waiting.pop()
        for joint in children.get(parent, []):
            child = attribute(joint, "child", "link", "")
            frames[child] = frames[parent] @ step(joint, positions.get(joint.get("name", ""), 0.0))
            waiting.append(child)
    return frames


def step(joint: Element, value: float) -> Array:
    """Pose (4, 4) of a joint's child in its parent."""
    roll, pitch, yaw = vector(attribute(joint, "origin", "rpy", "0 0 0"))
    fixed, moved = np.eye(4), np.eye(4)
    fixed[:3, :3] = turn("z", yaw) @ turn("y", pitch) @ turn("x", roll)
    fixed[:3, 3] = vector(attribute(joint, "origin", "xyz", "0 0 0"))
    axis = vector(attribute(joint, "axis", "xyz", "1 0 0"))
    if joint.get("type") == "prismatic":
        moved[:3, 3] = value * axis / np.linalg.norm(axis)
    elif joint.get("type") in ("revolute", "continuous"):
        x, y, z = axis / np.linalg.norm(axis)
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        moved[:3, :3] += math.sin(value) * cross + (1.0 - math.cos(value)) * cross @ cross
    return fixed @ moved


def turn(axis: str, angle: float) -> Array:
    """Rotation matrix about a coordinate axis."""
    c, s = math.cos(angle), math.sin(angle)
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def attribute(element: Element, part: str, key: str, default: str) -> str:
    """Of a part of an element that may not be there."""
    found = element.find(part)
    return default if found is None else found.get(key) or default


def vector(text: str) -> Array:
    """Three numbers."""
    return np.array([float(word) for word in text.split()])


def differences(row: Row, frames: dict[str, Array], simulation: Simulation) -> None:
    """Largest errors of all links' frames, relative to the base's."""
    model, data = simulation.model, simulation.data
    base = frames[simulation.embodiment.base_frame]
    turned, place = data.xmat[simulation.base].reshape(3, 3), data.xpos[simulation.base]
    missing = 0
    for name, frame in frames.items():
        body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
        if body <= 0:
            missing += 1
            continue
        wanted = np.linalg.inv(base) @ frame
        found = turned.T @ data.xmat[body].reshape(3, 3)
        where = turned.T @ (data.xpos[body] - place)
        row.position_error = max(row.position_error, float(np.abs(where - wanted[:3, 3]).max()))
        row.rotation_error = max(row.rotation_error, float(np.abs(found - wanted[:3, :3]).max()))
    if missing > 1:  # the root above a base that is free or bolted is left out
        raise UserError(f"{missing} links of the URDF are no bodies")


def line(row: Row) -> str:
    """A row as it is printed."""
    if row.refused:
        return f"{row.collection}/{row.file}: REFUSED {row.refused}"
    return (
        f"{row.collection}/{row.file}: {row.joints} joints, {row.drives} drives, {row.base}, "
        f"{row.position_error:.1e} m, {row.rotation_error:.1e}, mass {row.mass:.4f} kg off by "
        f"{row.mass_error:.1e}, {row.seconds:.1f} s{'' if row.same else '  DIFFERS'}"
        f"{'' if row.steady else '  UNSTEADY'}"
    )


def summary(rows: Sequence[Row]) -> str:
    """Counts."""
    whole = [row for row in rows if not row.refused]
    return (
        f"{len(rows)} files, {len(whole)} imported, {sum(row.same for row in whole)} the same robot to 1e-6, "
        f"{len(rows) - len(whole)} refused"
    )


if __name__ == "__main__":
    sys.exit(script(main))
