"""The simulation node as a process over DDS."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from processes import domain, wait_until
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.messages import to_seconds
from tdmpc2_core.teachers.trot import TrotGait
from tdmpc2_ros import qos
from tdmpc2_ros.messages import position_message, trajectory_message

SIM = "tdmpc2_ros.simulator.node"
ROBOT = Embodiment.load("quadruped")


class Watch:
    """The newest message of every topic of the simulation, and publishers of its commands."""

    def __init__(self, node) -> None:
        self.count, self.stamps = 0, []
        self.joints, self.imu, self.base, self.diagnostics = None, None, None, None
        self.base_stamps = []
        for kind, topic, slot in (
            (Imu, "imu_sensor_broadcaster/imu", "imu"),
            (Odometry, "simulator/floating_base_state", "base"),
            (DiagnosticArray, "/diagnostics", "diagnostics"),
        ):
            node.create_subscription(kind, topic, lambda message, slot=slot: setattr(self, slot, message), 10)
        node.create_subscription(JointState, "joint_states", self._on_joints, 10)
        self.trajectory = node.create_publisher(
            JointTrajectory, "joint_trajectory_controller/joint_trajectory", qos.COMMAND
        )
        self.forward = node.create_publisher(
            Float64MultiArray, "forward_position_controller/commands", qos.COMMAND
        )

    def _on_joints(self, message: JointState) -> None:
        self.joints = message
        self.stamps.append(to_seconds(message.header.stamp))

    def ready(self) -> None:
        """Until the simulation sends and hears."""
        wait_until(lambda: None not in (self.joints, self.imu, self.base), 20.0, "no sensors")
        for publisher in (self.trajectory, self.forward):
            wait_until(lambda p=publisher: p.get_subscription_count() > 0, 20.0, "commands have no reader")

    def position(self) -> np.ndarray:
        """(J,), rad, in embodiment order."""
        found = dict(zip(self.joints.name, self.joints.position, strict=True))
        return np.array([found[name] for name in ROBOT.joint_names])

    @property
    def height(self) -> float:
        return self.base.pose.pose.position.z

    @property
    def speed(self) -> float:
        linear = self.base.twist.twist.linear
        return math.hypot(linear.x, linear.y)


@pytest.fixture(scope="module")
def world():
    """One simulation for the tests that leave the robot standing."""
    with domain() as own:
        process = own.start(SIM, {"sensor_noise": False, "timeout_action": "hold"})
        watch = Watch(own.node)
        watch.ready()
        watch.domain, watch.process = own, process
        yield watch


@pytest.fixture(autouse=True)
def _standing(request):
    """Every test on the shared simulation starts with the robot in its default pose."""
    if "world" in request.fixturenames:
        world = request.getfixturevalue("world")
        assert world.domain.call("mujoco_sim/reset", Trigger).success
        wait_until(lambda: np.abs(world.position() - ROBOT.default_position).max() < 0.3, 5.0)
        time.sleep(0.5)


def test_sensors_are_sorted_and_regular(world):
    assert list(world.joints.name) == sorted(ROBOT.joint_names)
    assert len(world.joints.velocity) == len(world.joints.effort) == ROBOT.num_joints
    rates = []
    for _ in range(5):
        world.stamps.clear()
        time.sleep(1.0)
        stamps = np.array(world.stamps)
        assert (np.diff(stamps) > 0.0).all()
        rates.append((len(stamps) - 1) / (stamps[-1] - stamps[0]))
    # the median: another process may hold the simulation up for a moment
    assert np.median(rates) == pytest.approx(100.0, rel=0.1)
    assert world.imu.header.frame_id == "imu_link"
    assert world.imu.orientation.w == pytest.approx(1.0, abs=0.01)
    assert world.imu.linear_acceleration.z == pytest.approx(9.81, abs=0.5)
    assert (world.base.header.frame_id, world.base.child_frame_id) == ("odom", "base_link")
    assert world.height == pytest.approx(0.3, abs=0.03)


def test_trajectory_moves_joints_by_name_and_holds_its_last_point(world):
    goal = ROBOT.default_position + np.tile([0.0, 0.15, -0.3], 4)
    mixed = list(reversed(range(ROBOT.num_joints)))
    points = np.linspace(ROBOT.default_position, goal, 6)[1:, mixed]
    world.trajectory.publish(trajectory_message([ROBOT.joint_names[i] for i in mixed], points, 0.1))
    wait_until(lambda: np.abs(world.position() - goal).max() < 0.25, 3.0, "the joints do not follow")
    time.sleep(1.0)
    held = world.position()
    assert np.abs(held - goal).max() < 0.25
    assert np.abs(held - ROBOT.default_position)[2::3].min() > 0.1
    time.sleep(0.5)
    assert np.abs(world.position() - held).max() < 0.02


def test_forward_command_jumps(world):
    goal = ROBOT.default_position + np.tile([0.0, 0.15, -0.3], 4)
    world.forward.publish(position_message(goal))
    wait_until(lambda: np.abs(world.position() - goal).max() < 0.25, 2.0, "the joints do not follow")


def _bad_trajectories():
    names, default = list(ROBOT.joint_names), np.tile(ROBOT.default_position + 0.3, (2, 1))
    yield "unknown joint tail", trajectory_message([*names[:-1], "tail"], default, 0.1)
    yield "missing joint RR_calf_joint", trajectory_message(names[:-1], default[:, :-1], 0.1)
    yield "given twice: FL_hip_joint", trajectory_message([*names, "FL_hip_joint"], default, 0.1)
    yield "point 0 has 11 positions", trajectory_message(names, default[:, :-1], 0.1)
    bad = default.copy()
    bad[1, 3] = math.nan
    yield "FR_hip_joint is nan", trajectory_message(names, bad, 0.1)
    yield "time_from_start", trajectory_message(names, default, 0.0)
    yield "no points", trajectory_message(names, default[:0], 0.1)


@pytest.mark.parametrize(("text", "message"), list(_bad_trajectories()), ids=lambda value: str(value)[:24])
def test_bad_trajectory_is_refused_and_the_robot_held(world, text, message):
    before = world.position()
    world.trajectory.publish(message)
    world.process.wait_for_log(text, 5.0)
    time.sleep(0.5)
    assert np.abs(world.position() - before).max() < 0.02
    assert world.height > 0.25


@pytest.mark.parametrize("values", [[0.0] * 11, [0.3] * 11 + [math.inf]], ids=["length", "infinite"])
def test_bad_forward_command_is_refused_and_the_robot_held(world, values):
    before = world.position()
    world.forward.publish(Float64MultiArray(data=values))
    world.process.wait_for_log("11 values, 12 are needed" if len(values) == 11 else "is inf", 5.0)
    time.sleep(0.5)
    assert np.abs(world.position() - before).max() < 0.02


def test_push_moves_the_robot_and_it_stays_up(world):
    answer = world.domain.call("mujoco_sim/push", Trigger)
    assert answer.success and "m/s" in answer.message
    time.sleep(1.0)
    assert world.height > 0.25


def test_robot_stands_when_commands_stop_in_mid_stride():
    gait = TrotGait(ROBOT)
    with domain() as own:
        own.start(SIM, {"seed": 3})
        watch = Watch(own.node)
        watch.ready()
        fastest, start = 0.0, time.monotonic()
        for tick in range(130):
            targets = gait.targets(np.array([0.4, 0.0, 0.0]), (tick * 0.04) % 1.0)
            watch.trajectory.publish(trajectory_message(ROBOT.joint_names, targets[None], 0.02))
            time.sleep(max(0.0, start + (tick + 1) * 0.02 - time.monotonic()))
            fastest = max(fastest, watch.speed)
        assert fastest > 0.2
        time.sleep(2.0)
        assert watch.speed < 0.03
        assert watch.height > 0.25
        wait_until(lambda: "no commands" in watch.diagnostics.status[0].message, 3.0)


def test_simulated_time():
    with domain() as own:
        process = own.start(SIM, {"publish_clock": True, "real_time_factor": 3.0})
        watch, clock = Watch(own.node), []
        own.node.create_subscription(Clock, "/clock", lambda message: clock.append(message.clock), qos.CLOCK)
        watch.ready()
        wait_until(lambda: len(clock) > 10, 5.0, "no clock")
        first, start = to_seconds(clock[-1]), time.monotonic()
        time.sleep(1.5)
        factor = (to_seconds(clock[-1]) - first) / (time.monotonic() - start)
        assert factor == pytest.approx(3.0, rel=0.25)
        assert watch.stamps[-1] == pytest.approx(to_seconds(clock[-1]), abs=0.2)
        assert process.stop() == 0


def test_under_lock_step_the_clock_waits_for_slow_answers_and_not_for_a_dead_controller():
    parameters = {"lock_step": True, "publish_clock": True, "sensor_rate": 50.0, "sensor_rat": 9.0}
    with domain() as own:
        process = own.start(SIM, parameters)
        watch, clock, alive = Watch(own.node), [], [True]
        own.node.create_subscription(Clock, "/clock", lambda message: clock.append(message.clock), qos.CLOCK)
        watch.ready()

        def answer(message: JointState) -> None:
            time.sleep(0.06)  # three control periods
            if alive[0] and to_seconds(message.header.stamp) > answered[-1]:
                answered.append(to_seconds(message.header.stamp))
                stand = np.tile(ROBOT.default_position, (3, 1))
                watch.trajectory.publish(trajectory_message(ROBOT.joint_names, stand, 0.02))

        answered = [0.0]
        own.node.create_subscription(JointState, "joint_states", answer, qos.SENSOR_OUTPUT)
        wait_until(lambda: len(answered) > 5, 10.0, "no samples")
        answered[:] = answered[-1:]
        start = time.monotonic()
        wait_until(lambda: len(answered) > 20, 10.0, "the clock stands")
        assert np.diff(answered) == pytest.approx(0.02, abs=1e-6), "a sample went by unanswered"
        assert (answered[-1] - answered[0]) / (time.monotonic() - start) < 0.5
        alive[0], end = False, answered[-1]
        wait_until(lambda: to_seconds(clock[-1]) > end + 0.5, 10.0, "the clock waits for ever")
        wait_until(lambda: "no commands" in watch.diagnostics.status[0].message, 5.0)
        process.wait_for_log("sensor_rat has no effect: no such parameter (did you mean 'sensor_rate'?)", 1.0)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"lock_step": True}, "lock_step needs publish_clock"),
        ({"robot": "quadrupd"}, "did you mean 'quadruped'"),
        ({"sensor_rate": 70.0}, "multiple of 50 Hz"),
        ({"timeout_action": "fly"}, "auto, hold, stand"),
        ({"real_time_factor": 2.0}, "needs publish_clock"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_parameters_end_with_one_sentence(parameters, text):
    with domain() as own:
        process = own.start(SIM, parameters)
        assert process.wait(20.0) == 2
        assert text in process.log
        assert "Traceback" not in process.log
