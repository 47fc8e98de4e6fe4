"""The supervisor and the planner that it watches, processes over DDS, under a controller that only holds."""

from __future__ import annotations

import math
import signal
import time

import numpy as np
import pytest
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from processes import domain, wait_until
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_core.files import shipped_bundle
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.rotations import tilt
from tdmpc2_ros import qos
from tdmpc2_ros.messages import trajectory_message

ROBOT = Embodiment.load("quadruped")
PLANNER = {"autostart": True, "supervisor": True, "model": str(shipped_bundle("quadruped"))}


class World:
    """A walking robot: simulation that holds its last target for ever, supervisor, planner.

    waits: simulated time waits for who commands, so that a busy machine does not fell a biped.
    """

    def __init__(self, own, robot: str = "quadruped", waits: bool = False) -> None:
        self._model = {"robot": robot, "model": str(shipped_bundle(robot)), "use_sim_time": waits}
        self.own, self.state, self.stops = own, "?", list[tuple[float, str]]()
        self.base: Odometry | None = None
        self.lowest, self.commands = math.inf, list[float]()
        node = own.node
        node.create_subscription(String, "supervisor/state", self._on_state, qos.STATUS)
        node.create_subscription(Odometry, "simulator/floating_base_state", self._on_base, 10)
        topic = "joint_trajectory_controller/joint_trajectory"
        node.create_subscription(JointTrajectory, topic, self._on_command, qos.STATUS)
        self._cmd_vel, self._speed = node.create_publisher(Twist, "cmd_vel", qos.COMMAND), 0.0
        node.create_timer(0.05, self._command)
        still = {"robot": robot, "command_timeout": 60.0, "timeout_action": "hold"}
        self._planner = PLANNER | self._model | ({"deadline_ms": 300.0} if waits else {})
        if waits:
            still |= {"lock_step": True, "publish_clock": True, "sensor_rate": 50.0}
        self.simulation = own.start("tdmpc2_ros.simulator.node", still)
        patient = {**self._model, "silence": 0.3}  # a busy machine stops everything for a tenth of a second
        self.supervisor = own.start("tdmpc2_ros.supervisor.node", patient)
        wait_until(lambda: self.base is not None and self.state == "", 30.0, "no simulation or supervisor")
        self.planner = self.start_planner()

    def start_planner(self):
        planner = self.own.start("tdmpc2_ros.planner.node", self._planner)
        wait_until(lambda: "planning: " in planner.log or "not commanding" in planner.log, 60.0,
                   lambda: planner.log)  # fmt: skip
        return planner

    def _on_state(self, message: String) -> None:
        if message.data and message.data != self.state:
            self.stops.append((time.monotonic(), message.data))
        self.state = message.data

    def _on_base(self, message: Odometry) -> None:
        self.base = message
        q = message.pose.pose.orientation
        self.lowest = min(self.lowest, math.cos(float(tilt([q.x, q.y, q.z, q.w]))))

    def _on_command(self, message: JointTrajectory) -> None:
        self.commands.append(time.monotonic())

    def _command(self) -> None:
        message = Twist()
        message.linear.x = self._speed
        self._cmd_vel.publish(message)

    @property
    def speed(self) -> float:
        return self.base.twist.twist.linear.x

    def walk(self, speed: float = 0.5) -> None:
        self._speed = 0.0
        time.sleep(0.3)  # after a stop the planner waits for a zero
        self._speed = speed
        wait_until(lambda: self.speed > 0.6 * speed, 20.0,
                   lambda: f"does not walk; {self.state}\n{self.planner.log}")  # fmt: skip
        self.lowest = math.inf

    def stand(self) -> None:
        self._speed = 0.0
        time.sleep(0.3)  # the planner has heard of it
        wait_until(lambda: abs(self.speed) < 0.1, 20.0, "the robot does not stop")

    def stopped_since(self, start: float, *names: str) -> float:
        """s until the supervisor told of one of these events; after it the robot comes to stand upright."""
        wait_until(lambda: any(t >= start and text.startswith(names) for t, text in self.stops), 5.0,
                   lambda: f"{names} not in {self.stops}")  # fmt: skip
        when = next(t for t, text in self.stops if t >= start and text.startswith(names))
        self._speed = 0.0
        time.sleep(2.0)
        assert self.lowest > math.cos(0.7), "the robot fell"
        assert abs(self.speed) < 0.1
        return when - start

    def release(self) -> str:
        answer = self.own.call("/supervisor/release", Trigger)
        return "" if answer.success else answer.message


@pytest.fixture(scope="module")
def world():
    with domain() as own:
        yield World(own)


