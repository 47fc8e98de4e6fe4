"""Launch files: every package, executable, parameter and file named exists; all arguments have defaults."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from bringup_checks import calls, launch_problems, literal, missing_files
from workspace_support import SOURCE, python_files

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from tdmpc2_core.config import from_mapping  # noqa: E402
from tdmpc2_ros.mujoco_sim_parameters import SimulationSettings  # noqa: E402
from tdmpc2_ros.planner_model import PlannerParameters  # noqa: E402
from tdmpc2_ros.recorder import RecorderSettings  # noqa: E402

BRINGUP = SOURCE / "tdmpc2_bringup"
LAUNCH_FILES = sorted((BRINGUP / "launch").glob("*.py"))
SHARED = BRINGUP / "tdmpc2_bringup" / "robot_launch.py"
SETTINGS = {"mujoco_sim": SimulationSettings, "planner": PlannerParameters, "recorder": RecorderSettings}
PARAMETERS = {name: {field.name for field in fields(cls)} for name, cls in SETTINGS.items()}
NODES = re.search(
    r"^nodes = (\[.*\])$", (SOURCE / "tdmpc2_ros" / "setup.py").read_text("utf-8"), re.MULTILINE
)
EXECUTABLES = {"tdmpc2_ros": set(yaml.safe_load(NODES[1]))}
ARGUMENTS = {
    "autostart",
    "headless",
    "log_level",
    "model",
    "namespace",
    "params_file",
    "record",
    "use_sim_time",
}


def test_every_launch_file_has_the_name_that_ros2_launch_completes():
    assert LAUNCH_FILES
    assert all(file.name.endswith(".launch.py") for file in LAUNCH_FILES)


@pytest.mark.parametrize(
    "file", python_files(BRINGUP / "launch", BRINGUP / "tdmpc2_bringup"), ids=lambda f: f.name
)
def test_everything_a_launch_file_names_exists(file):
    assert launch_problems(file, EXECUTABLES, PARAMETERS) == []


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda file: file.name)
def test_files_of_the_robot_exist(file):
    assert missing_files(file) == []
    (call,) = calls(file, "robot_launch_description")
    assert literal(call.args[0]) == file.name.removesuffix(".launch.py")


def test_broken_launch_files_are_noticed(tmp_path):
    file = tmp_path / "robot_launch.py"
    text = SHARED.read_text(encoding="utf-8")
    for original, broken, problem in [
        ('executable="planner"', 'executable="plan"', "tdmpc2_ros has no executable plan"),
        ('"publish_clock"', '"publish_time"', "mujoco_sim has no parameter publish_time"),
    ]:
        assert original in text
        file.write_text(text.replace(original, broken), encoding="utf-8")
        assert launch_problems(file, EXECUTABLES, PARAMETERS) == [problem]
    assert "tdmpc2_bringup/config/hexapod.yaml" in missing_files(Path("hexapod.launch.py"))


def test_arguments_are_documented_and_have_defaults():
    declared = calls(SHARED, "_argument")
    assert {literal(call.args[0]) for call in declared} == ARGUMENTS
    assert all(len(call.args) >= 3 and literal(call.args[2]) for call in declared)


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda file: file.name)
def test_parameter_file_is_accepted_by_the_nodes(file):
    path = BRINGUP / "config" / file.name.replace(".launch.py", ".yaml")
    for name, body in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        from_mapping(SETTINGS[name.removeprefix("/**/")], body["ros__parameters"], str(path))


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda file: file.name)
def test_launch_loads_the_file(file, monkeypatch):
    pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed: it has no wheel")
    from launch import LaunchContext
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    monkeypatch.syspath_prepend(str(BRINGUP))
    description = get_launch_description_from_python_launch_file(str(file))
    assert {argument.name for argument in description.get_launch_arguments()} == ARGUMENTS
    context = LaunchContext()
    context.launch_configurations["record"] = "bag"
    for entity in description.entities[:-1]:
        entity.visit(context)
    actions = description.entities[-1].visit(context)
    nodes = [action for action in actions if hasattr(action, "node_executable")]
    assert [node.node_executable for node in nodes] == ["mujoco_sim", "planner", "recorder"]
