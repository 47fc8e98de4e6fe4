"""What the launch files start: every program, parameter, value and file exists; mistakes are noticed."""

import dataclasses
import importlib
import itertools
import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from bringup_checks import layout_problems
from workspace_support import SOURCE, ros_programs

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from tdmpc2_bringup.layout import layout  # noqa: E402
from tdmpc2_bringup.robot_files import RobotFiles  # noqa: E402
from tdmpc2_bringup.settings import Settings, arguments, each_robot, settings_from  # noqa: E402
from tdmpc2_core.config import from_mapping  # noqa: E402
from tdmpc2_core.errors import UserError  # noqa: E402
from tdmpc2_core.robots import shipped_names  # noqa: E402
from tdmpc2_ros.planner.model import PlannerParameters  # noqa: E402
from tdmpc2_ros.recorder.node import RecorderParameters  # noqa: E402
from tdmpc2_ros.simulator.node import SimulationParameters  # noqa: E402
from tdmpc2_ros.supervisor.node import SupervisorParameters  # noqa: E402
from tdmpc2_ros.view.markers import MarkersParameters  # noqa: E402

BRINGUP = SOURCE / "tdmpc2_bringup"
LAUNCH_FILES = sorted((BRINGUP / "launch").glob("*.py"))
OTHERS = {"robot": "robot_launch_description()", "multi_robot": "multi_robot_launch_description()"}
ROBOTS = [name for file in LAUNCH_FILES if (name := file.name.removesuffix(".launch.py")) not in OTHERS]
SETTINGS = {
    "mujoco_sim": SimulationParameters,
    "planner": PlannerParameters,
    "recorder": RecorderParameters,
    "supervisor": SupervisorParameters,
    "markers": MarkersParameters,
}
EXECUTABLES = {"tdmpc2_ros": set(ros_programs())}
EVERYTHING = lambda package: True  # noqa: E731
NOTHING = lambda package: False  # noqa: E731


def started(tmp_path: Path, robot: str = "quadruped", installed=EVERYTHING, share: Path = BRINGUP, **given):
    """Layout of a launch; files that are made go to tmp_path."""
    return layout(RobotFiles(robot, Settings(**given), share, tmp_path), installed)


def problems(*args, **given) -> list[str]:
    return layout_problems(started(*args, **given), EXECUTABLES, SETTINGS)


def untrained(robot: str) -> list[str]:
    """The one thing that a shipped robot may lack: a bundle."""
    bundle = SOURCE / "tdmpc2_core" / "tdmpc2_core" / "bundles" / robot
    return [] if (bundle / "bundle.json").is_file() else [f"no file {bundle}"]


def programs(result) -> list[str]:
    return [f"{node.package}/{node.executable}" for node in result.nodes]


def test_a_shadow_is_watched_by_no_supervisor_which_would_command_the_robot(tmp_path):
    result = started(tmp_path, sim="none", shadow=True)
    assert [node.executable for node in result.nodes] == ["planner"]
    assert "'supervisor': False" in str(result.nodes[0])


def test_a_gamepad_drives_over_its_trained_range_while_its_dead_man_button_is_held(tmp_path):
    result = started(tmp_path, joy=True)
    assert problems(tmp_path, joy=True) == untrained("quadruped")
    assert {"joy/game_controller_node", "teleop_twist_joy/teleop_node"} <= {*programs(result)}
    given = next(node for node in result.nodes if node.package == "teleop_twist_joy").parameters[0]
    assert given["require_enable_button"] and given["enable_button"] == 9  # left shoulder, of SDL
    assert [given[f"scale_{name}"] for name in ("linear.x", "linear.y", "angular.yaw")] == [0.8, 0.3, 1.0]
    assert [given[f"axis_{name}"] for name in ("linear.x", "linear.y", "angular.yaw")] == [1, 0, 2]
    without = started(tmp_path, joy=True, installed=NOTHING)
    assert "joy:=true is ignored: not installed: joy, teleop_twist_joy" in without.notes
    assert not {"joy", "teleop_twist_joy"} & {node.package for node in without.nodes}
    with pytest.raises(UserError, match="arm takes no velocity commands"):
        started(tmp_path, robot="arm", joy=True)
    with pytest.raises(UserError, match="joy:=true is for one robot"):
        each_robot(Settings(joy=True), "2")


