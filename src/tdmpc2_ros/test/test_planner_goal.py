"""Goals of an arm: pose messages, and goal_pose over DDS."""

from __future__ import annotations

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from fake_robot import PLANNER
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from processes import domain, wait_until
from random_agent import random_bundle
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_core.control.decision import NO_GOAL
from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.messages import goal_values
from tdmpc2_ros import qos
from tdmpc2_ros.messages import pose_message

ARM = Embodiment.load("arm")
GOAL = (0.5, 0.1, 0.4, 1.0, 0.0, 0.0, 0.0)


def test_pose_messages_keep_their_values_and_say_when_the_frame_is_wrong():
    message = pose_message(1.5, "base_link", GOAL)
    np.testing.assert_array_equal(goal_values(message, "base_link"), GOAL)
    message.header.frame_id = "/robot1/base_link"
    np.testing.assert_array_equal(goal_values(message, "base_link"), GOAL)
    for frame in ("map", "", "base_link2"):
        message.header.frame_id = frame
        with pytest.raises(SensorError, match=f"frame is '{frame}', must be 'base_link'"):
            goal_values(message, "base_link")


class World:
    """A simulated arm and a planner with random weights as processes, and what they say."""

    def __init__(self, own, bundle) -> None:
        self.own, self.commands, self.summary, self.values = own, [], "", {}
        self.tool: list[PoseStamped] = []
        node = own.node
        node.create_subscription(
            JointTrajectory, "joint_trajectory_controller/joint_trajectory", self.commands.append, qos.STATUS
        )
        node.create_subscription(PoseStamped, "simulator/tool_pose", self.tool.append, qos.STATUS)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.STATUS)
        self.goals = node.create_publisher(PoseStamped, "goal_pose", qos.COMMAND)
        self.simulation = own.start("tdmpc2_ros.simulator.node", {"robot": str(ARM.directory)})
        self.planner = own.start(PLANNER, {"model": bundle, "deadline_ms": 12.0})
        for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=number))
            assert own.call("/planner/change_state", ChangeState, request, 60.0).success, self.planner.log
        wait_until(lambda: self.goals.get_subscription_count(), 20.0, "no subscriber of goal_pose")

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        status = message.status[0]
        if status.name == "planner: control":
            self.summary, self.values = status.message, {v.key: v.value for v in status.values}

    def says(self, text: str) -> None:
        wait_until(lambda: text in self.summary, 20.0, lambda: f"{text!r} not in {self.summary!r}")

    def send(self, frame: str = "base_link", **position: float) -> None:
        message = pose_message(0.0, frame, GOAL)
        for axis, value in position.items():
            setattr(message.pose.position, axis, value)
        self.goals.publish(message)


def test_goals_over_dds_are_taken_refused_with_the_reason_and_cleared(tmp_path):
    with domain() as own:
        world = World(own, random_bundle(tmp_path, ARM))
        world.says(f"holding: {NO_GOAL}")
        wait_until(lambda: world.commands and world.tool, 20.0, "no commands or no tool pose")
        held = np.array(world.commands[-1].points[-1].positions)
        world.send(frame="map")
        world.says("frame is 'map', must be 'base_link'")
        world.send(x=float("nan"))
        world.says("x is nan; finite values are needed")
        world.send(x=2.0)
        world.says("x is 2.000 m, must lie in [0.2, 0.8] m")
        world.send(x=0.79, y=0.69, z=0.89)
        world.says("out of reach")
        assert world.values["mode"] == "hold"
        # silence of the sensors on a slow machine begins a new hold at the measured position
        np.testing.assert_allclose(world.commands[-1].points[-1].positions, held, atol=0.01)
        world.send()
        wait_until(lambda: world.values["mode"] in ("plan", "replay", "policy"), 20.0, "no plan for a goal")
        assert own.call("/planner/clear_goal", Trigger).success
        world.says(f"holding: {NO_GOAL}")
        assert own.call("/mujoco_sim/push", Trigger).message.endswith("N on the tool")
        assert world.tool[-1].header.frame_id == "base_link"
        names = [name for name, _ in own.node.get_topic_names_and_types()]
        assert "/imu_sensor_broadcaster/imu" not in names and "/cmd_vel" not in names
