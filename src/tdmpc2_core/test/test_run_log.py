"""Rows of a run: the tables that are always there, and the package that `log` names beside them."""

import csv
import sys

import pytest

from tdmpc2_core.cli import main
from tdmpc2_core.train.run import RunLog

STAND_IN = """
rows = []
class Run:
    def log(self, values, step):
        rows.append((step, values))
def init(dir, name):
    return Run()
"""


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
@pytest.mark.parametrize("command", ["train", "expert", "student"])
def test_a_package_that_is_missing_is_one_sentence_and_nothing_is_left(
    command, package, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, package, None)
    folder = tmp_path / "run"
    assert main([command, "robot=quadruped", f"out={folder}", f"log={package}"]) == 2
    errors = capsys.readouterr().err.strip()
    assert errors.splitlines()[-1].endswith(f"pip install 'tdmpc2-core[{package}]'")
    assert not folder.exists()


def test_rows_go_into_the_tables_and_to_the_package(tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    log = RunLog(tmp_path, "wandb", counts="decisions")
    log.scalars("train", 10, {"loss": 1.5})
    log.scalars("eval", 20, {"return": 3.0})
    wandb = sys.modules.pop("wandb")
    assert wandb.rows == [(10, {"train/loss": 1.5}), (20, {"eval/return": 3.0})]
    with open(tmp_path / "train.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [{"decisions": "10", "loss": "1.5"}]
