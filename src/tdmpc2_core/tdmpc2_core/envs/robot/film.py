"""Renders a film and a picture of a recorded run, offscreen.

Run as a process of its own, since MuJoCo picks its renderer when it is imported:
`python -m tdmpc2_core.envs.robot.film motion.npz`; the files come to lie beside it. `make` tries EGL and then
OSMesa, and says why when neither works.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from tdmpc2_core.errors import UserError
from tdmpc2_core.files import replacing
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.rotations import yaw
from tdmpc2_core.robots.trajectory import windowed_mean

if TYPE_CHECKING:
    from tdmpc2_core.envs.robot.ground import TerrainState  # imports mujoco, which picks its renderer then

_RENDERERS = ("egl", "osmesa")
_SIZE, _PICTURE_SIZE = (640, 360), (1280, 720)  # width, height
_SIDE = -140.0  # degrees from the robot's heading to the direction in which the camera looks
_LIGHT = 3.0  # m from the lights to where the camera looks
_SHADOW_REACH = 4.0  # extents of the model: nearer, a corner of the shadow map specks the floor in view
_SHADOW_SIZE = 4096  # texels a side of that map
_CAMERA_SECONDS = 1.5  # s over which the camera's motion is averaged
_RATE = 25  # frames per second
_BUDGET = 35.0  # s of rendering for 30 s of film; shadows and then pictures give way
_TIMEOUT_SHARE, _TIMEOUT_MORE = 4.0, 60.0


@dataclass(frozen=True)
class Recording:
    """State over time: s, m, quaternion xyzw, rad in embodiment order."""

    robot: str
    time: np.ndarray  # (T,)
    position: np.ndarray  # (T, 3)
    orientation: np.ndarray  # (T, 4)
    joints: np.ndarray  # (T, J)
    goals: np.ndarray  # (T, 7) of an arm's tool; (0, 7) for other robots
    picture_time: float  # s, of the picture
    slope: np.ndarray = field(default_factory=lambda: np.zeros(2))  # of ground that episodes shape
    heights: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))  # m; (0, 0) without

    def save(self, path: Path) -> None:
        """Write a compressed NumPy file."""
        with replacing(path) as partial:
            np.savez_compressed(partial, **self.__dict__)

    @staticmethod
    def load(path: Path) -> Recording:
        """Read what `save` wrote."""
        with np.load(path) as data:
            values = {name: data[name] for name in data.files}
        return Recording(str(values.pop("robot")), picture_time=float(values.pop("picture_time")), **values)


def ground_fields(ground: TerrainState | None) -> dict[str, np.ndarray]:
    """The fields of a `Recording` that say which ground it was; none for a flat one."""
    if ground is None:
        return {}
    return {"slope": ground.slope} | ({} if ground.heights is None else {"heights": ground.heights})


def make(recording: Path, seconds: float) -> str:
    """Render in another process, in bounded time; returns what came of it, in words."""
    problem = _render(recording, seconds)
    if problem:
        return f"no video: {problem}"
    return f"video: {recording.with_name('video.mp4')}, picture: {recording.with_name('picture.png')}"


def write_film(recording: Recording, video: Path | None, picture: Path | None) -> None:
    """Render to files of any name.

    Raises:
        UserError: MuJoCo cannot render here, a package is missing, or there are no states.
    """
    with TemporaryDirectory() as folder:
        motion = Path(folder) / "motion.npz"
        recording.save(motion)
        length = float(np.ptp(recording.time)) if len(recording.time) else 0.0
        problem = _render(motion, length, () if video else ("--still",))
        if problem:
            raise UserError(f"no video: {problem}")
        for target, made in ((video, "video.mp4"), (picture, "picture.png")):
            if target is not None:
                with replacing(target) as partial:
                    shutil.copyfile(motion.with_name(made), partial)


def _render(recording: Path, seconds: float, options: tuple[str, ...] = ()) -> str:
    """Film and picture beside the recording; why there are none, or nothing."""
    reason = ""
    for renderer in _RENDERERS:
        command = [sys.executable, "-m", "tdmpc2_core.envs.robot.film", str(recording), *options]
        environment = {**os.environ, "MUJOCO_GL": renderer, "PYOPENGL_PLATFORM": renderer}
        try:
            run = subprocess.run(
                command,
                env=environment,
                stderr=subprocess.PIPE if not sys.stderr.isatty() else None,
                text=True,
                timeout=_TIMEOUT_SHARE * seconds + _TIMEOUT_MORE,
            )
        except subprocess.TimeoutExpired:
            return f"rendering with {renderer} took too long"
        if run.returncode == 0:
            return ""
        last = (run.stderr or "").strip().splitlines()[-1:]
        reason += f"; {renderer}: {last[0] if last else f'ended with code {run.returncode}'}"
    return f"MuJoCo cannot render here ({reason[2:]})"


class _Scene:
    """The robot in a given state, seen from the front and the side by a camera that follows it smoothly."""

    def __init__(self, recording: Recording, size: tuple[int, int], samples: int) -> None:
        import mujoco  # here: `make` sets its renderer for the process that renders

        from tdmpc2_core.envs.robot.simulation import Simulation

        self._mujoco, self._recording = mujoco, recording
        embodiment = Embodiment.load(recording.robot)
        self._simulation = Simulation(embodiment)
        model = self._simulation.model
        model.vis.quality.offsamples, model.vis.quality.shadowsize = samples, _SHADOW_SIZE
        model.vis.map.shadowclip = _SHADOW_REACH
        terrain = self._simulation.terrain
        if terrain is not None:  # before the renderer, which keeps a copy of the heights
            terrain.shape(recording.slope, recording.heights if recording.heights.size else None)
        self._renderer = mujoco.Renderer(model, size[1], size[0])
        height = embodiment.reset.base_height or 0.5
        self._camera = mujoco.MjvCamera()
        self._camera.distance, self._camera.elevation = 0.5 + 3.5 * height, -16.0
        shown = recording.position.copy()
        shown[:, 2] = 0.75 * height + self._simulation.ground_height(shown[:, :2])
        self._look_at = windowed_mean(recording.time, shown, _CAMERA_SECONDS)
        heading = np.unwrap(yaw(recording.orientation))[:, None]
        self._azimuth = np.degrees(windowed_mean(recording.time, heading, _CAMERA_SECONDS)[:, 0]) + _SIDE

    def picture(self, time_: float, shadow: bool = True, reflection: bool = False) -> np.ndarray:
        """RGB (H, W, 3) of the state nearest to `time_`, s."""
        r, flags = self._recording, self._mujoco.mjtRndFlag
        index = min(int(np.searchsorted(r.time, time_)), len(r.time) - 1)
        self._camera.lookat[:] = self._look_at[index]
        # shadows are drawn around the light: it goes along with the robot
        self._simulation.model.light_pos[:] = self._look_at[index] - _LIGHT * self._simulation.model.light_dir
        self._camera.azimuth = self._azimuth[index]
        if len(r.goals):
            self._simulation.show_goal(r.goals[index])
        self._simulation.place(r.position[index], r.orientation[index], r.joints[index])
        self._renderer.update_scene(self._simulation.data, self._camera)
        self._renderer.scene.flags[flags.mjRND_SHADOW] = shadow
        self._renderer.scene.flags[flags.mjRND_REFLECTION] = reflection
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()


def _film(scene: _Scene, recording: Recording, path: Path) -> None:
    """Write the film. Where rendering is slow, shadows are left out, then pictures are shown longer."""
    import imageio
    from tqdm import tqdm

    length = float(recording.time[-1] - recording.time[0])
    times = recording.time[0] + np.arange(0.0, max(length, 1.0 / _RATE), 1.0 / _RATE)
    share = _BUDGET * max(1.0, length / 30.0) / len(times)  # s for each frame
    shadow = _seconds_per_frame(scene, recording) < 0.8 * share
    picture, start = None, time.monotonic()
    film = imageio.get_writer(path, fps=_RATE, codec="libx264", quality=7, macro_block_size=8)
    with film:
        for number, instant in enumerate(tqdm(times, desc="video", unit="frame", leave=False)):
            if picture is None or time.monotonic() - start < share * (number + 1):
                picture = scene.picture(instant, shadow)
            film.append_data(picture)


def _seconds_per_frame(scene: _Scene, recording: Recording) -> float:
    """With shadows."""
    scene.picture(recording.time[0])
    start = time.perf_counter()
    for _ in range(4):
        scene.picture(recording.picture_time)
    return (time.perf_counter() - start) / 4


def main(arguments: list[str] | None = None) -> int:
    """Render `motion.npz`; 0, or an exception where MuJoCo cannot render."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--still", action="store_true", help="the picture alone")
    given = parser.parse_args(arguments)
    path: Path = given.recording
    recording = Recording.load(path)
    if not len(recording.time):
        raise UserError(f"{path}: holds no states")
    import imageio

    still = _Scene(recording, _PICTURE_SIZE, samples=4)
    with replacing(path.with_name("picture.png")) as partial:
        imageio.imwrite(partial, still.picture(recording.picture_time, True, True))
    still.close()
    if given.still:
        return 0
    film = _Scene(recording, _SIZE, samples=0)
    with replacing(path.with_name("video.mp4")) as partial:
        _film(film, recording, partial)
    film.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
