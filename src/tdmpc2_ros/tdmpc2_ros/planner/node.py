"""Planner node: sensors in, joint targets out, decided by a TD-MPC2 world model. A lifecycle node.

configure: load the bundle, check it against the robot, warm up, subscribe.
activate: wait for a fresh sample of every source, then publish commands at the control rate.
deactivate: publish the safe action (the robot held where it is), then stop.
"""

from __future__ import annotations

import json
import sys
import time

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import String
from std_srvs.srv import Trigger

from tdmpc2_core.config import to_mapping
from tdmpc2_core.control.decision import Decider
from tdmpc2_core.control.statistics import Statistics, StopCause, resident_megabytes
from tdmpc2_core.control.ticker import Ticker
from tdmpc2_core.errors import sentence
from tdmpc2_core.files import check_writable, write_json
from tdmpc2_core.robots.messages import prefixed
from tdmpc2_ros import qos
from tdmpc2_ros.parameters import Parameters
from tdmpc2_ros.planner.controllers import ControllerWatch
from tdmpc2_ros.planner.goal import GoalInput
from tdmpc2_ros.planner.model import DYNAMIC, ModelSlot, PlannerParameters, check_deadline, load_agent
from tdmpc2_ros.planner.services import ModelServices
from tdmpc2_ros.planner.supervisor import Peers
from tdmpc2_ros.planner.telemetry import Reporter, Situation
from tdmpc2_ros.planner.thread import ControlThread
from tdmpc2_ros.process import Stop, run_node, spin_in_background
from tdmpc2_ros.robot_io.output import CommandOutput
from tdmpc2_ros.robot_io.sensors import SensorInput

