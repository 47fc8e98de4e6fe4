"""The robot, its plan and its command as a scene of viser, which browsers show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.envs.robot.shapes import Shape, visible_shapes
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.rotations import from_matrix, rotate, to_matrix, xyzw_to_wxyz
from tdmpc2_ros.view.geometry import Seen, commanded_way, planned_ways

if TYPE_CHECKING:
    from viser import ViserServer

Array = NDArray[np.float64]
_PLAN, _COMMAND = (40, 110, 230), (230, 120, 20)  # red, green, blue
_GHOST = 0.3  # opacity
_LINE = 0.008  # m


def open_server(host: str, port: int) -> ViserServer:
    """The page's server.

    Raises:
        UserError: viser is not installed, or the port is taken.
    """
    try:
        import viser
    except ImportError:
        raise UserError(
            "view: viser is missing; install the extra 'view': pip install 'tdmpc2-ros[view]'"
        ) from None
    server = viser.ViserServer(host, port, label="tdmpc2", verbose=False)
    if server.get_port() != port:  # viser takes the next free one
        server.stop()
        raise UserError(f"view: port {port} of {host} is taken; give another port")
    return server


class Scene:
    """Draws what is seen; one thread calls it.

    The plan is drawn as a ghost of the robot at its last set-points, and as the ways of feet or tool there
    with the base where it is: the model does not predict where the base goes.
    """

    def __init__(self, embodiment: Embodiment, server: ViserServer) -> None:
        self._server, self._embodiment = server, embodiment
        self._simulation = Simulation(embodiment)
        shapes = visible_shapes(self._simulation.model)
        self._bodies = sorted({shape.body for shape in shapes})
        server.scene.add_grid("/ground", 20.0, 20.0, cell_size=0.5)
        self.frames = self._add_robot("/robot", shapes, None)
        self._ghost = server.scene.add_frame("/plan", show_axes=False, visible=False)
        self._ghost_frames = self._add_robot("/plan", shapes, _PLAN)
        nothing = np.zeros((0, 2, 3), dtype=np.float32)
        add = server.scene.add_line_segments
        self.ways = add("/ways", nothing, _PLAN, thickness=_LINE)
        self.path = add("/command", nothing, _COMMAND, thickness=2 * _LINE)
        self.goal = server.scene.add_frame("/goal", axes_length=0.12, axes_radius=0.006, visible=False)

    def _add_robot(self, root: str, shapes: list[Shape], colour: tuple[int, int, int] | None) -> list[Any]:
        """Frames of the bodies, their shapes below them; transparent where a colour is given for all."""
        add = self._server.scene.add_frame
        frames = [add(f"{root}/{body}", show_axes=False) for body in self._bodies]
        for number, shape in enumerate(shapes):
            own = tuple(int(255 * part) for part in shape.colour[:3])
            look = {"color": colour or own, "opacity": _GHOST if colour else None}
            _draw(self._server, f"{root}/{shape.body}/{number}", shape, look)
        return frames

    def show(self, seen: Seen) -> None:
        """Draw this from now on."""
        planned = bool(len(seen.plan))
        if planned:
            ways = planned_ways(self._simulation, self._embodiment, seen)
            ghost = self._poses()
        self._simulation.place(seen.position, seen.orientation, seen.joints)
        with self._server.atomic():
            _move(self.frames, self._poses())
            self._ghost.visible = planned
            self.ways.visible = planned and len(seen.plan) > 1
            if planned:
                _move(self._ghost_frames, ghost)
                self.ways.points = _pieces(ways)
            self._show_command(seen)
            self._show_goal(seen)

    def _poses(self) -> tuple[Array, Array]:
        """Positions (B, 3) and quaternions wxyz (B, 4) of the bodies, in the world."""
        data = self._simulation.data
        return data.xpos[self._bodies].copy(), data.xquat[self._bodies].copy()

    def _show_command(self, seen: Seen) -> None:
        self.path.visible = bool(seen.command.any())
        if self.path.visible:
            self.path.points = _pieces(commanded_way(seen)[:, None])

    def _show_goal(self, seen: Seen) -> None:
        self.goal.visible = seen.goal is not None
        if seen.goal is not None:
            turned = to_matrix(seen.orientation) @ to_matrix(seen.goal[3:])
            self.goal.position = seen.position + rotate(seen.orientation, seen.goal[:3])
            self.goal.wxyz = xyzw_to_wxyz(from_matrix(turned))


def _pieces(ways: Array) -> NDArray[np.float32]:
    """Line segments (N, 2, 3) along ways (T, E, 3)."""
    return np.stack([ways[:-1], ways[1:]], axis=2).reshape(-1, 2, 3).astype(np.float32)


def _move(frames: list[Any], poses: tuple[Array, Array]) -> None:
    for frame, position, quaternion in zip(frames, *poses, strict=True):
        frame.position, frame.wxyz = position, quaternion


def _draw(server: ViserServer, name: str, shape: Shape, look: dict[str, Any]) -> None:
    """One shape below the frame of its body; a capsule as a cylinder between two spheres."""
    scene, radius = server.scene, float(shape.size[0])
    pose: dict[str, Any] = {"position": shape.position, "wxyz": xyzw_to_wxyz(shape.orientation)}
    if shape.kind == "mesh":
        scene.add_mesh_simple(name, shape.vertices, shape.faces, flat_shading=True, **look, **pose)
    elif shape.kind == "box":
        scene.add_box(name, dimensions=2.0 * shape.size, **look, **pose)
    elif shape.kind == "sphere":
        scene.add_icosphere(name, radius, subdivisions=2, **look, **pose)
    elif shape.kind == "ellipsoid":
        scale = float(shape.size[0]), float(shape.size[1]), float(shape.size[2])
        scene.add_icosphere(name, 1.0, subdivisions=2, scale=scale, **look, **pose)
    else:
        length = 2.0 * float(shape.size[1])
        scene.add_cylinder(name, radius, length, radial_segments=16, **look, **pose)
        for sign in (-1.0, 1.0) if shape.kind == "capsule" else ():
            place = (0.0, 0.0, 0.5 * sign * length)
            scene.add_icosphere(f"{name}/{sign:+.0f}", radius, subdivisions=2, position=place, **look)
