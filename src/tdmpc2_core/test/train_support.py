"""Training runs as processes, for the tests that kill them."""

import csv
import subprocess
import sys
import time
from pathlib import Path


def start(folder: Path, *settings: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tdmpc2_core.cli", "train", f"out={folder}", *settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def events(folder: Path) -> list[tuple[int, str]]:
    path = folder / "events.csv"
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [(int(row["step"]), row["event"]) for row in csv.DictReader(file)]


def wait_for_checkpoints(process: subprocess.Popen, folder: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while sum("checkpoint" in what for _, what in events(folder)) < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "no checkpoint in two minutes"
        time.sleep(0.05)
