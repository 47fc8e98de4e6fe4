"""What robots stand on: the ground of their model, or one that every episode shapes anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment, RandomisationSpec

Array = NDArray[np.float64]


class Ground:
    """What robots stand on: the colliding geoms of the world itself, such as planes and height fields."""

    def __init__(self, model: mujoco.MjModel) -> None:
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)  # places of the world's geoms, which never change
        geoms = np.flatnonzero((model.geom_bodyid == 0) & ((model.geom_contype | model.geom_conaffinity) > 0))
        plane = model.geom_type[geoms] == mujoco.mjtGeom.mjGEOM_PLANE
        self._solids = geoms[~plane]
        normal, origin = data.geom_xmat[geoms[plane]][:, [2, 5, 8]], data.geom_xpos[geoms[plane]]
        floor = normal[:, 2] > 0.0  # others are walls
        self._slope = -normal[floor, :2] / normal[floor, 2:]
        self._offset = origin[floor, 2] - np.sum(origin[floor, :2] * self._slope, axis=1)
        self._level = not len(self._solids) and not self._slope.any()
        if len(self._solids):  # a megabyte for each of many robots else
            self._model, self._data = model, data

    def height(self, points: np.ndarray) -> np.ndarray:
        """Of the highest surface at each of the points (N, 2) in the world, m; 0 where there is none."""
        if self._level:
            return np.full(len(points), self._offset.max() if len(self._offset) else 0.0)
        found = (self._offset + points @ self._slope.T).max(axis=1, initial=-np.inf)  # planes have no end
        if len(self._solids):
            tops = [max(self._top(geom, point) for geom in self._solids) for point in points]
            found = np.maximum(found, tops)
        return np.where(np.isfinite(found), found, 0.0)

    def _top(self, geom: int, point: np.ndarray) -> float:
        """Where a ray that falls on a geom meets it; minus infinity beside it."""
        model, data, start = self._model, self._data, np.append(point, _SKY)
        kind = model.geom_type[geom]
        if kind == mujoco.mjtGeom.mjGEOM_HFIELD:
            distance = mujoco.mj_rayHfield(model, data, geom, start, -_UP)
        elif kind == mujoco.mjtGeom.mjGEOM_MESH:
            distance = mujoco.mj_rayMesh(model, data, geom, start, -_UP)
        else:
            pose = data.geom_xpos[geom], data.geom_xmat[geom]
            distance = mujoco.mju_rayGeom(*pose, model.geom_size[geom], start, -_UP, kind)
        return _SKY - distance if distance >= 0.0 else -np.inf


_UP, _SKY = np.array([0.0, 0.0, 1.0]), 100.0  # m above every surface


class Grid(NamedTuple):
    """One period of the blocks or waves: `blocks` squares a side, of `share` cells a side each."""

    blocks: int
    share: int
    cell: float  # m

    @property
    def size(self) -> int:
        """Cells a side."""
        return self.blocks * self.share

    @property
    def period(self) -> float:
        """m after which the ground repeats, along x as along y."""
        return self.size * self.cell


def grid(ranges: RandomisationSpec) -> Grid:
    """Cells of about `_CELL` m, of which whole numbers make a block, and enough blocks for `_PERIOD` m."""
    share = max(1, round(ranges.step_length / _CELL))
    return Grid(int(np.ceil(_PERIOD / ranges.step_length - 1e-9)), share, ranges.step_length / share)


_CELL = 0.05  # m: an edge of a block rises over one cell, about the length of a foot
_PERIOD = 3.2  # m at least; a robot comes as near as half of it to the edge of the window
_DEPTH = 1.0  # m of solid ground below the lowest point, so that nothing falls through
_CONTACT = ("condim", "friction", "solref", "solimp", "solmix", "priority", "margin", "gap", "material")
_TERRAIN, _SHOWN, _HIDDEN = "terrain", 0, 5  # name of height field and geom; groups of geoms


class TerrainState(NamedTuple):
    """The ground of an episode: slope (2,), heights (n, n), m, or None, and middle of the window (2,), m."""

    slope: Array
    heights: Array | None
    middle: Array


class Terrain:
    """A slope without end and, on it, heights that repeat; `shape` gives a world another one.

    A plane serves where there are no heights. Else a height field two periods wide follows the robot in whole
    periods, so that the ground below it stays what it is.

    Args:
        model: one that `add_terrain` prepared.
        ranges: of the embodiment.

    Attributes:
        slope: (2,), rise per m along x and y.
        heights: (n, n), m above the slope at the corners of cells, from the origin on: rows along y.
        shapes: how often the height field was written; whoever draws it keeps a copy of their own.
        field: index of the height field in the model.
    """

    def __init__(self, model: mujoco.MjModel, ranges: RandomisationSpec) -> None:
        self.grid, self._model = grid(ranges), model
        self._plane, self._field = _floor(model), model.geom(_TERRAIN).id
        self._collides = model.geom_contype[self._plane], model.geom_conaffinity[self._plane]
        self._offset, self._range = float(model.geom_pos[self._plane, 2]), float(model.hfield_size[0, 2])
        model.geom_sameframe[[self._plane, self._field]] = 0  # else their places below do not count
        self.slope, self.heights = np.zeros(2), np.zeros((self.grid.size, self.grid.size))
        self._middle, self._rough = np.zeros(2), False
        self.shapes, self.field = 0, int(model.geom_dataid[self._field])
        self.shape(self.slope)

    def shape(self, slope: Array, heights: Array | None = None) -> None:
        """Another ground; None without heights. Raises ValueError for one beyond the embodiment's ranges."""
        self.slope[:], self._rough, model = slope, heights is not None and bool(heights.any()), self._model
        self.heights[:] = heights if self._rough else 0.0
        both, on = [self._plane, self._field], np.array([not self._rough, self._rough])
        model.geom_contype[both], model.geom_conaffinity[both] = np.outer(self._collides, on)
        model.geom_group[both] = np.where(on, _SHOWN, _HIDDEN)
        normal = np.array([-slope[0], -slope[1], 1.0])
        mujoco.mju_quatZ2Vec(model.geom_quat[self._plane], normal / np.linalg.norm(normal))
        self._middle[:] = 0.0
        self._place()
        if self._rough:
            corners = np.arange(-self.grid.size, self.grid.size + 1)
            along = corners * self.grid.cell
            field = self.heights[np.ix_(corners % self.grid.size, corners % self.grid.size)]
            field = 0.5 + (field + slope[0] * along + slope[1] * along[:, None]) / self._range
            if field.min() < 0.0 or field.max() > 1.0:
                raise ValueError("the ground is steeper or higher than the ranges of the embodiment allow")
            model.hfield_data[:] = field.ravel()
            self.shapes += 1

    def follow(self, position: Array) -> None:
        """Have the height field below a robot at (2,), m."""
        if self._rough:
            period = self.grid.period
            ahead = position - self._middle
            if max(abs(float(ahead[0])), abs(float(ahead[1]))) > 0.5 * period and np.isfinite(ahead).all():
                self._middle += period * np.round(ahead / period)
                self._place()

    def _place(self) -> None:
        height = self._offset - 0.5 * self._range + float(self._middle @ self.slope)
        self._model.geom_pos[self._field] = *self._middle, height

    def state(self) -> TerrainState:
        """The ground, and where the window is; no later call changes it."""
        return TerrainState(
            self.slope.copy(), self.heights.copy() if self._rough else None, self._middle.copy()
        )

    def restore(self, state: TerrainState) -> None:
        """Take a `state` over, bit for bit."""
        same = np.array_equal(state.slope, self.slope) and self._rough == (state.heights is not None)
        if not same or (state.heights is not None and not np.array_equal(state.heights, self.heights)):
            self.shape(state.slope, state.heights)
        self._middle[:] = state.middle
        self._place()

    def height(self, points: Array) -> Array:
        """At each of the points (K, 2) in the world, m."""
        return self._offset + _surface(points[None], self.slope[None], self.heights[None], self.grid.cell)[0]

    @property
    def offset(self) -> float:
        """Height of the ground at the origin without slope and heights, m."""
        return self._offset


