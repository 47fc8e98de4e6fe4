"""The scripts and the rules that hold for every file."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from workspace_support import ROOT, normalised

SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
REQUIREMENTS = sorted((ROOT / "scripts" / "requirements").glob("*.txt"))


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command without standard input; the variables are added to the environment."""
    variables = {**os.environ, **environment}
    return subprocess.run(
        [str(part) for part in command],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def assert_users_mistake(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2 and one line that names what was wrong."""
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_every_script_is_strict_and_explains_itself(script):
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    shown = run(script, "--help", TDMPC2_VENV="/nonexistent/environment")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("usage: ")
    assert "\nExample:\n" in shown.stdout


def test_continuous_integration_runs_the_tests_and_nothing_else():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set "))]
    assert commands == ['exec bash "$(dirname "${BASH_SOURCE[0]}")/../scripts/test.sh" </dev/null']


def test_unknown_robot_is_refused_before_anything_is_installed(tmp_path):
    venv = tmp_path / "environment"
    result = run(ROOT / "scripts/quickstart.sh", "hexapod", TDMPC2_VENV=str(venv))
    assert_users_mistake(result, "hexapod", "quadruped")
    assert not venv.exists()


def test_quickstart_explains_every_option_that_the_program_has():
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    program = run(sys.executable, "-m", "tdmpc2_ros.quickstart", "--help")
    script = run(ROOT / "scripts/quickstart.sh", "--help")
    options = [set(re.findall(r"--[a-z][a-z-]*", shown.stdout)) for shown in (program, script)]
    assert options[0] - {"--help", "--output"} == options[1] - {"--help"}


def test_quickstart_without_a_robot_shows_how_to_call_it():
    result = run(ROOT / "scripts/quickstart.sh")
    assert result.returncode == 2
    assert result.stderr.startswith("usage: ")


def test_unknown_part_and_option_are_refused():
    assert_users_mistake(run(ROOT / "scripts/test.sh", "everything"), "everything", "bringup")
    assert_users_mistake(run(ROOT / "scripts/setup.sh", "--everything"), "--everything")


def test_setup_leaves_a_folder_alone_that_is_no_environment(tmp_path):
    (tmp_path / "thesis.txt").write_text("only copy")
    result = run(ROOT / "scripts/setup.sh", TDMPC2_VENV=str(tmp_path))
    assert_users_mistake(result, str(tmp_path), "TDMPC2_VENV")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_setup_names_an_unsuitable_interpreter(tmp_path):
    venv = str(tmp_path / "environment")
    result = run(ROOT / "scripts/setup.sh", TDMPC2_VENV=venv, TDMPC2_PYTHON="/nonexistent/python")
    assert_users_mistake(result, "/nonexistent/python", "3.11")
    assert not Path(venv).exists()


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda file: file.name)
def test_every_requirement_is_pinned(file):
    for line in file.read_text(encoding="utf-8").splitlines():
        requirement = line.split("#")[0].strip()
        assert not requirement or re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.]+", requirement), line


def test_pins_and_constraints_agree():
    versions = {}
    for file in REQUIREMENTS:
        for line in file.read_text(encoding="utf-8").splitlines():
            requirement = line.split("#")[0].strip()
            if requirement:
                versions.setdefault(normalised(requirement), set()).add(requirement.split("==")[1])
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
