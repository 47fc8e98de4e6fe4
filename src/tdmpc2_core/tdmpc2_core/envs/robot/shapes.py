"""What a viewer of its own draws of a robot's model: the shapes of its bodies, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.robots.rotations import wxyz_to_xyzw

Array = NDArray[np.float64]
Kind = Literal["sphere", "capsule", "ellipsoid", "cylinder", "box", "mesh"]
_KINDS: dict[int, Kind] = {
    int(mujoco.mjtGeom.mjGEOM_SPHERE): "sphere",
    int(mujoco.mjtGeom.mjGEOM_CAPSULE): "capsule",
    int(mujoco.mjtGeom.mjGEOM_ELLIPSOID): "ellipsoid",
    int(mujoco.mjtGeom.mjGEOM_CYLINDER): "cylinder",
    int(mujoco.mjtGeom.mjGEOM_BOX): "box",
    int(mujoco.mjtGeom.mjGEOM_MESH): "mesh",
}
_GROUPS = 3  # MuJoCo's viewer shows the first three


@dataclass(frozen=True)
class Shape:
    """One geom in the frame of its body."""

    body: int  # index in the model
    kind: Kind
    size: Array  # (3,), m, with MuJoCo's meaning for the kind: half sizes; radius and half length
    position: Array  # (3,), m
    orientation: Array  # (4,), xyzw
    colour: Array  # (4,), red, green, blue, opacity in [0, 1]
    vertices: Array  # (V, 3), m, of a mesh; (0, 3) of other kinds
    faces: NDArray[np.int32]  # (F, 3), indices of vertices


def visible_shapes(model: mujoco.MjModel) -> list[Shape]:
    """Shapes of the bodies that move with the robot; ground, markers and hidden groups are left out."""
    shapes = []
    for geom in range(model.ngeom):
        body, kind = int(model.geom_bodyid[geom]), _KINDS.get(int(model.geom_type[geom]))
        marker = model.body_mocapid[body] >= 0
        if kind is None or marker or body == 0:
            continue
        material = model.geom_matid[geom]
        colour = model.geom_rgba[geom] if material < 0 else model.mat_rgba[material]
        if model.geom_group[geom] >= _GROUPS or colour[3] == 0.0:
            continue
        vertices, faces = _mesh(model, int(model.geom_dataid[geom])) if kind == "mesh" else _NO_MESH
        shapes.append(
            Shape(
                body=body,
                kind=kind,
                size=model.geom_size[geom].copy(),
                position=model.geom_pos[geom].copy(),
                orientation=wxyz_to_xyzw(model.geom_quat[geom]),
                colour=colour.astype(np.float64),
                vertices=vertices,
                faces=faces,
            )
        )
    return shapes


_NO_MESH = np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int32)


def _mesh(model: mujoco.MjModel, mesh: int) -> tuple[Array, NDArray[np.int32]]:
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    vertices = model.mesh_vert[first : first + count].astype(np.float64)
    first, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    return vertices, model.mesh_face[first : first + count].astype(np.int32)
