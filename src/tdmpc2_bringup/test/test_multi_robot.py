"""Several robots from one launch: what they must not share they do not, what was asked for reaches all."""

import re
from dataclasses import fields, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bringup_checks import layout_problems
from test_launch import BRINGUP, EVERYTHING, EXECUTABLES, NOTHING, SETTINGS, untrained
from workspace_support import ROOT

from tdmpc2_bringup.layout import CONFIGURED, Gates, layout, own_clock
from tdmpc2_bringup.robot_files import RobotFiles
from tdmpc2_bringup.settings import SEVERAL, Settings, each_robot
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import shipped_names


def started(tmp_path, robot="quadruped", robots="2", installed=EVERYTHING, **given):
    """Settings and layout of every robot; files that are made go to tmp_path."""
    members = each_robot(Settings(**given), robots)
    plans = [layout(RobotFiles(robot, one, BRINGUP, tmp_path), installed) for one in members]
    return list(zip(members, map(own_clock, plans, members), strict=True))


def own_names(plan, made: Path) -> set[str]:
    """What only one robot may have: links and joints, files that are made, bags, the prefix in messages."""
    found = set()
    for node in plan.nodes:
        texts = [*node.arguments, *(each for each in node.parameters if isinstance(each, str))]
        for given in (each for each in node.parameters if isinstance(each, dict)):
            texts += [given["output"]] if node.executable == "recorder" else []
            root = ElementTree.fromstring(given.get("robot_description", "<robot/>"))
            texts += [each.text for each in root.iter("param") if each.text]
            found |= {each.get("name") for each in root if each.tag in ("link", "joint", "ros2_control")}
            found |= {given["prefix"]} if "prefix" in given else set()
        found |= {text for text in texts if text.startswith(str(made))}
    return found


@pytest.mark.parametrize("sim", ["mujoco", "mock"])
@pytest.mark.parametrize("robot", shipped_names())
def test_each_robot_is_complete_and_has_names_of_its_own(tmp_path, robot, sim):
    names = []
    for number, (one, plan) in enumerate(
        started(tmp_path, robot, sim=sim, record=str(tmp_path / "bags"), rviz=True), 1
    ):
        name = f"robot{number}"
        assert one.namespace == name
        bag = f"no file {tmp_path}/bags/{name}"  # it must not exist
        assert layout_problems(plan, EXECUTABLES, SETTINGS) == [*untrained(robot), bag]
        names.append(own_names(plan, tmp_path))
        made = [f"{tmp_path}/bags/{name}", f"{tmp_path}/{name}_{robot}/controllers.yaml"]
        made += [f"{tmp_path}/{name}_{robot}/robot.xml"] if sim == "mujoco" else []
        assert {f"{name}_", f"{name}_base_link", *made} <= names[-1]
    assert names[0] & names[1] <= {"world"}  # an arm stands in it


def test_without_optional_packages_as_many_simulations_stand_in(tmp_path):
    for one, plan in started(tmp_path, robots="3", installed=NOTHING):
        assert layout_problems(plan, EXECUTABLES, SETTINGS) == []
        assert [node.executable for node in plan.nodes] == ["mujoco_sim", "supervisor", "planner"]
        assert {node.parameters[1]["prefix"] for node in plan.nodes} == {f"{one.namespace}_"}


@pytest.mark.parametrize("installed", [EVERYTHING, NOTHING])
def test_every_node_follows_the_clock_of_its_own_simulation(tmp_path, installed):
    for _, plan in started(tmp_path, installed=installed, use_sim_time="true", record="bags", rviz=True):
        assert all(("/clock", "clock") in node.remappings for node in plan.nodes)
        spawners = [node for node in plan.nodes if node.executable == "spawner"]
        assert len(spawners) == (installed is EVERYTHING)
        assert all(node.arguments[-2:] == ("--controller-ros-args", "-r /clock:=clock") for node in spawners)
    for _, plan in started(tmp_path, sim="mock", use_sim_time="true"):  # another's /clock
        assert not any(old == "/clock" for node in plan.nodes for old, _ in node.remappings)


def test_what_was_asked_for_reaches_every_robot():
    given = {"namespace": "/lab/", "prefix": "a_", "record": "bags"}
    asked = Settings(sim="mock", headless=False, model="m", autostart="false", **given)
    one, two = each_robot(asked, "2")
    assert (one.namespace, one.prefix, Path(one.record)) == ("lab/robot1", "robot1_a_", Path("bags/robot1"))
    assert (two.namespace, two.prefix, Path(two.record)) == ("lab/robot2", "robot2_a_", Path("bags/robot2"))
    assert replace(one, **given) == replace(two, **given) == asked
    assert each_robot(replace(asked, record=""), "1")[0].record == ""


@pytest.mark.parametrize("robots", ["0", "9", "-1", "1.5", "two", ""])
def test_a_wrong_number_is_one_sentence(robots):
    with pytest.raises(UserError, match="from 1 to 8") as caught:
        each_robot(Settings(), robots)
    assert repr(robots) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("sim", ["gazebo", "none"])
def test_a_backend_for_one_robot_says_why(sim):
    with pytest.raises(UserError, match=f"sim:={sim} is for one robot: each") as caught:
        each_robot(Settings(sim=sim), "2")
    assert "\n" not in str(caught.value)
    assert each_robot(Settings(sim=sim), "1")[0].namespace == "robot1"


def test_an_unknown_robot_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="hexapod") as caught:
        started(tmp_path, "hexapod")
    assert "\n" not in str(caught.value)


def test_arguments_are_in_the_documentation():
    page = (ROOT / "docs/reference/ros-interface.md").read_text(encoding="utf-8")
    table = page.split("| argument |")[2]
    documented = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|", table, re.MULTILINE)
    assert documented == [(each.name, each.default, each.why) for each in SEVERAL]
    assert not {each.name for each in SEVERAL} & {each.name for each in fields(Settings)}


def test_two_gates_of_one_name_both_have_to_open():
    gates = Gates()
    first, second = gates.add("spawner"), gates.add("spawner")
    assert not gates.open(CONFIGURED)
    assert not gates.open(first)
    assert not gates.open(first)  # once more is not the other
    assert gates.open(second)
