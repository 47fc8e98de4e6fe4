"""The doctor without ROS: every check's failure made for real, in a process of its own where it takes one."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tdmpc2_core import doctor
from tdmpc2_core.doctor import run, shown
from tdmpc2_core.files import shipped_bundle

GOOD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}


def examine(*arguments: str, folder: Path | None = None, **environment: str) -> tuple[int, dict[str, dict]]:
    """Exit code and findings by check of `tdmpc2-doctor --json` as a process."""
    command = [sys.executable, "-m", "tdmpc2_core.doctor", "--json", *arguments]
    variables = {**os.environ, **GOOD, **environment}
    result = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in result.stderr
    return result.returncode, {item["check"]: item for item in json.loads(result.stdout)}


def test_this_machine_passes():
    code, found = examine()
    assert code == 0, found
    assert {"python", "numpy", "torch", "threads", "robot", "bundle", "working folder"} <= set(found)
    assert all(item["level"] in ("ok", "warn") for item in found.values())
    assert all(item["advice"] for item in found.values() if item["level"] != "ok")


def test_several_faults_are_all_reported(tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(shipped_bundle("quadruped"), broken)
    weights = broken / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (tmp_path / "mujoco.py").write_text("raise ImportError('libmujoco.so: cannot open shared object file')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    code, found = examine("--model", str(broken), OMP_NUM_THREADS="many", PYTHONPATH=path)
    assert code == 1
    assert found["bundle"]["level"] == "fail" and "weights.safetensors" in found["bundle"]["found"]
    assert found["threads"]["level"] == "fail" and "env.sh" in found["threads"]["advice"]
    assert found["mujoco"]["level"] == "warn" and "libmujoco" in found["mujoco"]["found"]


@pytest.mark.parametrize(
    ("environment", "check", "level"),
    [
        ({"OMP_NUM_THREADS": "0"}, "threads", "fail"),
        ({"OMP_NUM_THREADS": "512"}, "threads", "fail"),
        ({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "x"}, "threads", "fail"),
        ({}, "threads", "warn"),
        ({"OMP_NUM_THREADS": "1"}, "threads", "ok"),
        ({"OMP_WAIT_POLICY": "active"}, "idle threads", "fail"),
        ({}, "idle threads", "warn"),
        ({"OMP_WAIT_POLICY": "passive"}, "idle threads", "ok"),
    ],
)
def test_thread_settings(environment, check, level):
    found = {finding.check: finding for finding in doctor.threads(environment)}
    assert found[check].level == level and bool(found[check].advice) == (level != "ok")


def test_other_robot_and_unknown_robot():
    found = {f.check: f for f in doctor.bundle("quadrupd", None)}
    assert found["robot"].level == "fail" and "quadruped" in found["robot"].found
    found = {f.check: f for f in doctor.bundle("quadruped", "/nowhere/bundle")}
    assert found["robot"].level == "ok" and "no such bundle" in found["bundle"].found


def test_bundle_of_another_robot(tmp_path):
    folder = tmp_path / "robot"
    shutil.copytree(shipped_bundle("quadruped") / "embodiment", folder)
    text = (folder / "embodiment.yaml").read_text()
    assert "control_rate: 50" in text
    (folder / "embodiment.yaml").write_text(text.replace("control_rate: 50", "control_rate: 25", 1))
    found = {f.check: f for f in doctor.bundle(str(folder), str(shipped_bundle("quadruped")))}
    assert found["bundle"].level == "fail" and "control_rate" in found["bundle"].found


def test_missing_old_and_broken_libraries(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(doctor._LOWEST, "stale_library", (2, 0))
    (tmp_path / "stale_library.py").write_text("__version__ = '1.9'\n")
    (tmp_path / "broken_library.py").write_text("raise OSError('wrong ELF class')\n")
    assert "upgrade" in doctor.library("stale_library").advice
    assert "wrong ELF class" in doctor.library("broken_library").found
    assert doctor.library("absent_library").level == "fail"
    assert doctor.library("absent_library", needed=False).level == "warn"


def test_real_time_limits():
    priority, memory = doctor.real_time_limits()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "the test's priority was not given back"
    assert {priority.level, memory.level} <= {"ok", "warn"}
    assert "rtprio" in doctor._priority(False).advice
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    lowered = 64 * 1024 if soft == resource.RLIM_INFINITY else min(soft, 64 * 1024)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (lowered, hard))
    try:
        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        assert "memlock" in doctor._memory_lock(limit, exempt=False).advice
        assert doctor._memory_lock(limit, exempt=True).level == "ok"
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))


def test_folder_that_cannot_be_written(tmp_path):
    assert doctor.output_folder(tmp_path).level == "ok" and not list(tmp_path.iterdir())
    finding = doctor.output_folder(Path("/proc"))
    assert finding.level == "fail" and "cannot be written" in finding.found


def test_check_that_breaks_down_does_not_hide_the_others(capsys):
    def explode():
        raise RuntimeError("boom")

    findings = run([explode, doctor.python])
    assert [finding.level for finding in findings] == ["fail", "ok"] and "boom" in findings[0].found
    assert shown(findings, as_json=False) == 1
    printed = capsys.readouterr().out
    assert "FAIL  explode" in printed and "-> report this" in printed and "2 checks, 1 failed" in printed


def test_mistake_in_the_call_is_one_sentence(capsys):
    assert doctor.main(["--rpbot", "x"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
