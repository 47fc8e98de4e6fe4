"""Launch files under the launch package: processes start, the planner commands, Ctrl-C leaves nothing."""

import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from launch_support import LAUNCH, make_prefix, processes_of
from workspace_support import SOURCE

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed: it has no wheel")

from ament_index_python.packages import get_packages_with_prefixes  # noqa: E402
from lifecycle_msgs.srv import GetState  # noqa: E402
from processes import domain, wait_until  # noqa: E402
from random_agent import random_bundle  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from tdmpc2_bringup.settings import arguments  # noqa: E402
from tdmpc2_core.robots import Embodiment, shipped_names  # noqa: E402

LAUNCH_FILES = SOURCE / "tdmpc2_bringup" / "launch"
MUJOCO = "mujoco_ros2_control" in get_packages_with_prefixes()  # then it moves the robots
START = 120.0  # s that a loaded machine may take to import torch in several processes
pytestmark = pytest.mark.timeout(400)


@contextmanager
def launched(tmp_path, monkeypatch, robot, *given, stand_ins=False, file=""):
    """The domain and the process of a launch; `file` where it is not named after the robot."""
    prefix = make_prefix(tmp_path / "prefix", stand_ins)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{prefix}{os.pathsep}{os.environ['AMENT_PREFIX_PATH']}")
    paths = [str(SOURCE / name) for name in ("tdmpc2_bringup", "tdmpc2_core", "tdmpc2_ros")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("ROS_HOME", str(tmp_path / "ros"))
    bundle = random_bundle(tmp_path, Embodiment.load(robot))
    path = str(LAUNCH_FILES / f"{file or robot}.launch.py")
    with domain() as own:
        process = own.run(["-c", LAUNCH, path, f"model:={bundle}", *given])
        try:
            yield own, process
        finally:  # a launch that is killed leaves its nodes behind
            process.stop(signal.SIGINT, timeout=60.0)


def commands(own, topic):
    found = []
    own.node.create_subscription(JointTrajectory, topic, found.append, 10)
    return found


def state(own, name):
    return own.call(f"{name}/get_state", GetState).current_state.label


def stop(own, process):
    """Ctrl-C: exit code 0, and no process of the domain is left."""
    assert process.stop(signal.SIGINT, timeout=60.0) == 0, process.log
    wait_until(lambda: not processes_of(own.id), 10.0, lambda: f"left behind: {processes_of(own.id)}")
    assert "Traceback" not in process.log


@pytest.mark.parametrize("robot", shipped_names())
def test_simulation_planner_and_recorder_start_and_stop(tmp_path, monkeypatch, robot):
    with launched(tmp_path, monkeypatch, robot, f"record:={tmp_path / 'bag'}", "prefix:=a_") as (
        own,
        process,
    ):
        sent = commands(own, "joint_trajectory_controller/joint_trajectory")
        wait_until(lambda: len(sent) > 20, START, lambda: process.log)
        assert set(sent[-1].joint_names) == {f"a_{name}" for name in Embodiment.load(robot).joint_names}
        assert state(own, "/planner") == "active"
        assert ("stands in for ros2_control" in process.log) is not MUJOCO
        stop(own, process)
    assert (tmp_path / "bag" / "metadata.yaml").is_file()


def test_the_planner_becomes_active_after_the_controllers(tmp_path, monkeypatch):
    given = "sim:=mock", "namespace:=one"
    with launched(tmp_path, monkeypatch, "quadruped", *given, stand_ins=True) as (own, process):
        sent = commands(own, "one/joint_trajectory_controller/joint_trajectory")
        wait_until(lambda: len(sent) > 20, START, lambda: process.log)
        assert state(own, "/one/planner") == "active"
        assert "spawner" in process.log and "process has finished cleanly" in process.log
        stop(own, process)


def test_without_its_controllers_the_planner_stays_inactive(tmp_path, monkeypatch):
    file = tmp_path / "controllers.yaml"
    file.write_text("/**/controller_manager: {ros__parameters: {enforce_command_limits: true}}\n")
    given = "sim:=mock", f"controllers_file:={file}"
    with launched(tmp_path, monkeypatch, "quadruped", *given, stand_ins=True) as (own, process):
        process.wait_for_log("the planner stays inactive", START)
        process.wait_for_log("configured: quadruped", START)
        assert state(own, "/planner") == "inactive"
        stop(own, process)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("sim:=gazebo", "sim:=gazebo needs packages that are not installed: gz_ros2_control"),
        ("params_file:=nowhere.yaml", "params_file: no file 'nowhere.yaml'"),
        ("sim:=isaac", "Valid options are"),
        ("model:=/nope", "no checkpoint bundle '/nope'"),
    ],
)
def test_a_mistake_ends_the_launch_with_one_sentence(tmp_path, monkeypatch, given, sentence):
    with launched(tmp_path, monkeypatch, "quadruped", given) as (own, process):
        assert process.wait(60.0) != 0
        assert sentence in process.log
        assert "Traceback" not in process.log
        assert not processes_of(own.id)


