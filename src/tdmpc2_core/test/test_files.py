"""Folders of runs: one process at a time, and none that loses an earlier one's results."""

import os
import subprocess
import sys

import pytest

from tdmpc2_core.errors import UserError
from tdmpc2_core.files import claimed, free_folder

HOLD = """
import sys, time
from tdmpc2_core.files import claimed
with claimed(sys.argv[1], "out"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_in_use_names_its_process_and_is_free_when_that_was_killed(tmp_path):
    folder = tmp_path / "deep" / "run"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"out=x: .* in use by process {process.pid}; "):  # noqa: SIM117
            with claimed(folder, "out=x"):
                pass
    finally:
        process.kill()
        process.wait()
    assert (folder / ".in_use").read_text() == f"{process.pid}\n", "the lock of a killed process stays behind"
    with claimed(folder, "out"):
        assert (folder / ".in_use").read_text() == f"{os.getpid()}\n"
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path):
    with claimed(tmp_path / "a/b", "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_default_folder_with_results_is_left_alone(tmp_path):
    first = tmp_path / "quadruped"
    assert free_folder(first, "results.json") == first
    first.mkdir()
    (first / "results.json").touch()
    assert free_folder(first, "results.json") == tmp_path / "quadruped-2"
    with claimed(tmp_path / "quadruped-2", "out"):
        assert free_folder(first, "results.json") == tmp_path / "quadruped-3"
