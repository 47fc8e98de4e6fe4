"""One bundle of several bodies as the planner's model: each robot gets its own, by parameters alone."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from fake_robot import PLANNER
from geometry_msgs.msg import PoseStamped, Twist
from processes import Domain, domain, wait_until
from several_bodies import BODIES, agent_of_bodies
from trajectory_msgs.msg import JointTrajectory

from tdmpc2_core.planning import PlannerConfig
from tdmpc2_core.robots import Embodiment
from tdmpc2_ros import qos
from tdmpc2_ros.messages import pose_message

pytestmark = pytest.mark.timeout(300)
SEARCH = PlannerConfig(num_samples=32, num_elites=4, num_pi_trajs=8, iterations=1)
GOAL = (0.5, 0.1, 0.4, 1.0, 0.0, 0.0, 0.0)


def start(own: Domain, bundle: str, robot: str):
    """The planner of a robot, configured and active by itself."""
    values = {"model": bundle, "robot": robot, "autostart": True, "deadline_ms": 12.0}
    return own.start(PLANNER, values)


def drive(own: Domain, bundle: str, robot: Embodiment) -> None:
    """Simulate the robot and let the bundle plan for it until its commands come from plans."""
    commands, modes = list[JointTrajectory](), list[str]()

    def on_diagnostics(message: DiagnosticArray) -> None:
        status = message.status[0]
        if status.name == "planner: control":
            modes.extend(v.value for v in status.values if v.key == "mode")

    topic = "joint_trajectory_controller/joint_trajectory"
    node = own.node
    node.create_subscription(JointTrajectory, topic, commands.append, qos.STATUS)
    node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, qos.STATUS)
    goals = node.create_publisher(PoseStamped, "goal_pose", qos.COMMAND)
    speeds = node.create_publisher(Twist, "cmd_vel", qos.COMMAND)
    node.create_timer(0.1, lambda: goals.publish(pose_message(0.0, "base_link", GOAL)))
    node.create_timer(0.1, lambda: speeds.publish(Twist()))
    own.start("tdmpc2_ros.simulator.node", {"robot": str(robot.directory)})
    planner = start(own, bundle, robot.name)
    planned = ("plan", "replay", "policy")
    wait_until(lambda: commands and any(mode in planned for mode in modes), 60.0, lambda: planner.log)
    assert commands[-1].joint_names == [joint.name for joint in robot.joints]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "several"
    agent_of_bodies(SEARCH).save(path)
    return str(path)


@pytest.mark.parametrize("robot", BODIES, ids=lambda robot: robot.name)
def test_the_same_bundle_drives_the_robot_that_the_planner_is_started_for(robot, bundle):
    with domain() as own:
        drive(own, bundle, robot)


def test_a_planner_for_a_robot_that_the_bundle_lacks_ends_with_one_sentence(bundle):
    with domain() as own:
        stranger = start(own, bundle, "humanoid")
        assert stranger.wait(60.0) == 2
        assert "does not know robot 'humanoid'; known: quadruped, arm" in stranger.log
