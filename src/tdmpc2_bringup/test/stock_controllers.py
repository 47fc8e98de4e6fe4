"""What ros2_control does with commands, step by step: the trajectory controller's sampling and the limiter.

Written after the rules of joint_trajectory_controller (positions only, splines, header stamp zero, joints in
the controller's order) and of the joint limiter that enforce_command_limits puts behind every position
command, so that the suite can be measured without a ROS installation:

    python src/tdmpc2_bringup/test/stock_controllers.py humanoid 60     # a table, planner as shipped
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from tdmpc2_bringup.robot_files import RobotFiles
from tdmpc2_bringup.settings import Settings
from tdmpc2_core.agent import Agent
from tdmpc2_core.control.decision import Decider, DecisionOptions
from tdmpc2_core.envs.robot.randomisation import SensorNoise, randomise
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.files import shipped_bundle
from tdmpc2_core.robots import Embodiment, SensorState
from tdmpc2_core.robots.rotations import yaw
from tdmpc2_core.robots.trajectory import Trajectory

Array = NDArray[np.float64]
SHARE = Path(__file__).resolve().parents[1]
SPEEDS = {"quadruped": 0.5, "humanoid": 0.3}
"""m/s, forwards."""
OUT_OF_BOUNDS = 0.0087
"""rad beyond a limit at which the limiter throws, which ends the controller."""


class TrajectoryController:
    """joint_trajectory_controller: `receive` at any time, then `update` once per period of the manager.

    A trajectory counts from the update that samples it first. At that update a point is put before it: the
    last command at the time of the last update where it interpolates from the desired state, the measured
    position at the present time where it does not. What an update commands is the sample one period ahead.
    """

    def __init__(self, position: Array, period: float, from_desired: bool) -> None:
        self._period, self._from_desired = period, from_desired
        self._commanded, self._commanded_at = position.copy(), None  # as at activation
        self._waiting: Trajectory | None = None
        self._points = position[None].copy()
        self._times = np.zeros(1)

    def receive(self, trajectory: Trajectory) -> None:
        """A message came; the update that follows takes it up."""
        self._waiting = trajectory

    def update(self, now: float, measured: Array) -> Array:
        """The command of this update (J,)."""
        if self._waiting is not None:
            self._take_up(self._waiting, now, measured)
            self._waiting = None
        self._commanded, self._commanded_at = self._sample(now + self._period), now
        return self._commanded.copy()

    def _take_up(self, trajectory: Trajectory, now: float, measured: Array) -> None:
        before, at = measured, now
        if self._from_desired:
            before, at = self._commanded, now if self._commanded_at is None else self._commanded_at
        self._points = np.concatenate([before[None], trajectory.points])
        self._times = np.concatenate([[at], now + trajectory.times])

    def _sample(self, time: float) -> Array:
        """Linear between neighbouring points, which is what the splines are without velocities."""
        times, points = self._times, self._points
        after = int(np.searchsorted(times, time, side="right"))
        if after >= len(times):
            return points[-1].copy()
        if after == 0:
            return points[0].copy()
        share = (time - times[after - 1]) / (times[after] - times[after - 1])
        return points[after - 1] + share * (points[after] - points[after - 1])


class Limiter:
    """The limiter of the joints' URDF limits: position, and velocity by the distance from the last command.

    Attributes:
        limited: updates at which a command was changed, each a line "... is out of limits" in the log.
        overtravel: rad, the furthest that a joint was measured outside its limits.
    """

    def __init__(self, lower: Array, upper: Array, velocity: Array) -> None:
        self._lower, self._upper, self._velocity = lower, upper, velocity
        self._before: Array | None = None
        self.limited, self.overtravel = 0, 0.0

    @property
    def throws(self) -> bool:
        """Whether it has thrown, upon which the controller is left unconfigured."""
        return self.overtravel > OUT_OF_BOUNDS

    def enforce(self, command: Array, measured: Array, period: float) -> Array:
        """What reaches the drives (J,)."""
        outside = np.maximum(self._lower - measured, measured - self._upper)
        self.overtravel = max(self.overtravel, float(outside.max()))
        before = measured if self._before is None else self._before
        step = self._velocity * period
        low = np.maximum(np.minimum(before - step, self._upper), self._lower)
        high = np.minimum(np.maximum(before + step, low), self._upper)
        self.limited += bool(((command < low) | (command > high)).any())
        self._before = np.clip(command, low, high)
        return self._before.copy()


class ForwardController:
    """forward_command_controller: the newest command, for ever."""

    def __init__(self, position: Array) -> None:
        self._command = position.copy()
        self._before: Array | None = None

    def receive(self, trajectory: Trajectory) -> None:
        """What the planner's output sends of the trajectory: the mean way of its first period."""
        row = trajectory.points[0]
        self._command = 0.5 * (row + (row if self._before is None else self._before))
        self._before = row

    def update(self, now: float, measured: Array) -> Array:
        """The command of this update (J,)."""
        return self._command.copy()