def planner(result) -> dict:
    """The planner's parameters."""
    (node,) = (node for node in result.nodes if node.role == "planner")
    return next(each for each in node.parameters if isinstance(each, dict))


def test_there_is_a_launch_file_per_shipped_robot_one_for_others_and_one_for_several():
    assert {*ROBOTS} == {*shipped_names()}
    calls = OTHERS | {name: f'robot_launch_description("{name}")' for name in ROBOTS}
    assert {file.name for file in LAUNCH_FILES} == {f"{name}.launch.py" for name in calls}
    for name, call in calls.items():
        assert f"return {call}\n" in (BRINGUP / "launch" / f"{name}.launch.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("sim", "prefix", "namespace"),
    list(itertools.product(["mujoco", "gazebo", "mock", "none"], ["", "a_"], ["", "/r1"])),
)
@pytest.mark.parametrize("robot", shipped_names())
def test_everything_that_a_launch_names_exists(tmp_path, robot, sim, prefix, namespace):
    given = {"sim": sim, "prefix": prefix, "namespace": namespace, "hardware_plugin": "maker/System"}
    assert problems(tmp_path, robot, **given, record="bag", rviz=True) == untrained(robot)


@pytest.mark.parametrize("robot", shipped_names())
def test_without_optional_packages_our_simulation_stands_in(tmp_path, robot):
    result = started(tmp_path, robot, NOTHING, rviz=True)
    assert layout_problems(result, EXECUTABLES, SETTINGS) == untrained(robot)
    assert programs(result) == ["tdmpc2_ros/mujoco_sim", "tdmpc2_ros/supervisor", "tdmpc2_ros/planner"]
    for word in ("mujoco_ros2_control", "rviz2", "robot_state_publisher"):
        assert any(word in note for note in result.notes), word
    assert result.autostart


@pytest.mark.parametrize("sim", ["gazebo", "mock"])
def test_a_missing_package_is_one_sentence(tmp_path, sim):
    with pytest.raises(UserError, match="controller_manager") as caught:
        started(tmp_path, installed=NOTHING, sim=sim)
    assert "\n" not in str(caught.value)


def test_mujoco_and_mock_differ_in_the_manager_and_the_clock(tmp_path):
    mujoco, mock = (started(tmp_path, sim=sim) for sim in ("mujoco", "mock"))
    assert "mujoco_ros2_control/ros2_control_node" in programs(mujoco)
    assert "controller_manager/ros2_control_node" in programs(mock)
    assert planner(mujoco)["use_sim_time"] and not planner(mock)["use_sim_time"]
    assert planner(started(tmp_path, sim="mock", use_sim_time="true"))["use_sim_time"]


def test_gazebo_runs_the_manager_itself(tmp_path):
    result = started(tmp_path, sim="gazebo")
    assert not any("ros2_control_node" in program for program in programs(result))
    world = result.includes[0].arguments["gz_args"].split()[-1]
    systems = {each.get("name") for each in ElementTree.parse(world).getroot().iterfind("world/plugin")}
    wanted = ("Physics", "UserCommands", "SceneBroadcaster", "Imu", "Contact")
    assert systems == {f"gz::sim::systems::{name}" for name in wanted}
    assert " -s" in result.includes[0].arguments["gz_args"]
    assert " -s" not in started(tmp_path, sim="gazebo", headless=False).includes[0].arguments["gz_args"]


def test_on_hardware_the_planner_waits_for_the_operator(tmp_path):
    result = started(tmp_path, sim="none", hardware_plugin="maker/System")
    assert not result.autostart
    assert started(tmp_path, sim="none", hardware_plugin="maker/System", autostart="true").autostart
    bare = started(tmp_path, installed=NOTHING, sim="none")
    assert programs(bare) == ["tdmpc2_ros/supervisor", "tdmpc2_ros/planner"]
    assert planner(bare)["supervisor"]
    alone = started(tmp_path, installed=NOTHING, sim="none", supervisor=False)
    assert programs(alone) == ["tdmpc2_ros/planner"] and not planner(alone)["supervisor"]
    assert any("driver" in note for note in bare.notes)


