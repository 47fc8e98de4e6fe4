"""docs/tutorials/own-robot.md, done: a robot that the suite does not know, from its URDF to a launch."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from bringup_checks import controller_problems, layout_problems
from description_checks import description_problems
from test_launch import EVERYTHING, EXECUTABLES, NOTHING, SETTINGS
from workspace_support import ROOT, SOURCE

from tdmpc2_bringup.layout import layout
from tdmpc2_bringup.robot_files import RobotFiles
from tdmpc2_bringup.settings import Settings
from tdmpc2_core import cli
from tdmpc2_core.agent import Agent
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment

SHARE = SOURCE / "tdmpc2_bringup"
CRAWLER = Path(__file__).with_name("fixtures") / "crawler.urdf"
SHORT = [
    "steps=60",
    "num_envs=2",
    "random_steps=40",
    "updates_per_step=0.05",
    "checkpoint_every=30",
    "eval_every=1000",
    "learner.batch_size=16",
    "planner.num_samples=32",
    "planner.num_pi_trajs=8",
]


def documented(page: str = "docs/tutorials/own-robot.md") -> list[list[str]]:
    """The commands of the page."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder in which the documented commands ran, the training cut short."""
    folder = tmp_path_factory.mktemp("fourth")
    copy, imported, train, evaluate, _, _ = documented()
    assert copy[0] == "cp" and copy[2] == "."
    shutil.copy(ROOT / copy[1], folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(imported[1:]) == 0
        assert cli.main([*train[1:], *SHORT]) == 0
        assert cli.main([*evaluate[1:], "--episodes", "1", "--seconds", "0.2"]) == 0
    return folder


@pytest.fixture
def launch(place, monkeypatch, tmp_path):
    """Files and layout of the documented launch, with further arguments."""
    monkeypatch.chdir(place)
    given = dict(text.split(":=") for text in documented()[-1] if ":=" in text)
    robot = given.pop("robot")

    def launch(installed=EVERYTHING, **more):
        files = RobotFiles(robot, Settings(**given, **more), SHARE, tmp_path)
        return files, layout(files, installed)

    return launch


def test_the_how_to_says_the_same():
    of_the_how_to = documented("docs/how-to/add-a-robot.md")[:4]
    assert of_the_how_to == [line for line in documented() if line[0] in ("tdmpc2", "ros2")]


def test_the_quickstart_takes_the_robot_and_its_bundle(place, monkeypatch):
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from processes import run_quickstart

    monkeypatch.chdir(place)
    program, *words = documented()[-2]
    assert program == "scripts/quickstart.sh"
    code, _, errors = run_quickstart(*words, "--drive", "--seconds", 0.5, "--no-video", "--out", "out")
    assert code in (0, 1), errors  # hardly trained, it may fall
    assert json.loads((place / "out/results.json").read_text())["planner"]["commands"] > 0


def test_the_trained_bundle_is_for_the_robot(place):
    robot = Embodiment.load(place / "robots/crawler")
    agent = Agent.load(place / "runs/crawler/checkpoint", embodiment=robot)
    assert agent.embodiment.joint_names == robot.joint_names


@pytest.mark.parametrize("sim", ["mujoco", "gazebo", "mock"])
def test_the_launch_is_complete(launch, sim):
    files, result = launch(sim=sim)
    assert layout_problems(result, EXECUTABLES, SETTINGS) == []
    assert description_problems(files.description(), files.embodiment) == []
    assert controller_problems(Path(files.controllers), files.embodiment) == []


def test_the_launch_needs_no_optional_package(launch):
    _, result = launch(installed=NOTHING)
    assert [node.executable for node in result.nodes] == ["mujoco_sim", "supervisor", "planner"]


def test_the_makers_links_stay_and_its_own_control_block_is_respected(launch, tmp_path):
    files, _ = launch(sim="mock")
    assert 'name="imu_fixed"' in files.description()  # the MJCF has no such joint
    own = tmp_path / "own.urdf"
    hardware = "<hardware><plugin>maker/System</plugin></hardware>"
    block = f'<ros2_control name="maker" type="system">{hardware}</ros2_control>'
    own.write_text(CRAWLER.read_text().replace("</robot>", f"{block}</robot>"))
    files, _ = launch(sim="none", hardware_plugin="maker/System", description_file=str(own))
    assert files.description().count("<ros2_control") == 1
    assert "maker/System" in files.description()
    with pytest.raises(UserError, match="leave prefix empty"):
        launch(sim="none", hardware_plugin="maker/System", description_file=str(own), prefix="left_")


@pytest.mark.parametrize("sim", ["mujoco", "mock"])
def test_the_makers_links_take_a_prefix(launch, sim):
    files, result = launch(sim=sim, prefix="left_")
    assert layout_problems(result, EXECUTABLES, SETTINGS) == []
    assert description_problems(files.description(), files.embodiment, "left_") == []
    assert 'name="left_imu_fixed"' in files.description()


def test_without_the_makers_file_the_urdf_comes_from_the_mjcf(place, launch):
    (place / "robots/crawler/crawler.urdf").rename(place / "aside.urdf")
    try:
        files, _ = launch(sim="mock", prefix="left_")
        assert description_problems(files.description(), files.embodiment, "left_") == []
    finally:
        (place / "aside.urdf").rename(place / "robots/crawler/crawler.urdf")
