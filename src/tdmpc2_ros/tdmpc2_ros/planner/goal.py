"""The planner's goals: `goal_pose` in, checked in a thread of their own while sensors go on to be stored."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from std_srvs.srv import Trigger

from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.messages import goal_values
from tdmpc2_core.robots.reach import check_goal
from tdmpc2_ros import qos
from tdmpc2_ros.robot_io.sensors import SensorInput

_LOG_EVERY = 2.0  # s between log lines about refused messages


class GoalInput:
    """Subscribes to `goal_pose` and offers `~/clear_goal`; good goals go to the sensors' command.

    Inverse kinematics takes tens of ms. A goal that cannot be used is dropped, the one before it stays in
    force, and `refused` of the sensors says why until a good one follows.

    Args:
        embodiment: as in the robot's files, whose model the kinematics are read from.
        frame: name of its base frame in messages.
        now: the node's clock, s.
    """

    def __init__(
        self, node: Node, embodiment: Embodiment, frame: str, now: Callable[[], float], sensors: SensorInput
    ) -> None:
        self._node, self._embodiment, self._frame = node, embodiment, frame
        self._now, self._sensors = now, sensors
        self._changed = threading.Condition()
        self._waiting: PoseStamped | None = None
        self._round = 0  # counts goals and clearings, so that a check that ends after one of them is void
        self._stopped = False
        self._subscription = node.create_subscription(PoseStamped, "goal_pose", self._on_goal, qos.COMMAND)
        self._service = node.create_service(Trigger, "~/clear_goal", self._on_clear)
        self._thread = threading.Thread(target=self._check, name="goals", daemon=True)
        self._thread.start()

    def clear(self) -> None:
        """Forget the goal; an arm that is active holds."""
        with self._changed:
            self._round += 1
            self._waiting = None
            self._sensors.state.clear_command()
            self._sensors.refused.pop("goal", None)

    def destroy(self) -> None:
        """Give topic, service and thread up."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_service(self._service)

    def _on_goal(self, message: PoseStamped) -> None:
        with self._changed:
            self._round += 1
            self._waiting = message
            self._changed.notify_all()

    def _on_clear(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.clear()
        response.success, response.message = True, "no goal; holding"
        return response

    def _check(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._waiting is not None)
                if self._stopped:
                    return
                message, self._waiting = self._waiting, None
                own = self._round
            assert message is not None
            try:
                goal = goal_values(message, self._frame)
                check_goal(self._embodiment, goal)
            except SensorError as problem:
                self._finish(own, None, str(problem))
            else:
                self._finish(own, goal, "")

    def _finish(self, own: int, goal: np.ndarray | None, problem: str) -> None:
        log = self._node.get_logger()
        with self._changed:
            if self._round != own or self._stopped:
                return
            if goal is None:
                self._sensors.refused["goal"] = problem
            else:
                self._sensors.refused.pop("goal", None)
                self._sensors.state.set_command(self._now(), goal)
        if goal is None:
            log.error(f"refused goal_pose: {problem}", throttle_duration_sec=_LOG_EVERY)
        else:
            log.info("goal: ({:.3f}, {:.3f}, {:.3f}) m".format(*goal[:3]))