def limiter_of(description: ElementTree.Element, joints: Iterable[str]) -> Limiter:
    """The limiter that ros2_control makes of a URDF."""
    limits = [description.find(f"joint[@name='{name}']/limit") for name in joints]
    rows = ([float(each.get(key)) for each in limits] for key in ("lower", "upper", "velocity"))
    return Limiter(*map(np.array, rows))


def launched_limiter(robot: str) -> Limiter:
    """The limiter under a launch of a shipped robot."""
    with tempfile.TemporaryDirectory() as made:
        files = RobotFiles(robot, Settings(sim="mock"), SHARE, Path(made))
        return limiter_of(ElementTree.fromstring(files.description()), files.embodiment.joint_names)


class Walk(NamedTuple):
    """What came of a walk straight ahead."""

    covered: float  # share of the commanded distance, along the direction that the robot began in
    along_body: float  # the same along its own x axis, wherever it points
    lateral: float  # m to the left of its way at the end
    yaw_rate: float  # rad/s, mean
    fell: float | None  # s
    limited: int  # updates in which the limiter changed a command
    throws: bool  # the limiter threw


CONTROLLERS = ("from desired", "from measured", "forward")


def walk(
    robot: str,
    controller: str,
    seconds: float,
    planner: str | None = None,
    heading_hold: float | None = None,
    seed: int | None = None,
) -> Walk:
    """A shipped robot under its bundle and a stock controller of `CONTROLLERS`.

    The manager runs at the rate of physics. A command reaches the controller one update after its decision.

    Args:
        heading_hold: gain, 1/s; None takes the robot's own.
        seed: of sensor noise, start and a randomised robot; without one the robot is as in its file.
    """
    agent = Agent.load(shipped_bundle(robot), planner=planner, seed=0)
    embodiment, speed = agent.embodiment, SPEEDS[robot]
    assert embodiment is not None and embodiment.twist_command is not None
    simulation, read = _simulated(embodiment, seed)
    sensors = SensorState(embodiment)
    decider = Decider(agent, sensors, DecisionOptions(deadline=10.0, heading_hold=heading_hold))
    period, limiter = 1.0 / embodiment.physics_rate, launched_limiter(robot)
    start = simulation.joint_position()
    stock: ForwardController | TrajectoryController = ForwardController(start)
    if controller != "forward":
        stock = TrajectoryController(start, period, from_desired=controller == "from desired")
    command = [speed if name == "linear_x" else 0.0 for name in embodiment.twist_command.names]
    begin, velocity, fell = simulation.base_pose(), [], None
    for tick in range(round(seconds * embodiment.control_rate)):
        now = simulation.time
        for source in simulation.sources:
            sensors.store(source, now, read(source))
        sensors.set_command(now, command)
        targets = decider.decide(now, time.monotonic()).targets
        assert targets is not None
        for step in range(embodiment.physics_steps):
            if step == 1:
                stock.receive(Trajectory(targets, np.arange(1, len(targets) + 1) * embodiment.control_period))
            measured = simulation.joint_position()
            wanted = stock.update(now + step * period, measured)
            simulation.step(limiter.enforce(wanted, measured, period))
        linear, angular = simulation.base_velocity()
        velocity.append((linear[0], angular[2]))
        if simulation.fallen():
            fell = tick * embodiment.control_period
            break
    decider.stop()
    ahead, left = _way(begin, simulation.base_pose()[0])
    forward, turn = np.mean(velocity, axis=0)
    body = forward * len(velocity) * embodiment.control_period
    asked = speed * seconds
    return Walk(ahead / asked, body / asked, left, turn, fell, limiter.limited, limiter.throws)


def _simulated(embodiment: Embodiment, seed: int | None) -> tuple[Simulation, Callable[[str], Any]]:
    """A robot at its start, and what reads its sensors; see `walk`."""
    simulation = Simulation(embodiment, seed or 0)
    simulation.reset(randomise=seed is not None)
    if seed is None:
        return simulation, simulation.read
    generator = np.random.default_rng(seed)
    randomise(simulation, generator)
    simulation.settle()
    noise = SensorNoise(embodiment, generator)
    return simulation, lambda source: noise.add(source, simulation.read(source))


def _way(begin: tuple[Array, Array], end: Array) -> tuple[float, float]:
    """From a pose (m, xyzw) to a position (3,): m ahead and m to the left, on level ground."""
    way, heading = end - begin[0], float(yaw(begin[1]))
    cosine, sine = np.cos(heading), np.sin(heading)
    return float(cosine * way[0] + sine * way[1]), float(cosine * way[1] - sine * way[0])


if __name__ == "__main__":
    for kind in CONTROLLERS:
        print(
            f"{sys.argv[1]:10} {kind:14} {walk(sys.argv[1], kind, float(sys.argv[2]), *sys.argv[3:])}",
            flush=True,
        )
