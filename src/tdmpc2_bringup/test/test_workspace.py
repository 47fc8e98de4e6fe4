"""The scripts and the rules that hold for every file."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from workspace_support import ROOT, normalised

import tdmpc2_core

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
    near = run(ROOT / "scripts/quickstart.sh", "--seconds", "5", "quadrupedo", TDMPC2_VENV=str(venv))
    assert near.returncode == 2 and "did you mean 'quadruped'?" in near.stderr
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


STAND_IN = """#!/usr/bin/env bash
# An interpreter that makes environments of itself and notes what pip is asked for.
case "$*" in
  "-m venv "*) mkdir -p "${!#}/bin" && cp "$0" "${!#}/bin/python" ;;
  *"-m pip install"*)
    printf '%s\\n' "$*" >>"$ASKED"
    [[ "$*" != *"core.txt"* ]] || { echo "the test ends here"; exit 1; }
    [[ "$*" != *+cpu* || ( -n "$OFFERED" && "$*" == *"$OFFERED"* ) ]] ;;
esac
"""


@pytest.mark.parametrize(
    ("gpu", "offered", "index", "asked"),
    [
        (False, "torch==", "", ["+cpu"]),
        (False, "--extra-index-url https://download.pytorch.org/whl/cpu", "", ["+cpu", "whl/cpu"]),
        (False, "", "", ["+cpu", "whl/cpu", "torch.txt"]),
        (True, "torch==", "", ["torch.txt"]),
        (False, "torch==", "https://pypi.org/simple", ["--extra-index-url https://pypi.org/simple -r"]),
    ],
    ids=["a file or index of pip", "the index of torch", "offered nowhere", "a GPU", "an index is named"],
)
def test_setup_takes_torch_without_cuda_where_there_is_no_gpu(gpu, offered, index, asked, tmp_path):
    for name, text in {"python": STAND_IN, "nvidia-smi": f"#!/bin/sh\nexit {0 if gpu else 1}\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    result = run(
        ROOT / "scripts/setup.sh",
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        TDMPC2_PYTHON=str(tmp_path / "python"),
        TDMPC2_VENV=str(tmp_path / "environment"),
        TDMPC2_TORCH_INDEX=index,
        ASKED=str(tmp_path / "asked"),
        OFFERED=offered,
    )
    calls = (tmp_path / "asked").read_text().splitlines()
    assert len(calls) == len(asked) + 1 and "core.txt" in calls[-1], calls
    assert all(words in call for words, call in zip(asked, calls, strict=False)), calls
    assert re.search(r"takes about \d+\.\d GB in .* \d+\.\d GB are free", result.stdout), result.stdout
    assert ("torch brings CUDA" in result.stdout) == (gpu or bool(index))
    assert ("torch with CUDA" in result.stdout) == (not gpu and not index and not offered)
    assert result.returncode == 1 and "the test ends here" in result.stderr


def test_setup_reports_a_long_step_and_leaves_no_process(tmp_path):
    slow = STAND_IN.replace('echo "the test', 'echo "Collecting patience"; sleep 3; echo "the test')
    (tmp_path / "python").write_text(slow)
    (tmp_path / "python").chmod(0o755)
    result = run(
        ROOT / "scripts/setup.sh",
        TDMPC2_PROGRESS="1",
        TDMPC2_PYTHON=str(tmp_path / "python"),
        TDMPC2_VENV=str(tmp_path / "environment"),
        ASKED=str(tmp_path / "asked"),
        OFFERED="torch==",
    )
    assert re.search(r"\d s, \d+ MB in the environment: Collecting patience", result.stdout), result.stdout


def test_a_terminal_with_the_environment_completes_tdmpc2():
    bash = ["bash", "--norc", "-ic", f"source {os.environ['VIRTUAL_ENV']}/env.sh; complete -p tdmpc2"]
    assert re.search(r"complete .*_python_argcomplete\w* tdmpc2", run(*bash).stdout)


def test_hooks_before_a_commit_have_the_versions_of_the_tests():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0][
        "hooks"
    ]
    pinned = (ROOT / "scripts/requirements/test.txt").read_text(encoding="utf-8").split()
    for hook in hooks:
        assert hook["additional_dependencies"] and set(hook["additional_dependencies"]) <= set(pinned)


def test_the_workflow_runs_the_tests_on_every_supported_python():
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"].values()
    setup = (ROOT / "src/tdmpc2_core/setup.py").read_text(encoding="utf-8")
    supported = re.findall(r"Python :: (3\.\d+)", setup)
    assert job["strategy"]["matrix"]["python"] == supported == ["3.11", "3.12", "3.13"]
    commands = [step["run"] for step in job["steps"] if step.get("run", "").startswith("scripts/")]
    assert commands == ["scripts/test.sh", "scripts/docs.sh"]


def test_the_citation_names_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == tdmpc2_core.__version__ and citation["license"] == "Apache-2.0"


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
