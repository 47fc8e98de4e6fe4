"""A simulated robot in real time: physics at the clock's pace, and a window to watch it.

The command in force comes from elsewhere, at its own pace; when commands stop, the robot holds or stands.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.envs.robot.randomisation import SensorNoise, push, randomise, restore
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.faulty import Drives
from tdmpc2_core.robots.trajectory import Trajectory, TrajectoryPlayer

Array = NDArray[np.float64]
_STAND_SECONDS = 0.1  # ramp to the default pose; slower ones let a robot caught in mid stride tip over
_MAX_LAG = 0.1  # s of delay that is caught up; more is given up, and the real-time factor shows it
_BURST = 5  # steps made at once while catching up, so that commands and stops are still heard
_UNANSWERED = 3  # samples without an answer after which nobody is taken to listen
_PICTURE_PERIOD = 1.0 / 30.0  # s between two pictures of the window
TimeoutAction = Literal["auto", "hold", "stand"]


@dataclass(frozen=True)
class RobotOptions:
    """What varies between runs of the simulated robot."""

    sensor_noise: bool = True
    randomise: bool = False  # what the embodiment randomises but the delay, drawn at every reset
    reset_noise: bool = False  # the embodiment's noise on pose, heading and velocity at every reset
    command_timeout: float = 0.06  # s from the end of the last command to the timeout action
    timeout_action: TimeoutAction = "auto"  # auto: stand for robots that can fall, hold for others


class Measurement(NamedTuple):
    """One instant of the robot. SI units; joint arrays (J,) in embodiment order; quaternions xyzw."""

    time: float  # s of simulated time since start
    readings: dict[str, dict[str, Array]]  # of each simulated source
    base_position: Array  # ground truth in the world
    base_orientation: Array
    base_linear: Array  # ground truth in the base frame
    base_angular: Array
    tool: Array | None  # ground truth (7,) in the base frame: m, xyzw; None for a robot without a tool


class SimulatedRobot:
    """Commands may come from any thread; `step` is for one thread.

    Raises:
        UserError: the robot model and the embodiment do not fit.
    """

    def __init__(self, embodiment: Embodiment, options: RobotOptions, seed: int = 0) -> None:
        self.embodiment, self.options = embodiment, options
        self.simulation = Simulation(embodiment, seed)
        self._rng = self.simulation.rng
        self._noise = SensorNoise(embodiment, self._rng)
        self._player = TrajectoryPlayer(embodiment.default_position)
        self.drives, self._faulty = Drives(embodiment, seed), False
        self._lock = threading.Lock()
        self._period = 1.0 / embodiment.physics_rate
        self._steps = 0
        self._command_end: float | None = None  # s, simulated; None: no command since the reset
        falls = embodiment.termination
        can_fall = falls.max_tilt is not None or falls.min_base_height is not None
        self._stands = options.timeout_action == "stand" or (options.timeout_action == "auto" and can_fall)
        self.reset()

    @property
    def time(self) -> float:
        """Simulated time since start, s; a reset does not turn it back."""
        return self._steps * self._period

    @property
    def lock(self) -> threading.Lock:
        """Hold it to read the MuJoCo state from another thread."""
        return self._lock

    @property
    def commanded(self) -> bool:
        """Whether a command is in force: received, and not ended for longer than the timeout."""
        return self._command_end is not None and self.time <= self._command_end + self.options.command_timeout

    # ---- commands ----
    def play(self, trajectory: Trajectory) -> None:
        """Replace the command by a trajectory that starts from the present target."""
        with self._lock:
            self._player.set(trajectory.points, trajectory.times, self.time)
            self._command_end = self.time + float(trajectory.times[-1])
            self._standing = False

    def jump(self, targets: Array) -> None:
        """Replace the command by targets (J,), rad, at once."""
        with self._lock:
            self._player.step_to(targets)
            self._command_end = self.time
            self._standing = False

    def reset(self) -> None:
        """Back to the default pose at the origin, no command in force."""
        with self._lock:
            if self.options.randomise:
                randomise(self.simulation, self._rng)
            else:
                restore(self.simulation)
            self.simulation.reset(randomise=self.options.reset_noise)
            self._intact = self.simulation.effort.copy()
            self._player.reset(self.embodiment.default_position)
            self._command_end = None
            self._standing = True

    def push(self) -> Array:
        """Disturb the robot as the embodiment's randomisation does; see `randomisation.push`."""
        with self._lock:
            return push(self.simulation, self._rng)

    # ---- time ----
    def step(self) -> None:
        """One physics step under the command in force."""
        with self._lock:
            if not self._standing and not self.commanded:
                self._on_timeout()
            self._steps += 1
            self.simulation.follow()
            targets = self._player.sample(self.time)
            if self._faulty or self.drives.active:
                targets = self._through_drives(targets)
            self.simulation.step(targets)

    def _through_drives(self, targets: Array) -> Array:
        """Targets (J,) that faulty drives follow; their effort limits are set, at last to what they were."""
        self._faulty = self.drives.active
        targets, share = self.drives.targets(self.time, targets)
        self.simulation.set_effort(self._intact * share)
        return targets

    def _on_timeout(self) -> None:
        """Called once per silence: the last point is held, or the robot takes its default pose."""
        self._standing = True
        if self._stands:
            self._player.set(self.embodiment.default_position[None], np.array([_STAND_SECONDS]), self.time)

    # ---- sensors ----
    def measure(self) -> Measurement:
        """What sensors report now, with noise where asked for, and the ground truth beside it."""
        simulation = self.simulation
        readings = {source: simulation.read(source) for source in simulation.sources}
        if self.options.sensor_noise:
            readings = {source: self._noise.add(source, reading) for source, reading in readings.items()}
        base_position, base_orientation = simulation.base_pose()
        base_linear, base_angular = simulation.base_velocity()
        return Measurement(
            time=self.time,
            readings=readings,
            base_position=base_position,
            base_orientation=base_orientation,
            base_linear=base_linear,
            base_angular=base_angular,
            tool=simulation.quick_tool_pose() if self.embodiment.pose_command else None,
        )