class Terrains:
    """Those of many robots, whose arrays they are to keep up to date from now on."""

    def __init__(self, terrains: Sequence[Terrain]) -> None:
        self._slopes = np.stack([terrain.slope for terrain in terrains])
        self._heights = np.stack([terrain.heights for terrain in terrains])
        self._cell, self._offset = terrains[0].grid.cell, terrains[0].offset
        for terrain, slope, heights in zip(terrains, self._slopes, self._heights, strict=True):
            terrain.slope, terrain.heights = slope, heights  # views: they are written in place

    @property
    def slopes(self) -> Array:
        """Rise per m along x and y (N, 2)."""
        return self._slopes.copy()

    def height(self, points: Array) -> Array:
        """At points (N, K, 2), K of each robot, m."""
        return self._offset + _surface(points, self._slopes, self._heights, self._cell)


def _surface(points: Array, slopes: Array, heights: Array, cell: float) -> Array:
    """Heights (N, K) at points (N, K, 2) of grounds of slope (N, 2) and repeating heights (N, n, n).

    Cells are cut in two triangles as MuJoCo does, from the corner of the smallest x and y to the opposite.
    """
    plane = points[..., 0] * slopes[:, None, 0] + points[..., 1] * slopes[:, None, 1]
    finite = np.where(np.isfinite(points), points, 0.0) / cell
    corner = np.floor(finite)
    x, y = np.moveaxis(finite - corner, -1, 0)
    size = heights.shape[1]
    left, low = np.moveaxis(corner.astype(np.int64) % size, -1, 0)
    right, high = (left + 1) % size, (low + 1) % size
    which = np.arange(len(heights))[:, None]
    low_right, high_left = heights[which, low, right], heights[which, high, left]
    lower, upper = heights[which, low, left], heights[which, high, right]
    right_half = lower + x * (low_right - lower) + y * (upper - low_right)
    left_half = lower + y * (high_left - lower) + x * (upper - high_left)
    return plane + np.where(x >= y, right_half, left_half)