def test_the_controller_decides_what_the_planner_sends_and_where(tmp_path):
    forward = started(tmp_path, sim="mock", controller="forward_position_controller")
    assert planner(forward)["output"] == "forward_position"
    effort = started(tmp_path, sim="gazebo", controller="effort_trajectory_controller", record="bag")
    targets = {new for node in effort.nodes for old, new in node.remappings if "trajectory" in old}
    assert targets == {"effort_trajectory_controller/joint_trajectory"}
    assert 'command_interface name="effort"' in effort.nodes[0].parameters[0]["robot_description"]
    with pytest.raises(UserError, match="gazebo"):
        started(tmp_path, sim="mujoco", controller="effort_trajectory_controller")


@pytest.mark.parametrize(
    ("file", "text", "broken", "problem"),
    [
        ("layout.py", '(robot, "planner"', '(robot, "plan"', "no executable plan"),
        ("layout.py", '"model": robot.model', '"topic": robot.model', "unknown key 'topic'"),
        ("layout.py", '"publish_clock"', '"publish_time"', "unknown key 'publish_time'"),
        ("layout.py", 'else "controller_manager"', 'else "controllers"', "controllers has no executable"),
        ("layout.py", '"robot.rviz"', '"robots.rviz"', "no file"),
        ("layout.py", '"flat.sdf"', '"hills.sdf"', "no file"),
        ("controllers.py", '"joint_state_broadcaster",', '"joint_states",', "no controller joint_states"),
    ],
)
def test_a_broken_launch_is_noticed(tmp_path, monkeypatch, file, text, broken, problem):
    """The same checks on a copy of the package with one mistake in it."""
    shutil.copytree(BRINGUP / "tdmpc2_bringup", tmp_path / "tdmpc2_bringup")
    copy = tmp_path / "tdmpc2_bringup" / file
    original = copy.read_text(encoding="utf-8")
    assert text in original
    copy.write_text(original.replace(text, broken), encoding="utf-8")
    for name in [name for name in sys.modules if name.split(".")[0] == "tdmpc2_bringup"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    broken_layout = importlib.import_module("tdmpc2_bringup.layout").layout
    files = importlib.import_module("tdmpc2_bringup.robot_files").RobotFiles
    found = []
    for sim in ("mock", "gazebo", "mujoco"):
        robot = files("quadruped", Settings(sim=sim, rviz=True), BRINGUP, tmp_path)
        installed = NOTHING if sim == "mujoco" else EVERYTHING
        found += layout_problems(broken_layout(robot, installed), EXECUTABLES, SETTINGS)
    assert any(problem in each for each in found), found


def test_a_missing_file_is_one_sentence(tmp_path):
    for name in ("params_file", "controllers_file", "description_file"):
        with pytest.raises(UserError, match="nowhere.yaml"):
            started(tmp_path, sim="mock", **{name: "nowhere.yaml"})
    with pytest.raises(UserError, match="hexapod"):
        started(tmp_path, "hexapod")


def test_arguments_are_explained_and_have_defaults():
    declared = {each.name: each for each in arguments()}
    assert all(each.why for each in declared.values())
    assert settings_from({name: each.default for name, each in declared.items()}) == Settings()
    wanted = (
        "sim headless rviz use_sim_time namespace prefix controllers_file params_file model autostart record"
    )
    assert {*wanted.split(), "log_level", "hardware_plugin"} <= set(declared)
    assert declared["headless"].choices == ("true", "false")


def test_arguments_are_in_the_documentation():
    page = (SOURCE.parent / "docs/reference/ros-interface.md").read_text(encoding="utf-8")
    table = page.split("| argument |")[1]
    documented = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", table, re.MULTILINE)
    assert [(name, default.strip()) for name, default in documented] == [
        (each.name, each.default or '""') for each in arguments()
    ]


def test_parameter_file_is_accepted_by_the_nodes():
    path = BRINGUP / "config" / "robot.yaml"
    for name, body in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        from_mapping(SETTINGS[name.removeprefix("/**/")], body["ros__parameters"], str(path))


def test_settings_are_what_the_nodes_know():
    assert {field.name for field in dataclasses.fields(PlannerParameters)} >= {
        "robot",
        "model",
        "prefix",
        "output",
    }
