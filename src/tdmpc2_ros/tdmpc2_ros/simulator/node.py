"""Simulation node `mujoco_sim`: a robot in MuJoCo behind the topics of a ros2_control stack.

    publishes   the topics of its sensors in `messages.SOURCE_TOPICS`: joint_states,
                imu_sensor_broadcaster/imu where the robot has one; ground truth in
                simulator/floating_base_state and for an arm simulator/tool_pose, /diagnostics,
                /clock when asked
    subscribes  joint_trajectory_controller/joint_trajectory, forward_position_controller/commands
    services    ~/reset, ~/push (std_srvs/Trigger), ~/fault (rcl_interfaces/SetParametersAtomically)

Callbacks run in the executor's thread and only set the command; physics runs in the main thread. A command
that fails a check is refused with a warning and the one before it stays in force.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rclpy.publisher import Publisher
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_core.config import setting
from tdmpc2_core.envs.robot.realtime import (
    LockStep,
    Pacer,
    RobotOptions,
    SimulatedRobot,
    TimeoutAction,
    Viewer,
)
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.faults import CLOCK
from tdmpc2_core.robots.messages import prefixed
from tdmpc2_ros import qos
from tdmpc2_ros.fault.panel import FaultPanel
from tdmpc2_ros.messages import SOURCE_TOPICS, diagnostic_message, odometry_message, pose_message, to_time
from tdmpc2_ros.parameters import Parameters
from tdmpc2_ros.process import Stop, run_node, spin_in_background
from tdmpc2_ros.robot_io.commands import CommandError, read_forward_command, read_trajectory


@dataclass(frozen=True)
class SimulationParameters:
    """All of them are read-only: they are given at start."""

    robot: str = setting("quadruped", why="shipped robot's name, or path of a folder with embodiment.yaml")
    prefix: str = setting("", why="before every joint and frame name in messages, such as left_")
    sensor_rate: float = setting(
        100.0,
        unit="Hz",
        low=1.0,
        high=1000.0,
        why="joint_states, imu and odometry; a multiple of the robot's control rate",
    )
    publish_clock: bool = setting(False, why="publish /clock and stamp everything with simulated time")
    real_time_factor: float = setting(
        1.0,
        low=0.0,
        high=100.0,
        why="simulated seconds per second, 0 for as fast as possible; other than 1 needs publish_clock",
    )
    lock_step: bool = setting(
        False,
        why="simulated time waits for the answer to each sample, once commands have come; needs "
        "publish_clock and the robot's control rate as sensor_rate",
    )
    sensor_noise: bool = setting(True, why="add the noise of the robot's observation terms to the sensors")
    randomise: bool = setting(False, why="draw friction, mass and gains in the robot's ranges at every reset")
    reset_noise: bool = setting(False, why="start with the robot's reset noise and a random heading")
    seed: int = setting(0, low=0, high=2**31 - 1, why="seed of noise and randomisation")
    command_timeout: float = setting(
        RobotOptions.command_timeout,
        unit="s",
        low=0.02,
        high=60.0,
        why="silence after the end of the last command that leads to timeout_action",
    )
    timeout_action: TimeoutAction = setting(
        "auto",
        why="hold the last position, stand in the default pose, or auto: stand if the robot can fall",
    )
    view: bool = setting(False, why="open MuJoCo's viewer; needs a display")

    def __post_init__(self) -> None:
        if self.real_time_factor != 1.0 and not self.publish_clock:
            raise ValueError(
                "real_time_factor other than 1 needs publish_clock, as stamps must follow the clock"
            )
        if self.lock_step and not self.publish_clock:
            raise ValueError("lock_step needs publish_clock, as the clock must wait too")

    def load_embodiment(self) -> Embodiment:
        """The robot, checked against the sensor rate. Raises UserError."""
        embodiment = Embodiment.load(self.robot)
        steps = self.sensor_rate / embodiment.control_rate
        whole = round(steps) >= 1 and abs(steps - round(steps)) < 1e-6
        if not whole or self.sensor_rate > embodiment.physics_rate:
            raise UserError(
                f"parameters of mujoco_sim: sensor_rate is {self.sensor_rate:g} Hz; for {embodiment.name} "
                f"it must be a multiple of {embodiment.control_rate:g} Hz, "
                f"at most {embodiment.physics_rate:g} Hz"
            )
        if self.lock_step and round(steps) != 1:
            raise UserError(
                f"parameters of mujoco_sim: sensor_rate is {self.sensor_rate:g} Hz; lock_step needs "
                f"{embodiment.name}'s control rate, {embodiment.control_rate:g} Hz: one answer to each sample"
            )
        return embodiment

    @property
    def robot_options(self) -> RobotOptions:
        """The part that the simulated robot needs."""
        return RobotOptions(
            sensor_noise=self.sensor_noise,
            randomise=self.randomise,
            reset_noise=self.reset_noise,
            command_timeout=self.command_timeout,
            timeout_action=self.timeout_action,
        )


_TRAJECTORY = "joint_trajectory_controller/joint_trajectory"
_FORWARD = "forward_position_controller/commands"
_WARN_PERIOD = 1.0  # s between two warnings of the same text
_LAG = 0.6  # control periods from sample to answer under lock_step: the planner's deadline at 50 Hz
_AGAIN = 0.1  # s after which a sample that is waited for is sent again: sensors and /clock are best effort
_LISTEN = 0.02  # s between looks for a stop while simulated time waits


class MujocoSim(Node):
    """The node. Raises UserError for wrong parameters or a robot model that does not fit."""

    def __init__(self) -> None:
        super().__init__("mujoco_sim")
        self.settings = Parameters(self, SimulationParameters).values
        robot = self.settings.load_embodiment()
        self.robot = SimulatedRobot(robot, self.settings.robot_options, self.settings.seed)
        self.embodiment = prefixed(robot, self.settings.prefix)
        self.pacer = Pacer(self.embodiment.physics_rate, self.settings.real_time_factor, time.monotonic())
        self.gate = LockStep(_LAG / robot.control_rate) if self.settings.lock_step else None
        self._sample: list[tuple[Publisher, Any]] = []
        self._send_again = 0.0  # steady s
        self._steps = 0
        self._refused = 0
        self._warned: dict[str, float] = {}
        self._sensors = {  # publisher and encoder of each source
            row.source: (
                self.create_publisher(row.message, row.topic, qos.SENSOR_OUTPUT),
                row.encoder(self.embodiment),
            )
            for row in SOURCE_TOPICS.values()
            if row.encoder and row.source in self.robot.simulation.sources
        }
        self._tool = None
        if robot.pose_command:
            self._tool = self.create_publisher(PoseStamped, "simulator/tool_pose", qos.SENSOR_OUTPUT)
        self._odometry = self.create_publisher(Odometry, "simulator/floating_base_state", qos.SENSOR_OUTPUT)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STATUS)
        clock = self.settings.publish_clock
        self._clock_publisher = self.create_publisher(Clock, "/clock", qos.CLOCK) if clock else None
        self.create_subscription(JointTrajectory, _TRAJECTORY, self._on_trajectory, qos.COMMAND)
        self.create_subscription(Float64MultiArray, _FORWARD, self._on_forward, qos.COMMAND)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/push", self._on_push)
        self._faults = FaultPanel(
            self.embodiment,
            tuple(self._sensors),
            self.get_logger(),
            clock,
            self.robot.drives,
            self.settings.seed,
        )
        self.create_service(SetParametersAtomically, "~/fault", self._faults.serve)
        self.create_timer(1.0, self._report)
        self.get_logger().info(
            f"{self.embodiment.name}: physics at {self.embodiment.physics_rate:g} Hz, "
            f"sensors at {self.settings.sensor_rate:g} Hz; standing until commands come"
        )

    # ---- callbacks ----
    def _on_trajectory(self, message: JointTrajectory) -> None:
        try:
            self.robot.play(read_trajectory(message, self.embodiment, self._now()))
        except CommandError as error:
            self._refuse(error)
        self._answered()

    def _on_forward(self, message: Float64MultiArray) -> None:
        try:
            self.robot.jump(read_forward_command(message, self.embodiment))
        except CommandError as error:
            self._refuse(error)
        self._answered()

    def _answered(self) -> None:
        if self.gate is not None:
            self.gate.answer()

    def _refuse(self, error: CommandError) -> None:
        self._refused += 1
        text, now = str(error), time.monotonic()
        if now - self._warned.get(text, -_WARN_PERIOD) >= _WARN_PERIOD:
            self._warned = {text: now} if len(self._warned) > 20 else self._warned | {text: now}
            self.get_logger().warning(f"command refused: {text}")

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.robot.reset()
        response.success, response.message = True, "robot stands at the origin"
        return response

    def _on_push(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        change = self.robot.push()
        text = "base velocity changed by ({:.2f}, {:.2f}) m/s"
        if len(change) == 3:
            text = "force of ({:.1f}, {:.1f}, {:.1f}) N on the "
            text += "base" if self.robot.simulation.floating else "tool"
        response.success, response.message = True, text.format(*change)
        return response

    def _report(self) -> None:
        """Diagnostics, once a second (REP-107)."""
        factor = self.pacer.real_time_factor(time.monotonic())
        wanted = self.settings.real_time_factor
        fallen, slow = self.robot.simulation.fallen(), wanted > 0.0 and factor < 0.95 * wanted
        texts = ["no commands"] if not self.robot.commanded else []
        texts += ["robot has fallen"] if fallen else []
        texts += [f"simulation is slow: {factor:.2f} of real time"] if slow else []
        name = f"{self.get_fully_qualified_name().lstrip('/')}: simulation"
        level = DiagnosticStatus.WARN if texts else DiagnosticStatus.OK
        text = "; ".join(texts) or "follows commands"
        values = {"real_time_factor": factor, "time": f"{self.robot.time:.2f}"}
        values["commands refused"] = self._refused
        if self.gate is not None:
            values |= {"lock_step_waits": self.gate.waits, "lock_step_waited_s": round(self.gate.waited, 2)}
            values["lock_step_unanswered"] = self.gate.unanswered
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostic_message(stamp, name, self.embodiment.name, level, text, values))

    # ---- physics ----
    def _now(self) -> float:
        """Seconds of the clock that stamps follow."""
        return self.robot.time if self._clock_publisher else self.get_clock().now().nanoseconds * 1e-9

    def advance(self) -> None:
        """Make the physics steps that are due, and publish where a sensor sample falls on one."""
        share = self.settings.sensor_rate / self.embodiment.physics_rate
        for _ in range(self.pacer.due(time.monotonic())):
            if self._waits():
                return
            self.robot.step()
            self.pacer.made()
            self._steps += 1
            if int(self._steps * share + 1e-6) > int((self._steps - 1) * share + 1e-6):
                self._publish()

    def _waits(self) -> bool:
        """Whether simulated time stands until a command answers the newest sample; then sleeps a little."""
        now = time.monotonic()
        if self.gate is None or not self.gate.blocked(self.robot.time, now):
            return False
        if now >= self._send_again:
            self._send_sample()
        self.gate.wait(_LISTEN)
        return True

    def _add(self, component: str, publisher: Publisher, message: Any) -> None:
        """Put a message, or what a fault makes of it, into the sample that goes out next."""
        for one in self._faults.passed(component, self.robot.time, message):
            self._sample.append((publisher, one))

    def _send_sample(self) -> None:
        for publisher, message in self._sample:
            publisher.publish(message)
        self._send_again = time.monotonic() + _AGAIN

    def _publish(self) -> None:
        late = 0.0 if self._clock_publisher else self.pacer.lateness(time.monotonic())
        stamp = self._now() - late
        m = self.robot.measure()
        if self.gate is not None:
            self.gate.ask(self.robot.time)
        self._sample.clear()
        if self._clock_publisher:
            self._add(CLOCK, self._clock_publisher, Clock(clock=to_time(stamp)))
        for source, (publisher, encode) in self._sensors.items():
            self._add(source, publisher, encode(stamp, m.readings[source]))
        self._send_sample()
        if self._tool and m.tool is not None:
            self._tool.publish(pose_message(stamp, self.embodiment.base_frame, m.tool))
        self._odometry.publish(
            odometry_message(
                stamp,
                self.embodiment.base_frame,
                m.base_position,
                m.base_orientation,
                m.base_linear,
                m.base_angular,
            )
        )

    def run(self, stop: Stop) -> None:
        """Simulate until `stop` is set."""
        viewer = (
            Viewer(self.robot.simulation, self.robot.lock, self.get_logger().warning)
            if self.settings.view
            else None
        )
        with spin_in_background(self):
            while not stop.is_set():
                self.advance()
                if viewer:
                    viewer.update(time.monotonic())
                time.sleep(self.pacer.pause(time.monotonic()))
        if viewer:
            viewer.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the node; 0 after a stop by signal, 2 after a user's mistake."""
    return run_node(MujocoSim, MujocoSim.run, arguments)


if __name__ == "__main__":
    sys.exit(main())
