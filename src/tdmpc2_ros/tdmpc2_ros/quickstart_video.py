"""Renders a film and a picture of a recorded run, offscreen. Run as a process of its own, since MuJoCo picks its
renderer when it is imported: `python -m tdmpc2_ros.quickstart_video motion.npz`; the files come to lie beside it.

`make` tries EGL and then OSMesa, and says why when neither works. No ROS imports.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tdmpc2_core.errors import UserError

_RENDERERS = ("egl", "osmesa")
_SIZE, _PICTURE_SIZE = (640, 360), (1280, 720)  # width, height
_RATE = 25  # frames per second
_BUDGET = 35.0  # s of rendering for 30 s of film; detail and frame rate give way
_TIMEOUT_SHARE, _TIMEOUT_MORE = 4.0, 60.0


@dataclass(frozen=True)
class Recording:
    """State over time: s, m, quaternion xyzw, rad in embodiment order."""

    robot: str
    time: np.ndarray  # (T,)
    position: np.ndarray  # (T, 3)
    orientation: np.ndarray  # (T, 4)
    joints: np.ndarray  # (T, J)
    picture_time: float  # s, of the picture

    def save(self, path: Path) -> None:
        """Write a compressed NumPy file."""
        np.savez_compressed(path, **self.__dict__)

    @staticmethod
    def load(path: Path) -> Recording:
        """Read what `save` wrote."""
        with np.load(path) as data:
            values = {name: data[name] for name in data.files}
        return Recording(str(values.pop("robot")), picture_time=float(values.pop("picture_time")), **values)


def make(recording: Path, seconds: float) -> str:
    """Render in another process; returns what came of it, in words. Takes bounded time, never raises for want of
    a renderer."""
    reason = ""
    for renderer in _RENDERERS:
        command = [sys.executable, "-m", "tdmpc2_ros.quickstart_video", str(recording)]
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
            return f"no video: rendering with {renderer} took too long"
        if run.returncode == 0:
            return f"video: {recording.with_name('video.mp4')}, picture: {recording.with_name('picture.png')}"
        last = (run.stderr or "").strip().splitlines()[-1:]
        reason += f"; {renderer}: {last[0] if last else f'ended with code {run.returncode}'}"
    return f"no video: MuJoCo cannot render here ({reason[2:]})"


class _Scene:
    """The robot in a given state, seen by the model's tracking camera."""

    def __init__(self, recording: Recording, size: tuple[int, int], samples: int) -> None:
        import mujoco

        from tdmpc2_core.envs.simulation import Simulation
        from tdmpc2_core.robots.embodiment import Embodiment

        self._mujoco, self._recording = mujoco, recording
        self._simulation = Simulation(Embodiment.load(recording.robot))
        model = self._simulation.model
        model.vis.quality.offsamples = samples
        self._renderer = mujoco.Renderer(model, size[1], size[0])
        named = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track") >= 0
        self._camera = "track" if named else -1

    def picture(self, time_: float, shadow: bool = True, reflection: bool = False) -> np.ndarray:
        """RGB (H, W, 3) of the state nearest to `time_`, s."""
        r, flags = self._recording, self._mujoco.mjtRndFlag
        index = min(int(np.searchsorted(r.time, time_)), len(r.time) - 1)
        self._simulation.place(r.position[index], r.orientation[index], r.joints[index])
        self._renderer.update_scene(self._simulation.data, self._camera)
        self._renderer.scene.flags[flags.mjRND_SHADOW] = shadow
        self._renderer.scene.flags[flags.mjRND_REFLECTION] = reflection
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()


def _film(scene: _Scene, recording: Recording, path: Path) -> None:
    """Write the film; shadows and then frames are left out where they would take too long."""
    import imageio
    from tqdm import tqdm

    length = float(recording.time[-1] - recording.time[0])
    frames = max(1, int(length * _RATE))
    budget = _BUDGET * max(1.0, length / 30.0)
    shadow = frames * _seconds_per_frame(scene, recording, shadow=True) < budget
    rate = _RATE
    if not shadow:
        share = frames * _seconds_per_frame(scene, recording, shadow=False) / budget
        rate = next((r for r in (25, 12.5) if share * r / _RATE < 1.0), 5)
    times = recording.time[0] + np.arange(0.0, length, 1.0 / rate)
    with imageio.get_writer(path, fps=rate, codec="libx264", quality=7, macro_block_size=8) as film:
        for time_ in tqdm(times, desc="video", unit="frame", leave=False):
            film.append_data(scene.picture(time_, shadow))


def _seconds_per_frame(scene: _Scene, recording: Recording, shadow: bool) -> float:
    scene.picture(recording.time[0], shadow)
    start = time.perf_counter()
    for _ in range(4):
        scene.picture(recording.picture_time, shadow)
    return (time.perf_counter() - start) / 4


def main(arguments: list[str] | None = None) -> int:
    """Render `motion.npz`; 0, or an exception where MuJoCo cannot render."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path)
    path = parser.parse_args(arguments).recording
    recording = Recording.load(path)
    if not len(recording.time):
        raise UserError(f"{path}: holds no states")
    import imageio

    still = _Scene(recording, _PICTURE_SIZE, samples=4)
    imageio.imwrite(path.with_name("picture.png"), still.picture(recording.picture_time, True, True))
    still.close()
    film = _Scene(recording, _SIZE, samples=0)
    _film(film, recording, path.with_name("video.mp4"))
    film.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