_WAITING = 10.0  # s between reminders of the transition that is awaited
_ESTOP_PATIENCE = 0.5  # s
_END = 1.8  # s from a signal to the end of the process; the safe action leaves at once
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PlannerNode(LifecycleNode):
    """The lifecycle, services and reports; the control thread does the work.

    Raises:
        UserError: a parameter is wrong.
    """

    def __init__(self) -> None:
        super().__init__("planner")
        self.parameters = Parameters(self, PlannerParameters, DYNAMIC)
        self._slot = ModelSlot(self)
        self.parameters.check_changes(self._slot.check)
        self.parameters.on_change(self._slot.retune)
        self._settings = self.create_publisher(String, "~/settings", qos.LATCHED)
        self.parameters.on_change(self._tell_settings)
        self._tell_settings(self.parameters.values)
        self._slot.retune(self.parameters.values)
        self.cause, self.statistics = StopCause(), Statistics()
        self._sensors: SensorInput | None = None
        self._goals: GoalInput | None = None
        self._output: CommandOutput | None = None
        self._controllers: ControllerWatch | None = None
        self._peers: Peers | None = None
        self._estop = False
        self._state = "unconfigured"
        self._waited_for = self._state, time.monotonic()  # s since which
        self._reporter = Reporter(self, self.statistics, self.cause)
        self._mode_changed = self.create_guard_condition(self._report_status)
        self._model_services = ModelServices(self, self._slot, self.parameters)
        self.create_service(Trigger, "~/estop", self._on_estop)
        self.create_service(Trigger, "~/clear_estop", self._on_clear_estop)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._report, clock=steady)

    def now(self) -> float:
        """The clock of sensors' stamps, s: system time, or /clock with use_sim_time."""
        sensors = self._sensors
        return sensors.now() if sensors is not None else self.get_clock().now().nanoseconds * 1e-9

    def _tell_settings(self, values: PlannerParameters) -> None:
        """~/settings, so that a bag says what the planner was set to."""
        self._settings.publish(String(data=json.dumps(to_mapping(values))))

    # ---- lifecycle ----

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load, check, warm up, subscribe. Fails with one sentence in the log; the node stays as it was."""
        values = self.parameters.values
        try:
            if values.report:
                check_writable(values.report, "report")
            agent, calibration = load_agent(values)
            assert agent.embodiment is not None
            check_deadline(self, values, agent.embodiment)
            robot = prefixed(agent.embodiment, values.prefix)
            self._slot.put(agent, values, robot.joint_names)
        except Exception as problem:  # rclpy would end the transition without a word
            self.get_logger().error(sentence(problem))
            self._slot.clear()
            return FAILURE
        self._sensors = SensorInput(self, robot, values.cmd_vel_stamped)
        if robot.pose_command:
            self._goals = GoalInput(self, agent.embodiment, robot.base_frame, self.now, self._sensors)
        self._output = CommandOutput(self, values.output, robot, values.shadow)
        self._controllers = ControllerWatch(self, self._output.controller)
        self._peers = Peers(self, self._output, values.supervisor, values.shadow)
        if calibration:
            self.get_logger().info(f"calibrated: {calibration}")
        self.get_logger().info(
            f"configured: {robot.name} at {robot.control_rate:g} Hz, {agent.planner_config.summary}, "
            f"{resident_megabytes():.0f} MB"
        )
        return self._entered("inactive")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the control thread, which publishes once every source has sent a fresh sample."""
        if self._estop:
            self.get_logger().error("activation refused: emergency stop is set; call ~/clear_estop first")
            return FAILURE
        slot = self._slot
        assert self._sensors is not None and self._output is not None and slot.telemetry is not None
        assert self._controllers is not None and self._peers is not None
        if rival := self._peers.activate():
            self.get_logger().error(f"activation refused: {rival}")
            return FAILURE
        self._controllers.ask()
        self.cause.clear()
        self.statistics.clear()
        self._sensors.clear()
        if self._goals is not None:
            self._goals.clear()
        slot.telemetry.restart()
        simulated = self.get_parameter("use_sim_time").value
        with slot.lock:  # no service exchanges the agent between here and the thread's start
            agent = slot.configured()
            ticker = Ticker(agent.control_period, self.now if simulated else time.monotonic)
            decider = Decider(agent, self._sensors.state, slot.options)
            decider.warm_up()
            agent.seed(self.parameters.values.seed)  # the warm-up drew from its random numbers
            slot.thread = ControlThread(
                self,
                decider=decider,
                output=self._output,
                ticker=ticker,
                statistics=self.statistics,
                now=self.now,
                cause=self.cause,
                telemetry=slot.telemetry,
                changed=self._mode_changed.trigger,
                age=self._sensors.latency,
                controllers=None if self.parameters.values.shadow else self._controllers,
                peers=self._peers,
            )
            self._sensors.fresh = ticker.arrived
            slot.thread.start()
        return self._entered("active")

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Safe action, then stop."""
        self._stop("deactivated on request")
        return self._entered("inactive")

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give up the topics and the model."""
        self._release()
        return self._entered("unconfigured")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Safe action if active, then give everything up."""
        self._stop("shut down on request")
        self._release()
        return self._entered("finalized")

    def stop(self, cause: str) -> None:
        """Whatever the state: safe action if active, report, everything given up."""
        self._stop(cause)
        self._entered("finalized")
        self._release()

    # ---- parts ----

    def _entered(self, state: str) -> TransitionCallbackReturn:
        self._state = state
        self._report()
        return SUCCESS

    def _stop(self, cause: str) -> None:
        """End the control thread; the first cause that was recorded counts."""
        if self._slot.thread is None:
            return
        self.cause.record(cause)
        assert self._sensors is not None
        self._sensors.fresh = lambda: None  # its ticker ends with the thread
        with self._slot.lock:
            thread, self._slot.thread = self._slot.thread, None
            thread.stop()
        self.get_logger().info(f"stopped: {self.cause.text}")
        if self.parameters.values.report:
            self._write_report(self.parameters.values.report)

    def _release(self) -> None:
        for part in (self._goals, self._sensors, self._peers, self._output, self._controllers):
            if part is not None:
                part.destroy()
        self._goals = self._sensors = self._peers = self._output = self._controllers = None
        self._slot.clear()

    def _write_report(self, path: str) -> None:
        content = {
            **self.statistics.summary(),
            "memory_mb": resident_megabytes(),
            "stop_cause": self.cause.text,
        }
        try:
            write_json(path, content)
        except OSError as problem:
            self.get_logger().error(f"report: {path} cannot be written ({problem.strerror})")

    def _report(self) -> None:
        if self._state == "active" and self.cause.text.startswith("fault"):
            self.get_logger().error(self.cause.text)
            self.trigger_deactivate()  # here, as the faulty thread cannot join itself
            return
        self._say_what_is_awaited()
        if self._sensors is not None and self._controllers is not None:
            self._sensors.look_around()
            self._controllers.look_around()
        if self._peers is not None:
            self._peers.look_around()
        now = self._situation()
        if self._state == "active" and self.statistics.ticks == 0 and now.stale:
            self.get_logger().info(f"waiting for sensors: {'; '.join(now.stale)}", throttle_duration_sec=2.0)
        self._reporter.publish(now)

    def _say_what_is_awaited(self) -> None:
        """An operator who sees nothing move learns which transition is missing; a manager has time for it."""
        step = {"unconfigured": "configure", "inactive": "activate"}.get(self._state)
        now = time.monotonic()
        if step is None or self._state != self._waited_for[0]:
            self._waited_for = self._state, now
        elif now - self._waited_for[1] > _WAITING:
            self._waited_for = self._state, now
            name = self.get_fully_qualified_name()
            self.get_logger().info(f"{self._state}: waiting for {step}; ros2 lifecycle set {name} {step}")

    def _report_status(self) -> None:
        self._reporter.publish_status(self._situation())

    def _situation(self) -> Situation:
        slot, stale, refused = self._slot, list[str](), dict[str, str]()
        if self._sensors is not None:
            stale, refused = self._sensors.stale(), self._sensors.problems()
        if self._output is not None and (problem := self._output.mismatch()):
            refused["output"] = problem
        return Situation(
            state=self._state,
            deadline=slot.options.deadline,
            thread=slot.thread,
            embodiment=slot.robot,
            shadow=self.parameters.values.shadow,
            bundle=slot.bundle,
            model=slot.path or self.parameters.values.model,
            task=slot.task,
            stale=stale,
            refused=refused,
            trust=slot.telemetry.trust if slot.telemetry else None,
        )

    def _on_estop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._set_estop(True)
        thread = self._slot.thread
        response.success = thread is None or thread.wait_for_estop(_ESTOP_PATIENCE)
        response.message = "holding until ~/clear_estop"
        if not response.success:
            response.message = "the hold is not out; call supervisor/estop, or cut the power"
        return response

    def _on_clear_estop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = True
        response.message = "emergency stop cleared" if self._estop else "emergency stop was not set"
        self._set_estop(False)
        return response

    def _set_estop(self, value: bool) -> None:
        self._estop = value
        if self._slot.thread is not None:
            self._slot.thread.estop = value

    # ---- as a process ----

    def _autostart(self) -> bool:
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def run(self, stop: Stop) -> int:
        """Serve until `stop` is set, then safe action and end. 2 when autostart fails; the log says why."""
        try:
            if self.parameters.values.autostart and not self._autostart():
                return 2
            with spin_in_background(self):
                stop.wait()
            self.stop("signal")
            return 0
        finally:
            self._model_services.stop()


def main(arguments: list[str] | None = None) -> int:
    """Run the node; 0 after a stop by signal, 2 after a user's mistake."""
    return run_node(PlannerNode, PlannerNode.run, arguments, patience=_END)


if __name__ == "__main__":
    sys.exit(main())
