"""Supervisor node `supervisor`: stops the robot where its planner dies, hangs, or is one of two.

    subscribes  planner/heartbeat, the command topic, and the robot's sensors
    publishes   the command topic while it intervenes; supervisor/state ten times a second, empty while it
                only watches, else why it intervenes; /diagnostics
    services    ~/estop, ~/release (std_srvs/Trigger)

What it does when is in `tdmpc2_core.control.events`. It loads no torch, and callbacks only note what came;
the main thread looks at it every 5 ms and, on Linux, learns of the end of the planner's process at once.
"""

from __future__ import annotations

import math
import os
import select
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray, Int64MultiArray, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_core.config import setting
from tdmpc2_core.control.balance import Balance, NumpyPrior
from tdmpc2_core.control.supervision import BLOCKED, IDLE, Supervision, SupervisionOptions
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment, Snapshot
from tdmpc2_core.robots.messages import prefixed
from tdmpc2_core.robots.rotations import tilt
from tdmpc2_ros import qos
from tdmpc2_ros.messages import diagnostic_message, read_heartbeat
from tdmpc2_ros.naming import SUPERVISOR
from tdmpc2_ros.parameters import Parameters
from tdmpc2_ros.process import Stop, run_node, spin_in_background
from tdmpc2_ros.robot_io.commands import CommandError, read_forward_command, read_trajectory
from tdmpc2_ros.robot_io.output import CommandOutput
from tdmpc2_ros.robot_io.sensors import SensorInput

_LOOK = 0.005  # s between looks
_STOOD = 0.05  # s between two looks after which this process stood still, and heard nothing
_TELL = 0.1  # s between messages on supervisor/state


@dataclass(frozen=True)
class SupervisorParameters:
    """All of them are read-only: they are given at start."""

    robot: str = setting("quadruped", why="embodiment, a shipped name or a path")
    prefix: str = setting("", why="before every joint and frame name in messages, such as left_")
    output: Literal["joint_trajectory", "forward_position"] = setting(
        "joint_trajectory", why="the controller that the planner commands"
    )
    cmd_vel_stamped: bool = setting(False, why="cmd_vel is a TwistStamped, not a Twist")
    model: str = setting(
        "", why="bundle whose policy prior balances a robot that no pose holds (safety.balance); empty: none"
    )
    silence: float = setting(
        SupervisionOptions().silence,
        unit="s",
        low=0.02,
        high=5.0,
        why="without a planner's heartbeat until the robot is stopped; the end of its process needs none",
    )


class PlannerProcess:
    """Whether the process of the planner has ended; only where it runs on this machine, on Linux."""

    def __init__(self) -> None:
        self.pid, self._descriptor = 0, -1

    @property
    def alive(self) -> bool:
        """Whether one is followed, and its end can be told."""
        return self._descriptor >= 0

    def follow(self, pid: int) -> None:
        """This is it."""
        if pid == self.pid:
            return
        self.close()
        self.pid = pid
        try:
            self._descriptor = os.pidfd_open(pid)
        except (OSError, AttributeError):  # on another machine, or another system
            self._descriptor = -1

    def ended(self) -> bool:
        """Whether it has, told once."""
        if self._descriptor < 0 or not select.select([self._descriptor], [], [], 0.0)[0]:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Follow it no longer."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self.pid, self._descriptor = 0, -1


