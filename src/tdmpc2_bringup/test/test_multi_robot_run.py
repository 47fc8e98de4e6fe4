"""multi_robot.launch.py under the launch package: each robot in its namespace, all ended together."""

import os
import signal

import pytest
from launch_support import processes_of

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed: it has no wheel")

from launch import LaunchContext  # noqa: E402
from launch.actions import ExecuteProcess, LogInfo, Shutdown  # noqa: E402
from launch.events.process import ProcessExited  # noqa: E402
from processes import wait_until  # noqa: E402
from test_launch_run import MUJOCO, START, commands, launched, state, stop  # noqa: E402

from tdmpc2_bringup.layout import CONFIGURED  # noqa: E402
from tdmpc2_bringup.robot_launch import _Essentials, _PlannerGates  # noqa: E402
from tdmpc2_core.robots import Embodiment  # noqa: E402

ROBOT = Embodiment.load("quadruped")
pytestmark = pytest.mark.timeout(400)


def several(tmp_path, monkeypatch, *given, **options):
    """The launch of two quadrupeds."""
    return launched(tmp_path, monkeypatch, ROBOT.name, "robots:=2", *given, file="multi_robot", **options)


def all_command(own, process, *names):
    """Trajectories by robot, once every robot gets them."""
    sent = {name: commands(own, f"/{name}/joint_trajectory_controller/joint_trajectory") for name in names}
    wait_until(lambda: all(len(each) > 20 for each in sent.values()), START, lambda: process.log)
    return sent


def kill(own, program, *names):
    """End the robots' processes of this program, all at once."""
    for name in names:
        (number,) = (n for n, line in processes_of(own.id).items() if f"{program} " in line and name in line)
        os.kill(number, signal.SIGKILL)


def ended(action, code=0):
    """What launch says when a process has ended."""
    more = {"action": action, "name": "spawner-1", "cmd": [], "cwd": None, "env": None, "pid": 1}
    return ProcessExited(returncode=code, **more)


def test_two_robots_have_namespaces_joints_clocks_and_bags_of_their_own(tmp_path, monkeypatch):
    given = f"record:={tmp_path / 'bags'}", "use_sim_time:=true"
    with several(tmp_path, monkeypatch, *given) as (own, process):
        for name, sent in all_command(own, process, "robot1", "robot2").items():
            assert set(sent[-1].joint_names) == {f"{name}_{joint}" for joint in ROBOT.joint_names}
            assert state(own, f"/{name}/planner") == "active"
            wanted = {(node, f"/{name}") for node in ("mujoco_sim", "planner", "recorder")}
            wait_until(
                lambda w=wanted: w <= {*own.node.get_node_names_and_namespaces()}, START, lambda: process.log
            )
            clock = f"/{name}/clock"
            assert own.node.count_publishers(clock) == 1 and own.node.count_subscribers(clock) >= 3
        assert own.node.count_publishers("/clock") == own.node.count_subscribers("/clock") == 0
        assert MUJOCO or process.log.count("stands in for ros2_control") == 1
        stop(own, process)
    for name, other in (("robot1", "robot2"), ("robot2", "robot1")):
        bag = (tmp_path / "bags" / name / "metadata.yaml").read_text(encoding="utf-8")
        assert f"/{name}/joint_states" in bag and f"/{other}/joint_states" not in bag


def test_a_planner_may_end_alone_and_a_controller_manager_ends_all(tmp_path, monkeypatch):
    given = "sim:=mock", "namespace:=lab"
    names = "lab/robot1", "lab/robot2"
    with several(tmp_path, monkeypatch, *given, stand_ins=True) as (own, process):
        sent = all_command(own, process, *names)
        assert [state(own, f"/{name}/planner") for name in names] == ["active", "active"]
        assert process.log.count("process has finished cleanly") == 2  # the spawners
        kill(own, "planner", names[0])
        process.wait_for_log("process has died")
        before = len(sent[names[1]])
        wait_until(lambda: len(sent[names[1]]) > before + 50, START, lambda: process.log)
        kill(own, "ros2_control_node", *names)
        assert process.wait(60.0) == 0, process.log
        assert process.log.count("was required: shutting down launched system") == 1
        assert "Caught exception" not in process.log
        wait_until(lambda: not processes_of(own.id), 10.0, lambda: f"left behind: {processes_of(own.id)}")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("robots:=0", "robots is '0', must be a whole number from 1 to 8"),
        ("sim:=gazebo", "robots:=2 needs sim:=mujoco or mock; sim:=gazebo is for one robot"),
        ("robot:=hexapod", "hexapod"),
    ],
)
def test_a_mistake_ends_the_launch_with_one_sentence(tmp_path, monkeypatch, given, sentence):
    with several(tmp_path, monkeypatch, given) as (own, process):
        assert process.wait(60.0) != 0
        assert sentence in process.log and "Traceback" not in process.log
        assert not processes_of(own.id)


def test_robots_that_end_at_once_end_the_launch_once():
    essentials, context = _Essentials(), LaunchContext()
    first, second = essentials.add("robot1/mujoco_sim"), essentials.add("robot2/mujoco_sim")
    action = ExecuteProcess(cmd=["true"])
    assert [type(each) for each in second(ended(action, 1), context)] == [LogInfo, Shutdown]
    assert first(ended(action, 1), context) == []


def test_two_gate_processes_of_one_name_both_have_to_end():
    gates, context, action = _PlannerGates("robot1"), LaunchContext(), ExecuteProcess(cmd=["true"])
    gates.activate = object()
    first, second = gates.add("spawner"), gates.add("spawner")
    assert gates.open(CONFIGURED) == []
    assert first(ended(action), context) == []
    (failed,) = second(ended(action, 1), context)
    assert "robot1/spawner failed" in failed.msg[0].perform(context)
    assert second(ended(action), context) == [gates.activate]
