"""Two robots in two namespaces of one DDS domain, as processes: each follows its own command and no other."""

from __future__ import annotations

import json
import math
import signal
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from processes import domain, run_quickstart, wait_until

from tdmpc2_core.files import shipped_bundle
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.course import Course
from tdmpc2_ros import qos
from tdmpc2_ros.quickstart.__main__ import _remove_former

ROBOT = Embodiment.load("quadruped")
NAMES = ("a", "b")


class Watched:
    """One robot: its command, and where it is."""

    def __init__(self, own, name: str) -> None:
        self.states: list[Odometry] = []
        self.speed = 0.0
        self._publisher = own.node.create_publisher(Twist, f"/{name}/cmd_vel", qos.COMMAND)
        own.node.create_subscription(
            Odometry, f"/{name}/simulator/floating_base_state", self.states.append, qos.SENSOR_INPUT
        )
        own.node.create_timer(0.05, self._send)
        remap = ["-r", f"__ns:=/{name}"]
        self.simulation = own.start("tdmpc2_ros.simulator.node", {"sensor_noise": False}, remap)
        parameters = {"model": str(shipped_bundle("quadruped")), "autostart": True, "method": "policy"}
        self.planner = own.start("tdmpc2_ros.planner.node", parameters, remap)

    def _send(self) -> None:
        if self.speed:
            message = Twist()
            message.linear.x = self.speed
            self._publisher.publish(message)

    @property
    def place(self) -> np.ndarray:
        position = self.states[-1].pose.pose.position
        return np.array([position.x, position.y])

    @property
    def still(self) -> bool:
        """Slower than 5 cm/s."""
        linear = self.states[-1].twist.twist.linear
        return math.hypot(linear.x, linear.y) < 0.05


@pytest.mark.timeout(300)
def test_commanding_one_robot_does_not_move_the_other():
    with domain() as own:
        told: set[str] = set()
        own.node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda m: told.update(s.name for s in m.status), qos.STATUS
        )
        robots = [Watched(own, name) for name in NAMES]
        for robot in robots:
            robot.planner.wait_for_log("planning: policy", 60.0)
            wait_until(lambda r=robot: len(r.states) > 0, 20.0)
        for walker, other in (robots, robots[::-1]):
            start, still = walker.place, other.place
            walker.speed = 0.5
            say = f"no walk: {walker.planner.log}"
            wait_until(lambda s=start, w=walker: math.dist(w.place, s) > 1.0, 40.0, say)
            assert math.dist(other.place, still) < 0.15, "the other robot moved too"
            walker.speed = 0.0
            time.sleep(1.5)  # the command is out of date, the robot stops
            wait_until(lambda w=walker: w.still, 20.0)
        assert all(robot.states[-1].pose.pose.position.z > 0.2 for robot in robots)
        nodes = set(own.node.get_node_names_and_namespaces())
        assert {("planner", "/a"), ("planner", "/b"), ("mujoco_sim", "/a"), ("mujoco_sim", "/b")} <= nodes
        assert told == {
            f"{name}/{of}" for name in NAMES for of in ("planner: control", "mujoco_sim: simulation")
        }
        assert [robot.planner.stop(signal.SIGINT) for robot in robots] == [0, 0]


@pytest.mark.timeout(300)
def test_one_command_starts_and_judges_two(tmp_path):
    out = tmp_path / "out"
    arguments = ("--robots", 2, "--seconds", 8, "--planner", "policy", "--no-video", "--out", out)
    code, output, errors = run_quickstart("quadruped", *arguments)
    assert code in (0, 1), errors
    content = json.loads((out / "results.json").read_text())
    assert set(content["robots"]) == {"robot1", "robot2"}
    for one in content["robots"].values():
        assert one["complete"] and one["falls"] == 0 and one["distance"] > 0.5
        assert one["simulation"]["real_time_factor"] < 1.15  # courses begin on clocks that are up to date
    assert (code == 0) == all(one["followed"] for one in content["robots"].values())
    assert "robot1" in output and "robot2" in output
    assert (out / "robot2_planner.log").read_text().count("stopped: signal") == 1


def test_nothing_of_an_earlier_run_is_left_beside_a_later_one(tmp_path):
    made = ("results.json", "planner.json", "robot2.json", "motion.npz", "video.mp4", "picture.png")
    made += ("robot1/video.mp4", "robot2/picture.png")
    kept = ("mine.txt", "planner.log")
    for name in (*made, *kept):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    _remove_former(tmp_path)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == set(kept)


def test_second_course_turns_the_other_way():
    left, right = Course(ROBOT, 30.0), Course(ROBOT, 30.0, mirrored=True)
    turns = [[part.command[2] for part in course.segments] for course in (left, right)]
    assert turns[0] == [-turn for turn in turns[1]] and any(turns[0])
    assert left.distance == pytest.approx(right.distance)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["--robots", "0"], "--robots is 0"), (["--robots", "2", "--view"], "are for one robot")],
)
def test_mistakes_are_one_sentence(arguments, text, tmp_path):
    code, _, errors = run_quickstart("quadruped", *arguments, "--out", tmp_path, timeout=30.0)
    assert code == 2 and text in errors
    assert len(errors.strip().splitlines()) == 1
