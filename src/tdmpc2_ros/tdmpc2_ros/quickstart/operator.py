"""The operator of a quickstart run: a node that starts the planner, gives commands and watches the robot."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, Twist
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.messages import BaseState, base_state, goal_values, to_seconds
from tdmpc2_core.scoring.walking import FallCounter, Motion
from tdmpc2_ros import qos
from tdmpc2_ros.messages import pose_message, twist_message
from tdmpc2_ros.teleop.steering import COMPONENTS

_LIVE_PERIOD = 0.05  # s between the samples of odometry that the live line is made of
_FILM_PERIOD = 0.02  # s between the joint states that are kept for the film

_TOOL = "simulator/tool_pose"
_ODOMETRY = "simulator/floating_base_state"


class Operator(Node):
    """Callbacks collect, mostly undecoded to leave the processor to others; `spin` serves them."""

    def __init__(
        self, embodiment: Embodiment, idle: Callable[[], None], namespace: str = "", simulated: bool = False
    ) -> None:
        clock = ["--ros-args", "-r", f"/clock:=/{namespace}/clock"] if namespace else []
        overrides = [Parameter("use_sim_time", value=simulated)]
        super().__init__("quickstart", namespace=namespace, cli_args=clock, parameter_overrides=overrides)
        self.embodiment, self._idle = embodiment, idle
        self.falls = FallCounter(embodiment)
        self.latency: dict[str, str] = {}
        self.simulation: dict[str, str] = {}  # the newest diagnostics of the simulation
        self.commands = 0  # received from the planner
        self._odometry: list[bytes] = []
        self._live_due = self._film_due = 0.0  # s of the node clock
        self._newest: BaseState | None = None  # at the live rate
        self._joints: list[bytes] = []
        self._joint_count = 0
        self.recording = False
        self.walked = 0.0  # m along the commanded direction, as the score counts it
        self._tool: list[bytes] = []
        self._nodes = f"{namespace}/" if namespace else ""
        self._sent: tuple[float, ...] = ()
        self._cmd_vel = self._goal = None
        if embodiment.pose_command:
            self._goal = self.create_publisher(PoseStamped, "goal_pose", qos.COMMAND)
            self.create_subscription(PoseStamped, _TOOL, self._tool.append, 20, raw=True)
        else:
            self._cmd_vel = self.create_publisher(Twist, "cmd_vel", qos.COMMAND)
        topic = "joint_trajectory_controller/joint_trajectory"
        self.create_subscription(JointTrajectory, topic, self._on_command, qos.COMMAND, raw=True)
        self.create_subscription(Odometry, _ODOMETRY, self._on_odometry, 20, raw=True)
        self.create_subscription(JointState, "joint_states", self._on_joints, 20, raw=True)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.STATUS)
        self._change = self.create_client(ChangeState, "planner/change_state")
        self._reset = self.create_client(Trigger, "mujoco_sim/reset")
        self._spinner = rclpy.executors.SingleThreadedExecutor()
        self._spinner.add_node(self)

    # ---- callbacks ----
    def _on_command(self, _data: bytes) -> None:
        self.commands += 1

    def _on_joints(self, data: bytes) -> None:
        self._joint_count += 1
        now = self.now()
        if self.recording and now >= self._film_due:
            self._film_due = now + 0.9 * _FILM_PERIOD
            self._joints.append(data)

    def _on_odometry(self, data: bytes) -> None:
        self._odometry.append(data)
        now = self.now()
        if now < self._live_due and self._newest:
            return
        self._live_due = now + 0.9 * _LIVE_PERIOD
        before, base = self._newest, _base(data)
        self._newest = base
        if self.recording:
            self.falls.add(base.position[2], np.array(base.orientation))
            asked = math.hypot(*self._sent[:2])
            if before and asked and self._cmd_vel is not None:
                forward = base.linear[0] * self._sent[0] + base.linear[1] * self._sent[1]
                self.walked += forward / asked * (base.stamp - before.stamp)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(self._nodes + "mujoco_sim"):
                self.simulation = {item.key: item.value for item in status.values}
            if status.name.startswith(self._nodes + "planner"):
                self.latency = {
                    item.key: item.value
                    for item in status.values
                    if item.key.startswith("latency") and item.value != "nan"  # none was measured yet
                }

    # ---- what the run does ----
    def now(self) -> float:
        """The node clock, s."""
        return self.get_clock().now().nanoseconds * 1e-9

    def spin(self, seconds: float) -> None:
        """Serve callbacks for `seconds`; `idle` is called now and then and may raise."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0.0:
            self._spinner.spin_once(timeout_sec=min(left, 0.1))
        self._idle()

    def wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Serve callbacks until the condition holds; False after `timeout` s."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                return False
            self.spin(0.05)
        return True

    def transition(self, number: int, timeout: float) -> bool | None:
        """Ask the planner for a lifecycle transition; whether it succeeded, None when there is no answer."""
        end = time.monotonic() + timeout
        if not self.wait(self._change.service_is_ready, timeout):
            return None
        future = self._change.call_async(ChangeState.Request(transition=Transition(id=number)))
        if not self.wait(future.done, max(0.1, end - time.monotonic())):
            return None
        return future.result().success

    def command(self, values: tuple[float, ...]) -> None:
        """Publish cmd_vel: x m/s, y m/s, yaw rate rad/s; or goal_pose where it changed: m, xyzw."""
        if self._cmd_vel is not None:
            self._cmd_vel.publish(twist_message(values, COMPONENTS))
            self._sent = values
        elif self._goal is not None and values != self._sent and self._goal.get_subscription_count():
            self._goal.publish(pose_message(self.now(), self.embodiment.base_frame, values))
            self._sent = values

    def reset(self) -> None:
        """Have the simulation put the robot back to its start."""
        self._reset.call_async(Trigger.Request())

    def ready(self) -> bool:
        """Whether the simulation sends its state."""
        return self._newest is not None and self._joint_count > 0

    def watched(self) -> bool:
        """Whether somebody else, such as the node `view`, listens to the simulation's odometry."""
        return self.count_subscribers(_ODOMETRY) > 1

    def discovery(self) -> str:
        """Why nothing comes of a simulation that runs: empty where DDS has found its topics."""
        if self.count_publishers("joint_states"):
            return ""
        return "DDS finds no publisher of joint_states; check firewall, RMW_IMPLEMENTATION, DDS profiles"

    @property
    def speed(self) -> float:
        """Over ground, m/s, of late."""
        return math.hypot(*self._newest.linear[:2]) if self._newest else 0.0

    def close(self) -> None:
        """Leave the ROS graph; what was collected stays."""
        self._spinner.shutdown(timeout_sec=1.0)
        self.destroy_node()

    # ---- what came of it ----
    def motion(self, start: float) -> Motion:
        """Ground truth since the node's beginning, with times relative to `start`, s of the node clock."""
        states = [_base(data) for data in self._odometry]
        return Motion(
            time=np.array([state.stamp for state in states]) - start,
            position=np.array([state.position for state in states]),
            orientation=np.array([state.orientation for state in states]),
            linear=np.array([state.linear for state in states]),
            angular=np.array([state.angular for state in states]),
        )

    def tool(self, start: float, newest: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Times (T,), s since `start`, and true poses (T, 7) of an arm's tool: m, xyzw in the base frame."""
        messages = [deserialize_message(data, PoseStamped) for data in self._tool[-1 if newest else 0 :]]
        times = np.array([to_seconds(message.header.stamp) - start for message in messages])
        poses = [goal_values(message, self.embodiment.base_frame) for message in messages]
        return times, np.array(poses).reshape(-1, 7)

    def joints(self, start: float) -> tuple[np.ndarray, np.ndarray]:
        """Times (T,), s since `start`, and joint positions (T, J), rad, in embodiment order."""
        messages = [deserialize_message(data, JointState) for data in self._joints]
        times = np.array([to_seconds(message.header.stamp) - start for message in messages])
        rows = [dict(zip(message.name, message.position, strict=True)) for message in messages]
        names = self.embodiment.joint_names
        return times, np.array([[row[name] for name in names] for row in rows]).reshape(len(rows), len(names))


def _base(data: bytes) -> BaseState:
    return base_state(deserialize_message(data, Odometry))
