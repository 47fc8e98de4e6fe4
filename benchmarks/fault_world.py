"""The world of the fault suite: a walking quadruped as processes over DDS, and what is seen of it."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_core.errors import UserError
from tdmpc2_core.files import shipped_bundle
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.faults import read_request
from tdmpc2_core.robots.rotations import tilt
from tdmpc2_core.robots.trace import DecisionTrace
from tdmpc2_ros import qos
from tdmpc2_ros.fault.send import message_of
from tdmpc2_ros.quickstart.processes import PRIORITY, Child, Children

ROBOT = Embodiment.load("quadruped")
TOPIC = "joint_trajectory_controller/joint_trajectory"
_GROWN = 4.0  # s after which a planner may be silent for a tenth of a second only
_JITTER = 0.002  # s by which the times of two commands are known
_SHOWN = 3  # broken limits that are printed, of one fault
_ANSWER = 20.0  # s to wait for anything on a busy machine
_MODULES = {
    "simulator": "tdmpc2_ros.simulator.node",
    "relay": "tdmpc2_ros.fault",
    "supervisor": "tdmpc2_ros.supervisor.node",
    "planner": "tdmpc2_ros.planner.node",
}


class Limits:
    """Counts published commands that break the embodiment's limits of position and rate."""

    def __init__(self) -> None:
        spec = ROBOT.safety
        self._low, self._high = ROBOT.lower + spec.position_margin, ROBOT.upper - spec.position_margin
        self._rate, self._period = spec.max_target_rate, ROBOT.control_period
        self._before: tuple[float, np.ndarray] | None = None
        self.commands = self.broken = 0

    def forget(self) -> None:
        """Judge the next command without the one before."""
        self._before = None

    def see(self, at: float, message: JointTrajectory) -> None:
        """A command that came at `at`, s of a steady clock."""
        rows = np.array([point.positions for point in message.points])
        step, allowed = np.abs(np.diff(rows, axis=0)).max(initial=0.0), self._rate * self._period
        outside = max((self._low - rows).max(), (rows - self._high).max())
        found = [f"{outside:.3g} rad beyond a limit"] if outside > 1e-9 else []
        found += [f"{step:.3g} rad in a period"] if step > allowed + 1e-9 else []
        if self._before is not None:
            then, first = self._before
            jump, most = np.abs(rows[0] - first).max(), self._rate * max(self._period, at - then + _JITTER)
            found += [f"{jump:.3g} rad after {at - then:.3g} s"] if jump > most + 1e-9 else []
        found += ["not finite"] if not np.isfinite(rows).all() else []
        self._before = at, rows[0]
        self.commands += 1
        self.broken += bool(found)
        if found and self.broken <= _SHOWN:
            print(f"  over a limit: {', '.join(found)}", flush=True)