class SupervisorNode(Node):
    """The node. Raises UserError for wrong parameters."""

    def __init__(self) -> None:
        super().__init__(SUPERVISOR)
        values = Parameters(self, SupervisorParameters).values
        robot = Embodiment.load(values.robot)
        self.robot = prefixed(robot, values.prefix)
        self._lock = threading.Lock()  # of `supervision`: callbacks note, the main thread decides
        self._process, self._told, self._reason = PlannerProcess(), 0.0, ""
        self._activated = 0  # when the planner was, as its heartbeat says
        self._looked: tuple[float, float] | None = None  # when, on the steady clock and on `_time`
        self._sensors = SensorInput(self, self.robot, values.cmd_vel_stamped)
        self._balance = self._balanced_by(values.model, robot)
        self.supervision = Supervision(self.robot, SupervisionOptions(values.silence), self._balance)
        # silence counts in the time in which the robot lives: a simulation may wait for its planner
        simulated = self.get_parameter("use_sim_time").value
        self._time = self._sensors.now if simulated else time.monotonic
        self._output = CommandOutput(self, values.output, self.robot)
        self._sent = self._heard = 0.0  # when the newest command of our own went out, another's came in
        self._used = -math.inf  # stamp of what was measured by then
        kind: type = JointTrajectory if values.output == "joint_trajectory" else Float64MultiArray
        self.create_subscription(kind, self._output.topic, self._on_command, qos.COMMAND)
        self.create_subscription(Int64MultiArray, "planner/heartbeat", self._on_heartbeat, qos.SENSOR_INPUT)
        self._state = self.create_publisher(String, "supervisor/state", qos.STATUS)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STATUS)
        self.create_service(Trigger, "~/estop", self._on_estop)
        self.create_service(Trigger, "~/release", self._on_release)
        self.create_timer(1.0, self._report)
        self.get_logger().info(f"{self.robot.name}: watching; silence of {values.silence:g} s counts")

    def _balanced_by(self, model: str, robot: Embodiment) -> Balance | None:
        if not robot.safety.balance:
            return None
        problem = "no model is given"
        if model:
            try:
                prior = NumpyPrior(Path(model))
                prior.check_robot(robot)
                return Balance(self.robot, prior, self._sensors.state, self._sensors.now)
            except UserError as error:
                problem = str(error)
        self.get_logger().warning(f"{problem}: {robot.name} goes to its safe posture and is not balanced")
        return None

    # ---- callbacks ----
    def _on_heartbeat(self, message: Int64MultiArray) -> None:
        heard = read_heartbeat(message)
        if heard is None:
            return
        pid, state, activated, clock = heard
        with self._lock:
            if self._process.alive and pid != self._process.pid and state in (IDLE, BLOCKED):
                return  # a second planner, which waits
            if activated != self._activated:  # by somebody who has looked: sensors count anew
                self._activated = activated
                self._sensors.clear()
            self._process.follow(pid)
            self.supervision.heartbeat(self._time(), state)
            if self._balance is not None and not self._reason:
                self._balance.clock(clock)

    def _on_command(self, message: JointTrajectory | Float64MultiArray) -> None:
        now = self._time()
        if self._reason or now - self._sent < self.robot.control_period:
            return  # our own, or what comes beside it; a busy machine brings it late
        try:
            if isinstance(message, JointTrajectory):
                targets = read_trajectory(message, self.robot, self._sensors.now()).points[0]
            else:
                targets = read_forward_command(message, self.robot)
        except CommandError:
            return  # the controller refuses it, too
        with self._lock:
            self._heard, self._used = now, self._newest(self._sensors.state.snapshot())
            self.supervision.command(now, targets)
            if self._balance is not None:
                self._balance.follow(targets)

    def _on_estop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            self.supervision.estop()
        response.success, response.message = True, "stopping; supervisor/release ends it"
        return response

    def _on_release(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            problem = self.supervision.release(self._time())
        response.success, response.message = not problem, problem or "the planner may command again"
        return response

    def _report(self) -> None:
        level = DiagnosticStatus.ERROR if self._reason else DiagnosticStatus.OK
        name = f"{self.get_fully_qualified_name().lstrip('/')}: supervision"
        stamp, text = self.get_clock().now().to_msg(), self._reason or "watching"
        self._diagnostics.publish(diagnostic_message(stamp, name, self.robot.name, level, text, {}))

    # ---- the main thread ----
    def look(self) -> None:
        """Take up what came, and intervene where it must be."""
        now, snapshot = self._time(), self._sensors.state.snapshot()
        steady, before = time.monotonic(), self._looked
        self._looked = steady, now
        with self._lock:
            if before is not None and steady - before[0] > _STOOD:
                self.supervision.stood_still(max(0.0, now - before[1]))
            if self._process.ended():
                self.supervision.died()
            if snapshot.joints is not None:
                self.supervision.joints(snapshot.joints.position, snapshot.joints.velocity)
            if snapshot.imu is not None:
                self.supervision.tilt(now, float(tilt(snapshot.imu.orientation)))
            event, targets = self.supervision.decide(now), None
            if event is not None and self._due(now, snapshot):
                targets = self.supervision.targets(now)
        reason = "" if event is None else f"{event.name}: {event.trigger}"
        if targets is not None:
            self._sent, self._used = now, self._newest(snapshot)
            self._output.publish(targets, still=True)
        if reason != self._reason or time.monotonic() - self._told >= _TELL:
            self._tell(reason)

    def _due(self, now: float, snapshot: Snapshot) -> bool:
        """Whether a period has gone by, and something new was measured since the last command by anybody."""
        period = self.robot.control_period
        if now - self._sent < period - 0.5 * _LOOK:
            return False
        return self._newest(snapshot) > self._used or now - max(self._sent, self._heard) >= 1.5 * period

    @staticmethod
    def _newest(snapshot: Snapshot) -> float:
        return -math.inf if snapshot.joints is None else snapshot.joints.stamp

    def _tell(self, reason: str) -> None:
        self._told, before, self._reason = time.monotonic(), self._reason, reason
        self._state.publish(String(data=reason))
        if reason != before:
            if reason:
                self.get_logger().error(f"stopping the robot: {reason}; {self.get_name()}/release ends it")
            else:
                self.get_logger().info("released: the planner may command")
            self._report()

    def run(self, stop: Stop) -> None:
        """Watch until `stop` is set."""
        with spin_in_background(self):
            while not stop.wait(_LOOK):
                self.look()
        self._process.close()
        self._sensors.destroy()


def main(arguments: list[str] | None = None) -> int:
    """Run the node; 0 after a stop by signal, 2 after a user's mistake."""
    return run_node(SupervisorNode, SupervisorNode.run, arguments)


if __name__ == "__main__":
    sys.exit(main())
