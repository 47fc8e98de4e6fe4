"""The node `markers` beside a real planner: what RViz is given, and what it costs while nobody looks."""

from __future__ import annotations

import time

import numpy as np
import pytest
from fake_robot import PLANNER, FakeRobot
from geometry_msgs.msg import Twist
from processes import domain, wait_until
from random_agent import ROBOT, random_bundle
from visualization_msgs.msg import Marker, MarkerArray

from tdmpc2_core.robots.kinematics import read_foot
from tdmpc2_ros import qos

MARKERS = "tdmpc2_ros.view.markers"


def feet(positions: np.ndarray) -> np.ndarray:
    """Where the model file puts the feet (F, 3) in the base frame, m."""
    places = []
    for name in ROBOT.clock.feet:
        foot = read_foot(ROBOT.model_path, ROBOT.base_frame, name, ROBOT.joint_names)
        position, rotation = foot.chain.forward(positions)
        places.append(position + rotation @ foot.centres[0])
    return np.array(places)


def by_name(message: MarkerArray) -> dict[tuple[str, int], Marker]:
    return {(marker.ns, marker.id): marker for marker in message.markers}


@pytest.mark.timeout(120)
def test_rviz_is_given_plan_command_and_trust_of_a_planner_and_the_planner_nothing_to_do_otherwise(tmp_path):
    with domain() as own:
        robot = FakeRobot(own)
        planner = own.start(
            PLANNER, {"model": random_bundle(tmp_path), "autostart": True, "disagreement_limit": 1e6}
        )
        node = own.start(MARKERS, {"robot": str(ROBOT.directory)})
        robot.wait_for_commands(5, process=planner)
        assert own.node.count_subscribers("planner/plan") == 0  # nobody looks
        got: list[MarkerArray] = []
        subscription = own.node.create_subscription(MarkerArray, "markers", got.append, qos.COMMAND)
        command = Twist()
        command.linear.x, command.angular.z = 0.4, 0.3

        def complete() -> bool:
            robot.cmd_vel.publish(command)
            time.sleep(0.05)
            return bool(got) and {marker.ns for marker in got[-1].markers} == {"plan", "command", "trust"}

        wait_until(complete, 40.0, lambda: node.log + planner.log)
        found = by_name(got[-1])
        assert {marker.header.frame_id for marker in found.values()} == {ROBOT.base_frame}
        plans = [found["plan", number] for number in range(4)]
        assert all(marker.type == Marker.LINE_STRIP and len(marker.points) > 1 for marker in plans)
        nearest = feet(ROBOT.default_position)  # targets lie within an action of it
        for place, marker in zip(nearest, plans, strict=True):
            assert np.linalg.norm([[p.x, p.y, p.z] for p in marker.points] - place, axis=1).max() < 0.3
        end = found["command", 0].points[-1]
        assert end.x == pytest.approx(0.394, abs=0.01) and end.y == pytest.approx(0.06, abs=0.01)
        wait_until(lambda: "ok" in by_name(got[-1])["trust", 0].text, 10.0)
        own.node.destroy_subscription(subscription)
        wait_until(lambda: own.node.count_subscribers("planner/plan") == 0, 10.0, "it listens on")
        assert node.stop() == 0 and "Traceback" not in node.log, node.log
        robot.close()