def test_a_planner_that_is_killed_or_hangs_leaves_a_robot_that_stands(world):
    """Under a controller that holds the last point; a second planner waits for a release and for zero."""
    world.walk()
    start = time.monotonic()
    world.planner.send(signal.SIGKILL)
    reaction = world.stopped_since(start, "planner_died", "planner_silent")
    assert reaction < 0.5  # 40 ms on a free machine
    assert "no planner is alive" in world.release()

    world.planner = world.start_planner()
    wait_until(lambda: "the supervisor stops the robot: planner_" in world.planner.log, 10.0,
               lambda: world.planner.log)  # fmt: skip
    world._speed = 0.5
    time.sleep(0.3)  # the planner has heard of it
    wait_until(lambda: world.release() == "", 10.0, lambda: world.release())
    wait_until(lambda: "send zero first" in world.planner.log, 5.0, lambda: world.planner.log)
    assert abs(world.speed) < 0.1
    world.stand()
    world.walk()

    time.sleep(3.0)  # the planner's beginning, in which it may be silent for longer
    start = time.monotonic()
    world.planner.send(signal.SIGSTOP)
    world.stopped_since(start, "planner_silent")
    world.planner.send(signal.SIGCONT)
    time.sleep(0.5)
    assert abs(world.speed) < 0.1 and world.state.startswith("planner_silent")
    wait_until(lambda: world.release() == "", 10.0, lambda: world.release())
    world.walk()
    world.stand()


def test_emergency_stops_answer_when_the_hold_is_out_and_outlive_the_planner(world):
    world.walk()
    answer = world.own.call("/planner/estop", Trigger)
    assert answer.success
    world.stand()
    assert world.own.call("/planner/clear_estop", Trigger).success
    world.walk()
    start = time.monotonic()
    assert world.own.call("/supervisor/estop", Trigger).success
    assert world.stopped_since(start, "supervisor_estop") < 0.5
    assert world.own.call("/planner/estop", Trigger).success
    before = len(world.commands)
    time.sleep(1.0)
    assert len(world.commands) - before < 70, "planner and supervisor both command the robot at 50 Hz"
    assert world.own.call("/planner/clear_estop", Trigger).success
    world.planner.send(signal.SIGKILL)
    world.planner.wait(10.0)
    world.planner = world.start_planner()
    assert "not commanding: the supervisor stops the robot: supervisor_estop" in world.planner.log
    wait_until(lambda: world.release() == "", 10.0, lambda: world.release())
    world.walk()
    world.stand()


def test_a_second_commander_is_told_and_its_planner_refused(world):
    topic = "joint_trajectory_controller/joint_trajectory"
    rival = world.own.start("tdmpc2_ros.planner.node", PLANNER)
    said = "another planner, process"  # refused, or silent where it is discovered late
    wait_until(lambda: said in rival.log, 30.0, lambda: rival.log)
    rival.kill()
    other = world.own.node.create_publisher(JointTrajectory, topic, qos.COMMAND)
    wait_until(lambda: "is also commanded by /watcher" in world.planner.log, 10.0, lambda: world.planner.log)
    wait_until(lambda: world.state, 5.0, "the supervisor leaves the robot alone")
    other.publish(trajectory_message(ROBOT.joint_names, np.tile(ROBOT.default_position, (2, 1)), 0.02))
    world.own.node.destroy_publisher(other)
    wait_until(lambda: world.release() == "", 10.0, lambda: world.release())
    world.walk()
    world.stand()


def test_a_planner_without_its_supervisor_holds(world):
    world.walk()
    world.supervisor.send(signal.SIGKILL)
    wait_until(
        lambda: "holding: the supervisor is silent" in world.planner.log, 5.0, lambda: world.planner.log
    )
    world.stand()
    assert world.lowest > math.cos(0.7)


def test_a_biped_whose_planner_is_killed_in_mid_stride_is_balanced_by_the_prior():
    """Whether it then stays up is tested in simulation, on many robots (test_balance.py of the core)."""
    with domain() as own:
        world, rows = World(own, "humanoid", waits=True), list[tuple[float, int]]()
        topic = "joint_trajectory_controller/joint_trajectory"
        own.node.create_subscription(
            JointTrajectory, topic, lambda m: rows.append((time.monotonic(), len(m.points))), qos.STATUS
        )
        world.walk(0.3)
        start = time.monotonic()
        world.planner.send(signal.SIGKILL)
        # the prior's commands are for one period, those on a way to a posture for ten, a plan's for three
        wait_until(lambda: sum(count == 1 for at, count in rows if at > start) >= 20, 10.0,
                   lambda: f"{rows[-30:]}\n{world.supervisor.log}")  # fmt: skip
        assert world.lowest > math.cos(0.7) and world.state.startswith("planner_")
        planner = world.start_planner()
        assert "not commanding: the supervisor stops the robot: planner_" in planner.log


def test_the_supervisor_loads_no_torch():
    import subprocess
    import sys

    script = "import sys, tdmpc2_ros.supervisor.node; print('torch' in sys.modules, 'mujoco' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "False"], done.stderr