def _floor(model: mujoco.MjModel) -> int:
    """The geom of the only ground, a level plane; -1 where there is another or none."""
    solid = (model.geom_bodyid == 0) & ((model.geom_contype | model.geom_conaffinity) > 0)
    geoms = [int(geom) for geom in np.flatnonzero(solid) if model.geom(geom).name != _TERRAIN]
    plane = len(geoms) == 1 and model.geom_type[geoms[0]] == mujoco.mjtGeom.mjGEOM_PLANE
    return geoms[0] if plane and abs(model.geom_quat[geoms[0], 0]) > 1.0 - 1e-9 else -1


def add_terrain(spec: mujoco.MjSpec, embodiment: Embodiment) -> None:
    """Give a robot's world the height field that a `Terrain` shapes.

    Raises:
        UserError: the base of the robot cannot move, or the ground of its model is not one level plane.
    """
    model, ranges = spec.compile(), embodiment.randomisation.hardest
    floor = _floor(model)
    if floor < 0 or not model.nq or model.jnt_type[0] != mujoco.mjtJoint.mjJNT_FREE:
        raise UserError(
            f"{embodiment.model_path}: randomisation.slope, step and wave need a base with a free joint, and "
            "a level plane as the only geom of the world that collides"
        )
    shape = grid(ranges)
    rise = np.tan(np.radians(ranges.slope[1])) * np.sqrt(2.0)
    span = 1.01 * (2.0 * shape.period * rise + 2.0 * max(ranges.step[1], ranges.wave[1])) + 0.01
    corners, half = 2 * shape.size + 1, shape.period
    spec.add_hfield(
        name=_TERRAIN,
        nrow=corners,
        ncol=corners,
        size=[half, half, span, _DEPTH],
        userdata=np.zeros(corners * corners),
    )
    plane = next(geom for geom in spec.worldbody.geoms if geom.id == floor)
    alike = {name: getattr(plane, name) for name in _CONTACT}
    spec.worldbody.add_geom(
        name=_TERRAIN,
        type=mujoco.mjtGeom.mjGEOM_HFIELD,
        hfieldname=_TERRAIN,
        contype=0,
        conaffinity=0,
        group=_HIDDEN,
        **alike,
    )
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_MIDPHASE  # its boxes are those of the first shape