def test_a_plug_in_that_nobody_offers_ends_the_launch_with_one_sentence(tmp_path, monkeypatch):
    given = "sim:=none", "hardware_plugin:=mock_components/GenericSytem"
    with launched(tmp_path, monkeypatch, "quadruped", *given, stand_ins=True) as (own, process):
        assert process.wait(60.0) != 0
        assert "did you mean 'mock_components/GenericSystem'" in process.log
        assert "Traceback" not in process.log and not processes_of(own.id)


def planner_of(own) -> int:
    """Id of the planner's process; the oldest where launch's shell is another."""
    return min(number for number, command in processes_of(own.id).items() if "tdmpc2_ros.planner" in command)


def test_a_killed_planner_comes_back_and_walks_on(tmp_path, monkeypatch):
    given = "sim:=mock", "hedless:=true"
    with launched(tmp_path, monkeypatch, "quadruped", *given, stand_ins=True) as (own, process):
        sent = commands(own, "joint_trajectory_controller/joint_trajectory")
        wait_until(lambda: len(sent) > 20, START, lambda: process.log)
        assert "hedless (did you mean 'headless'?)" in process.log
        number = planner_of(own)
        variables = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
        assert b"OMP_WAIT_POLICY=PASSIVE" in variables and b"OMP_NUM_THREADS=1" in variables
        os.kill(number, signal.SIGKILL)
        process.wait_for_log("planner ended with code -9; it is started again", 20.0)
        sent.clear()
        wait_until(lambda: len(sent) > 20, START, lambda: process.log)
        assert planner_of(own) != number and state(own, "/planner") == "active"
        stop(own, process)


@pytest.mark.parametrize(("choice", "ends"), [("shutdown", True), ("ignore", False)])
def test_what_a_killed_planner_leads_to_is_an_argument(tmp_path, monkeypatch, choice, ends):
    given = "sim:=mock", f"on_planner_exit:={choice}"
    with launched(tmp_path, monkeypatch, "quadruped", *given, stand_ins=True) as (own, process):
        sent = commands(own, "joint_trajectory_controller/joint_trajectory")
        wait_until(lambda: len(sent) > 5, START, lambda: process.log)
        os.kill(planner_of(own), signal.SIGKILL)
        process.wait_for_log("planner ended with code -9", 20.0)
        if ends:
            process.wait(60.0)
            assert "Traceback" not in process.log and not processes_of(own.id)
            return
        assert "holds its last target" in process.log
        time.sleep(2.0)
        assert not any("tdmpc2_ros.planner" in each for each in processes_of(own.id).values())
        stop(own, process)


def test_the_managers_end_ends_the_launch_in_order(tmp_path, monkeypatch):
    with launched(tmp_path, monkeypatch, "quadruped", "sim:=mock", stand_ins=True) as (own, process):
        sent = commands(own, "joint_trajectory_controller/joint_trajectory")
        wait_until(lambda: len(sent) > 5, START, lambda: process.log)
        managers = [n for n, command in processes_of(own.id).items() if "ros2_control_node" in command]
        os.kill(min(managers), signal.SIGKILL)
        process.wait(60.0)
        wait_until(lambda: not processes_of(own.id), 10.0, lambda: f"left behind: {processes_of(own.id)}")
        assert "ros2_control_node ended" in process.log and "Traceback" not in process.log, process.log


def test_launch_knows_the_arguments():
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    names = {each.name for each in arguments()}
    more = {"robot.launch.py": {"robot"}, "multi_robot.launch.py": {"robot", "robots"}}
    for file in sorted(LAUNCH_FILES.glob("*.launch.py")):
        description = get_launch_description_from_python_launch_file(str(file))
        found = {each.name for each in description.get_launch_arguments()}
        assert found == names | more.get(file.name, set())
