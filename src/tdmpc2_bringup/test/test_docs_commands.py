"""Every command line of the documentation is one that the programs take: options, settings, arguments."""

from __future__ import annotations

import re
import shlex

import pytest
from bringup_checks import layout_problems
from test_launch import EXECUTABLES, NOTHING, SETTINGS
from workspace_support import ROOT, SOURCE

from tdmpc2_bringup.layout import layout
from tdmpc2_bringup.robot_files import RobotFiles
from tdmpc2_bringup.settings import SEVERAL, arguments, settings_from, unknown_arguments
from tdmpc2_core import cli
from tdmpc2_core.config import apply_overrides
from tdmpc2_core.errors import UserError
from tdmpc2_core.train.train_config import train_preset

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
QUICKSTART = "scripts/quickstart.sh"
NEEDS_A_FILE = {
    "robots/crawler": "the robot that tdmpc2 import-urdf makes of the reader's URDF",
    "robots/measured": "the robot that tdmpc2 identify makes of the reader's recording",
    "runs/": "a bundle that the reader trains",
    "pointmass": "the environment that the reader writes; its tutorial's test runs the page",
}
"""What a documented command needs and the repository has not, and why."""


BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def command_lines(program: str) -> list:
    """Words of every command that begins with `program`, and whether it stands in a block."""
    found = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = [block for language, block in BLOCK.findall(text) if language in ("", "bash")]
        lines = re.sub(r"\\\n\s*", " ", "\n".join(blocks)).splitlines()
        whole = [part.strip() for line in lines for part in re.split("&&|torchrun .* -m ", line)]
        spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", BLOCK.sub("", text))]
        for line, in_block in [*((line, True) for line in whole), *((span, False) for span in spans)]:
            if line.startswith(f"{program} "):
                found[f"{page.relative_to(ROOT)}: {line}"] = line, in_block
    return [
        pytest.param(shlex.split(line, comments=True)[len(program.split()) :], in_block, id=name[:90])
        for name, (line, in_block) in found.items()
    ]


def allowed(words: list[str]) -> bool:
    """Whether a command needs what only its reader has."""
    return any(need in word for word in words for need in NEEDS_A_FILE)


def check_tdmpc2(words: list[str], whole: bool = True) -> None:
    """Raises UserError where the command line does not take the words."""
    try:
        args = cli._parser().parse_args([word for word in words if word != "..."])
    except SystemExit as end:  # --help, --version
        assert end.code == 0
        return
    except UserError as problem:
        if not whole and "arguments are required" in str(problem):  # `tdmpc2 eval` in a sentence
            return
        raise
    given = [word for word in getattr(args, "settings", ()) if whole or not word.endswith("=")]
    if args.command == "train":  # the reader's own robots and tasks cannot be looked at
        given = [w for w in given if not (w.startswith(("robot=", "task=")) and allowed([w]))]
        start = train_preset(args.preset, cli._given(given, "robot"), cli._given(given, "task"))
    elif given:
        start = args.defaults()
    if given:
        apply_overrides(start, given)


@pytest.mark.parametrize(("words", "whole"), [*command_lines("tdmpc2"), *command_lines("tdmpc2_core.cli")])
def test_tdmpc2_takes_it(words, whole):
    check_tdmpc2(words, whole)


@pytest.mark.parametrize(("words", "whole"), command_lines(QUICKSTART))
def test_the_quickstart_takes_it(words, whole, monkeypatch):
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from tdmpc2_ros.quickstart.options import parse

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    try:
        options = parse(words)
    except SystemExit as end:
        assert end.code == 0
    except UserError as problem:
        assert allowed(words) and "--help lists the options" not in str(problem), problem
    else:
        assert options.model.is_dir()


@pytest.mark.parametrize(("words", "whole"), command_lines("ros2 launch tdmpc2_bringup"))
def test_the_launch_files_take_it(words, whole, tmp_path):
    file, *rest = words
    assert (SOURCE / "tdmpc2_bringup/launch" / file).is_file()
    given = dict(word.split(":=", 1) for word in rest if ":=" in word)
    own = {"robot.launch.py": ["robot"], "multi_robot.launch.py": [each.name for each in SEVERAL]}.get(
        file, []
    )
    known = [*own, *(argument.name for argument in arguments())]
    assert unknown_arguments(given, known) == ""
    settings = settings_from(given)
    robot = given.get("robot", file.removesuffix(".launch.py"))
    if allowed(rest) or "FOLDER" in robot or settings.hardware_plugin or file == "multi_robot.launch.py":
        return
    files = RobotFiles(robot, settings, SOURCE / "tdmpc2_bringup", tmp_path)
    assert layout_problems(layout(files, NOTHING), EXECUTABLES, SETTINGS) == []


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("eval quadruped --episods 3", "--episods"),
        ("train robot=quadruped learner.batchsize=3", "batchsize"),
        ("trian robot=quadruped", "trian"),
        ("bag convert walk --embodiment quadruped", "--out"),
        ("eval runs/quadruped/best --episods 3", "--episods"),
        ("train robot=robots/crawler learner.batchsize=3", "batchsize"),
    ],
)
def test_a_command_that_is_misspelt_is_found(line, sentence):
    with pytest.raises(UserError, match=sentence):
        check_tdmpc2(shlex.split(line))


def test_commands_are_found_where_pages_have_them():
    programs = ("tdmpc2", "tdmpc2_core.cli", QUICKSTART, "ros2 launch tdmpc2_bringup")
    counted = [len(command_lines(program)) for program in programs]
    assert counted[0] > 40 and counted[1] > 1 and counted[2] > 8 and counted[3] > 8
