"""The page of a running robot: what it draws, and the node as a process that is asked for it over http."""

from __future__ import annotations

import math
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from processes import domain, environment, wait_until
from sensor_msgs.msg import JointState
from tdmpc2_msgs.msg import PlanChunk

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.kinematics import read_foot
from tdmpc2_core.robots.rotations import from_roll_pitch_yaw, rotate, to_matrix, wxyz_to_xyzw
from tdmpc2_ros import qos
from tdmpc2_ros.view.geometry import Seen
from tdmpc2_ros.view.scene import Scene, open_server

QUADRUPED, ARM = Embodiment.load("quadruped"), Embodiment.load("arm")


@pytest.fixture
def port() -> int:
    """One that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server(port):
    server = open_server("127.0.0.1", port)
    yield server
    server.stop()


def seen(robot: Embodiment, **more) -> Seen:
    """A robot somewhere, tilted and turned, in its default pose."""
    values = {
        "position": np.array([1.0, -2.0, 0.4]),
        "orientation": from_roll_pitch_yaw(0.1, -0.2, 2.0),
        "joints": robot.default_position,
        "plan": np.zeros((0, robot.num_joints)),
        "command": np.zeros(3),
        "goal": None,
    }
    return Seen(**(values | more))


def test_feet_of_the_plan_go_where_the_kinematics_of_the_model_file_say(server):
    plan = QUADRUPED.default_position + np.linspace(0.0, 0.3, 3)[:, None]
    state = seen(QUADRUPED, plan=plan)
    scene = Scene(QUADRUPED, server)
    scene.show(state)
    ways = scene.ways.points.reshape(2, 4, 2, 3)  # piece, foot, its ends, coordinates
    for number, name in enumerate(QUADRUPED.clock.feet):
        foot = read_foot(QUADRUPED.model_path, QUADRUPED.base_frame, name, QUADRUPED.joint_names)
        for row, shown in ((0, ways[0, number, 0]), (1, ways[1, number, 0]), (2, ways[1, number, 1])):
            position, rotation = foot.chain.forward(plan[row])
            place = position + rotation @ foot.centres[0]
            np.testing.assert_allclose(shown, state.position + rotate(state.orientation, place), atol=1e-5)
    scene.show(seen(QUADRUPED))
    assert not scene.ways.visible


def test_the_robot_stands_where_it_was_seen_and_its_goal_is_in_the_base_frame(server):
    goal = np.array([0.4, 0.1, 0.3, 0.0, 0.0, 0.0, 1.0])
    scene, state = Scene(QUADRUPED, server), seen(QUADRUPED)
    scene.show(state)
    np.testing.assert_allclose(scene.frames[0].position, state.position)
    np.testing.assert_allclose(wxyz_to_xyzw(scene.frames[0].wxyz), state.orientation, atol=1e-9)
    scene = Scene(ARM, server)
    upright = {"position": np.zeros(3), "orientation": np.array([0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5)])}
    scene.show(seen(ARM, goal=goal, **upright))
    np.testing.assert_allclose(scene.goal.position, (-0.1, 0.4, 0.3), atol=1e-9)  # turned by 90 degrees
    np.testing.assert_allclose(to_matrix(wxyz_to_xyzw(scene.goal.wxyz))[:, 0], (0, 1, 0), atol=1e-9)


def test_a_command_that_turns_asks_for_a_path_on_a_circle(server):
    scene = Scene(QUADRUPED, server)
    place = {"position": np.array([0.0, 0.0, 0.3]), "orientation": np.array([0.0, 0.0, 0.0, 1.0])}
    scene.show(seen(QUADRUPED, command=np.array([0.5, 0.0, 1.0]), **place))
    end = scene.path.points[-1, 1]
    assert end[:2] == pytest.approx((0.5 * math.sin(1.0), 0.5 * (1.0 - math.cos(1.0))), abs=0.02)


def test_a_port_that_is_taken_is_one_sentence(server, port):
    with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is taken"):
        open_server("127.0.0.1", port)


def test_a_machine_without_viser_is_told_what_to_install(tmp_path):
    (tmp_path / "viser.py").write_text("raise ImportError\n")  # found before the installed one
    paths = f"{tmp_path}:{environment()['PYTHONPATH']}"
    command = [sys.executable, "-m", "tdmpc2_ros.view"]
    run = subprocess.run(
        command, env=environment(PYTHONPATH=paths), capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].endswith("pip install 'tdmpc2-ros[view]'")
    assert "Traceback" not in run.stderr


@pytest.mark.timeout(120)
def test_the_page_of_a_simulated_robot_is_served_until_a_signal(port):
    with domain() as own:
        own.start("tdmpc2_ros.simulator.node", {"robot": "quadruped"})
        view = own.start("tdmpc2_ros.view", {"robot": "quadruped", "port": port})
        states: list[JointState] = []
        own.node.create_subscription(JointState, "joint_states", states.append, qos.SENSOR_INPUT)
        publisher = own.node.create_publisher(PlanChunk, "planner/plan", qos.COMMAND)
        for topic in ("joint_states", "imu_sensor_broadcaster/imu", "simulator/floating_base_state"):
            view.wait_for_log(f"heard: {topic}", 30.0)
        wait_until(lambda: len(states) > 0, 10.0)
        plan = PlanChunk(names=list(states[0].name), kind=PlanChunk.KIND_POSITION, dt=0.02, horizon=2)
        plan.values = [*states[0].position, *states[0].position]
        wait_until(lambda: publisher.get_subscription_count() > 0, 10.0)
        publisher.publish(plan)
        view.wait_for_log("heard: planner/plan", 10.0)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=10.0) as page:
            assert page.status == 200 and b"<html" in page.read()
        assert view.stop() == 0 and "Traceback" not in view.log, view.log