class Pacer:
    """Says how many physics steps are due. Times are seconds of `time.monotonic`.

    Args:
        rate: physics steps per simulated second, Hz.
        factor: simulated seconds per second; 0 is as fast as possible.
    """

    def __init__(self, rate: float, factor: float, now: float) -> None:
        self._rate = rate * factor
        self._step_seconds = 1.0 / rate
        self._origin, self._made = now, 0
        self._report_time, self._report_steps, self._total = now, 0, 0

    def due(self, now: float) -> int:
        """Steps to make now; at most a burst."""
        if not self._rate:
            return _BURST
        behind = (now - self._origin) - self._made / self._rate
        if behind > _MAX_LAG:
            self._origin += behind
            behind = 0.0
        return min(_BURST, int(behind * self._rate + 1e-6))

    def made(self) -> None:
        """One step was made."""
        self._made += 1
        self._total += 1

    def lateness(self, now: float) -> float:
        """Seconds by which the step made last is behind its place in the schedule; 0 when there is none."""
        return max(0.0, now - self._origin - self._made / self._rate) if self._rate else 0.0

    def pause(self, now: float) -> float:
        """Seconds to sleep until the next step is due."""
        return max(0.0, self._origin + (self._made + 1) / self._rate - now) if self._rate else 0.0

    def real_time_factor(self, now: float) -> float:
        """Simulated seconds per second since the last call."""
        elapsed = max(1e-9, now - self._report_time)
        result = (self._total - self._report_steps) * self._step_seconds / elapsed
        self._report_time, self._report_steps = now, self._total
        return result


class LockStep:
    """Lets simulated time wait for the controller, so that a slow machine slows the clock and not the robot.

    A sample asks for an answer; until it comes, simulated time goes on by `lag` at most. Waiting begins with
    the first answer and ends, until the next one, where `_UNANSWERED` samples in a row had none for
    `patience` each: a dead controller is then a silent one, as on the robot.

    Args:
        lag: s of simulated time from a sample to its answer, at most.
        patience: s to wait for one answer.
    """

    def __init__(self, lag: float, patience: float = 1.0) -> None:
        self._lag, self._patience = lag, patience
        self._came = threading.Event()
        self._following = False
        self._asked: float | None = None  # simulated s of the sample without an answer
        self._since: float | None = None  # steady s at which waiting for it began
        self._in_a_row = 0
        self.waits = self.unanswered = 0
        self.waited = 0.0  # s

    def ask(self, time: float) -> None:
        """A sample went out at simulated `time`, s."""
        self._came.clear()
        self._asked = time if self._following else None

    def answer(self) -> None:
        """A command came. From any thread."""
        self._following, self._in_a_row = True, 0
        self._came.set()

    def blocked(self, time: float, now: float) -> bool:
        """Whether simulated time stands at `time`, s; `now` is the instant of `time.monotonic`."""
        if self._asked is None or time < self._asked + self._lag - 1e-9:
            return False
        if self._since is None and not self._came.is_set():
            self._since, self.waits = now, self.waits + 1
        given_up = self._since is not None and now - self._since > self._patience
        if self._came.is_set() or given_up:
            self._go_on(now)
        return self._asked is not None

    def _go_on(self, now: float) -> None:
        if not self._came.is_set():
            self.unanswered += 1
            self._in_a_row += 1
            self._following = self._in_a_row < _UNANSWERED
        if self._since is not None:
            self.waited += now - self._since
        self._asked = self._since = None

    def wait(self, seconds: float) -> None:
        """Sleep until an answer comes, at most `seconds`."""
        self._came.wait(seconds)


class Viewer:
    """A window where there is a display; elsewhere one warning and nothing more."""

    def __init__(self, simulation: Simulation, lock: threading.Lock, warn: Callable[[str], None]) -> None:
        self._simulation, self._lock = simulation, lock
        self._handle, self._next, self._shapes = None, 0.0, -1
        display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        if sys.platform.startswith("linux") and not display:
            warn("view: no display here, so there is no window; the simulation runs on")
            return
        try:
            import mujoco.viewer

            self._handle = mujoco.viewer.launch_passive(simulation.model, simulation.data)
        except Exception as error:  # whatever fails in a driver or window system
            warn(f"view: the window cannot be opened ({error}); the simulation runs on")

    def update(self, now: float) -> None:
        """Show the present state, at most 30 times a second."""
        if self._handle is None or now < self._next:
            return
        self._next = now + _PICTURE_PERIOD
        if self._handle.is_running():
            with self._lock:
                terrain = self._simulation.terrain
                if terrain is not None and terrain.shapes != self._shapes:
                    self._shapes = terrain.shapes
                    self._handle.update_hfield(terrain.field)
                self._handle.sync()

    @property
    def open(self) -> bool:
        """Whether there is a window."""
        return self._handle is not None and self._handle.is_running()

    def close(self) -> None:
        """Close the window."""
        if self._handle is not None:
            self._handle.close()
