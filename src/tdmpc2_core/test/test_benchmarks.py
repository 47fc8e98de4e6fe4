"""Benchmarks as a user calls them: results of one's own runs lie beside them, mistakes are one sentence."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)  # processes that share busy cores
ROOT = Path(__file__).resolve().parents[3]


def call(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, timeout=240)


def test_the_curve_of_ones_own_run_stays_beside_it(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    copy = tmp_path / "clone" / "benchmarks"
    shutil.copytree(ROOT / "benchmarks", copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = {path.name: path.read_bytes() for path in (copy / "results").iterdir()}
    run = tmp_path / "run"
    run.mkdir()
    (run / "eval.csv").write_text("step,return_per_step,falls\n10,1.5,0\n20,1.75,1\n")
    (run / "train.csv").write_text(
        "step,updates,steps_per_second,return_per_step\n10,5,100,\n20,10,90,1.25\n"
    )
    found = call(copy / "training_curve.py", str(run))
    assert found.returncode == 0, found.stderr
    assert {path.name for path in run.iterdir()} == {"eval.csv", "train.csv", "training.json", "training.png"}
    assert {path.name: path.read_bytes() for path in (copy / "results").iterdir()} == before
    assert call(copy / "training_curve.py", str(run), "--out", str(copy / "results")).returncode == 0
    assert (copy / "results" / "training.json").read_bytes() != before["training.json"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pushes.py", "--robots", "0"], "--robots: must be a whole number from 1 on"),
        (["arm_reach.py", "--push-seconds", "-1"], "--push-seconds: must be a number above 0"),
        (["pushes.py", "--bundle", "nowhere"], "no trained bundle"),
        (["training_curve.py", "nowhere"], "holds no"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], said: str) -> None:
    found = call(ROOT / "benchmarks" / words[0], *words[1:])
    assert found.returncode == 2
    assert said in found.stderr and found.stderr.count("\n") == 1