class World:
    """Simulation, relay of the velocity command, supervisor and planner, in the domain of ROS_DOMAIN_ID.

    Everything that comes is noted with the system's time.
    """

    def __init__(self, folder: Path, simulated: bool = False) -> None:
        with contextlib.suppress(OSError, AttributeError):  # what is late to be seen looks late
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
        self.children, self.nodes = Children(folder), dict[str, Child]()
        self._simulated = simulated
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self.node = rclpy.create_node("suite", context=self.context)
        self._planner_at, self._helped = math.inf, ""
        self.limits, self.decisions = Limits(), list[tuple[float, DecisionTrace]]()
        self.said, self.states = list[tuple[float, str, str]](), list[tuple[float, str]]()
        self.diagnostics: dict[str, str] = {}
        self.upright, self.speed, self._wanted = 1.0, 0.0, 0.0
        self._listen()
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self.children.__enter__()
        for name in _MODULES:
            self.start(name)
        for node in ("mujoco_sim", "fault"):  # found before they are needed
            self.fault("imu", "ok", node=node)

    def _listen(self) -> None:
        node = self.node
        node.create_subscription(JointTrajectory, TOPIC, self._on_command, qos.STATUS)
        node.create_subscription(Float64MultiArray, "planner/decision", self._on_decision, qos.STATUS)
        node.create_subscription(String, "supervisor/state", self._on_state, qos.STATUS)
        node.create_subscription(Odometry, "simulator/floating_base_state", self._on_base, qos.SENSOR_INPUT)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.STATUS)
        node.create_subscription(Log, "/rosout", self._on_log, qos.STATUS)
        self._cmd_vel = node.create_publisher(Twist, "operator/cmd_vel", qos.COMMAND)
        node.create_timer(0.05, self._command)
        self._clients: dict[str, Any] = {}

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException, ShutdownException):
            self._executor.spin()

    # ---- processes ----
    def start(self, name: str) -> None:
        """Start a node, or start it again after its end."""
        parameters: dict[str, Any] = {"use_sim_time": True} if self._simulated else {}
        remap = {}
        if name == "simulator":
            parameters |= {"command_timeout": 60.0, "timeout_action": "hold"}
            parameters |= {"publish_clock": True} if self._simulated else {}
            parameters.pop("use_sim_time", None)
        elif name == "relay":
            remap = {"cmd_vel": "operator/cmd_vel", "fault/cmd_vel": "cmd_vel"}
        elif name == "planner":
            parameters |= {"autostart": True, "supervisor": True, "model": str(shipped_bundle(ROBOT.name))}
        if name in self.nodes:
            self.children.stop(self.nodes[name])
        urgent = name != "relay"
        if name == "planner":
            self._planner_at = math.inf
        self.nodes[name] = self.children.start(name, _MODULES[name], parameters, urgent=urgent, remap=remap)

    def alive(self, name: str) -> bool:
        """Whether a node's process lives."""
        return self.nodes[name].process.poll() is None

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a node's process a signal."""
        self.nodes[name].process.send_signal(number)

    def close(self) -> None:
        """End everything that was started."""
        for name, child in self.nodes.items():
            if child.process.poll() is None:
                self.send(name, signal.SIGCONT)
        self.children.stop(*self.children.all)
        self._executor.shutdown(5.0)
        self._thread.join(5.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    # ---- what is seen ----
    def _on_command(self, message: JointTrajectory) -> None:
        self.limits.see(time.monotonic(), message)

    def _on_decision(self, message: Float64MultiArray) -> None:
        self._planner_at = min(self._planner_at, time.monotonic())
        sizes = [(part.label, part.size) for part in message.layout.dim]
        self.decisions.append((time.time(), DecisionTrace.of_rows(sizes, message.data)))

    def _on_state(self, message: String) -> None:
        if not self.states or self.states[-1][1] != message.data:
            self.states.append((time.time(), message.data))

    def _on_base(self, message: Odometry) -> None:
        q, self.speed = message.pose.pose.orientation, message.twist.twist.linear.x
        self.upright = math.cos(float(tilt([q.x, q.y, q.z, q.w])))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics |= {status.name: status.message for status in message.status}

    def _on_log(self, message: Log) -> None:
        self.said.append((time.time(), message.name, message.msg))

    def _command(self) -> None:
        message = Twist()
        message.linear.x = self._wanted
        self._cmd_vel.publish(message)

    @property
    def state(self) -> str:
        """Why the supervisor stops the robot; empty where it does not."""
        return self.states[-1][1] if self.states else "not heard of"

    @property
    def mode(self) -> str:
        """What the planner's newest decision came to; empty where none came for half a second."""
        fresh = self.decisions and time.time() - self.decisions[-1][0] < 0.5
        return self.decisions[-1][1].mode_name if fresh else ""

    # ---- what is asked ----
    def call(self, service: str, kind: type, request: Any = None) -> Any:
        """A service's response; None where none comes."""
        client = self._clients.get(service)
        if client is None:
            client = self._clients[service] = self.node.create_client(kind, service)
        if not client.wait_for_service(_ANSWER):
            return None
        future = client.call_async(kind.Request() if request is None else request)
        return future.result() if wait(future.done, 3.0) else None

    def fault(self, component: str, fault: str, size: float | None = None, node: str = "mujoco_sim") -> None:
        """Inject one through the service of a node. Raises UserError where it is not taken."""
        request = message_of(read_request(component, fault, size))
        answer = self.call(f"/{node}/fault", SetParametersAtomically, request)
        if answer is None or not answer.result.successful:
            raise UserError(f"{component} {fault}: {answer.result.reason if answer else 'no answer'}")

    def walk(self, speed: float = 0.4) -> str:
        """How the robot came to walk, by what an operator may do: a command of zero alone, the supervisor's
        release, the planner activated anew, the robot set up again; empty where it does not."""
        self._wanted, self._helped = 0.0, "command of zero"
        if self.upright < 0.8:
            self._helped = "set up again"
            self.call("/mujoco_sim/reset", Trigger)
            time.sleep(0.5)
            self.limits.forget()  # somebody moved the robot
        if not wait(self._released, 8.0, 0.2):
            self._activate()
            if not wait(self._released, 20.0, 0.2):
                return ""
        time.sleep(0.5)  # a command of zero is heard
        self._wanted = speed
        wait(lambda: time.monotonic() - self._planner_at > _GROWN, _GROWN + 1.0)
        if not wait(lambda: self._walks(speed), 3.0):
            self._activate()
        return self._helped if wait(lambda: self._walks(speed), 8.0) else ""

    def _walks(self, speed: float) -> bool:
        return self.mode == "plan" and self.speed > 0.4 * speed

    def _released(self) -> bool:
        if not self.mode or not self.state:
            return self.mode != ""
        self._helped = "release" if self._helped == "command of zero" else self._helped
        self.call("/supervisor/release", Trigger)
        time.sleep(0.2)
        return not self.state

    def _activate(self) -> None:
        """The planner, activated anew, forgets what its sensors said before."""
        self._helped, wanted, self._wanted = "activated anew", self._wanted, 0.0
        for number in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=number))
            self.call("/planner/change_state", ChangeState, request)
        time.sleep(0.5)
        self._wanted = wanted


def wait(condition: Callable[[], Any], seconds: float, pause: float = 0.01) -> bool:
    """Whether the condition came to hold within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True
