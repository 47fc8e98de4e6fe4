"""A robot made of publishers whose faults are switched."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from processes import Domain, Process, wait_until
from random_agent import ROBOT
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_core.robots import SOURCES
from tdmpc2_ros import qos
from tdmpc2_ros.messages import source_topics

PLANNER = "tdmpc2_ros.planner.node"
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}


class FakeRobot:
    """Publishes the robot's sensors at 100 Hz, at rest; records commands and when they came, s.

    Switches: `joints`, `imu`: False stops the topic; `missing`: a joint left out; `nan`: rates of the IMU;
    `spoil`: called with every JointState before it goes out.
    """

    def __init__(self, own: Domain) -> None:
        self.own, self.joints, self.imu, self.nan, self.missing = own, True, True, False, ""
        self.spoil: Callable[[JointState], None] = lambda message: None
        self.position = np.array(ROBOT.default_position) + 0.05
        self.trajectories: list[tuple[float, JointTrajectory]] = []
        self.positions: list[tuple[float, Float64MultiArray]] = []
        self.diagnostics: DiagnosticArray | None = None
        node = own.node
        self._sensors = {
            row.source: (
                node.create_publisher(row.message, row.topic, qos.SENSOR_OUTPUT),
                row.encoder(ROBOT),
            )
            for row in source_topics(ROBOT)
            if row.encoder
        }
        self.cmd_vel = node.create_publisher(Twist, "cmd_vel", qos.COMMAND)
        for kind, topic, into in (
            (JointTrajectory, "joint_trajectory_controller/joint_trajectory", self.trajectories),
            (Float64MultiArray, "forward_position_controller/commands", self.positions),
        ):
            node.create_subscription(
                kind, topic, lambda m, into=into: into.append((time.monotonic(), m)), qos.STATUS
            )
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.STATUS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        if message.status[0].name == "planner: control":
            self.diagnostics = message

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += 0.01
            now = self.own.node.get_clock().now().nanoseconds * 1e-9
            for source, (publisher, encode) in self._sensors.items():
                if getattr(self, source, True):
                    message = encode(now, self._reading(source))
                    if source == "joints":
                        self._spoil_joints(message)
                    publisher.publish(message)

    def _reading(self, source: str) -> dict[str, np.ndarray]:
        """What a robot at rest measures."""
        fields = SOURCES[source].fields
        reading = {field.name: np.zeros(len(field.entry_names(ROBOT))) for field in fields}
        if source == "joints":
            reading |= {"position": self.position, "effort": np.zeros(ROBOT.num_joints)}
        elif source == "imu":
            rate = np.array([0.0, 0.0, math.nan if self.nan else 0.0])
            reading |= {"orientation": np.array([0.0, 0.0, 0.0, 1.0]), "angular_velocity": rate}
            reading |= {"acceleration": np.array([0.0, 0.0, 9.81])}
        return reading

    def _spoil_joints(self, message: JointState) -> None:
        if self.missing:
            left_out = message.name.index(self.missing)
            for values in (message.name, message.position, message.velocity, message.effort):
                del values[left_out]
        self.spoil(message)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(1.0)

    # ---- asking the planner ----

    def change(self, transition: str, timeout: float = 30.0) -> bool:
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[transition]))
        return self.own.call("/planner/change_state", ChangeState, request, timeout).success

    def state(self) -> str:
        return self.own.call("/planner/get_state", GetState).current_state.label

    def trigger(self, service: str) -> bool:
        return self.own.call(f"/planner/{service}", Trigger).success

    def status(self) -> tuple[str, dict[str, str]]:
        """Summary and values of the newest diagnostics."""
        wait_until(lambda: self.diagnostics is not None, 5.0, "no diagnostics")
        status = self.diagnostics.status[0]
        return status.message, {v.key: v.value for v in status.values}

    # ---- looking at commands ----

    def wait_for_commands(self, count: int, timeout: float = 30.0, process: Process | None = None) -> None:
        """Until `count` more trajectories came."""
        goal = len(self.trajectories) + count
        say = f"fewer than {count} commands"
        wait_until(
            lambda: len(self.trajectories) >= goal,
            timeout,
            lambda: f"{say}\n{process.log if process else ''}",
        )

    def quiet(self, seconds: float = 0.4) -> bool:
        """True when no trajectory comes for `seconds`."""
        before = len(self.trajectories)
        time.sleep(seconds)
        return len(self.trajectories) == before

    def is_hold(self, message: JointTrajectory) -> bool:
        """True when the trajectory ends at the measured position."""
        return bool(np.allclose(message.points[-1].positions, self.position, atol=1e-9))
