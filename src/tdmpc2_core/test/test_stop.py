"""Runs that are stopped, refused or short of disk, as processes with real signals and limits."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from train_support import events

from tdmpc2_core.agent import Agent
from tdmpc2_core.data.episodes import EpisodeStore

pytestmark = pytest.mark.timeout(600)  # processes that share busy cores
LIMIT = 10.0  # s that what stops a process leaves it
SMALL = ["num_envs=2", "model_size=tiny", "learner.batch_size=16", "planner.num_samples=32"]
SMALL += ["planner.num_elites=8", "planner.num_pi_trajs=8", "log_every=100000", "eval_every=1000000"]


def start(*words: str, file_size: int = resource.RLIM_INFINITY, **options: object) -> subprocess.Popen:
    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))

    return subprocess.Popen(
        [sys.executable, "-m", "tdmpc2_core.cli", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=prepare, **options,
    )  # fmt: skip


def wait_for(process: subprocess.Popen, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not reached():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "nothing in four minutes"
        time.sleep(0.02)


def stop(process: subprocess.Popen, number: signal.Signals) -> str:
    """Last line of what the process said. It ends in 10 s of wall time also with a quarter of a core."""
    waited = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    process.send_signal(number)
    _, said = process.communicate(timeout=240)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = after.ru_utime + after.ru_stime - waited.ru_utime - waited.ru_stime
    assert process.returncode == 130, said
    assert total - sum(map(int, used)) / os.sysconf("SC_CLK_TCK") < 0.5 * LIMIT
    return said.splitlines()[-1]


def decisions(store: Path) -> int:
    return sum(len(episode) for episode, _ in EpisodeStore(store))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demonstrations_and_pretraining_go_on_where_they_were(tmp_path: Path, number: signal.Signals) -> None:
    shown, folder = tmp_path / "demonstrations", ["train", f"out={tmp_path}", *SMALL]
    more = [*folder, "demonstration_steps=1500", "pretrain_updates=100000", "checkpoint_every=1000000"]
    process = start(*more)
    wait_for(process, lambda: any(shown.glob("[0-9]*")))
    assert "goes on from there" in stop(process, number)
    before, stored = EpisodeStore(shown).paths(), decisions(shown)
    assert stored > 0 and "stopped at update 0" in events(tmp_path)[-1][1]
    first = [path.read_bytes() for path in before]
    process = start(*more)
    wait_for(process, lambda: any("checkpoint at update" in what for _, what in events(tmp_path)))
    time.sleep(1.0)
    stop(process, number)
    files = [path.read_bytes() for path in EpisodeStore(shown).paths()]
    assert files[: len(first)] == first and len(set(files)) == len(files), "none is shown twice"
    learned = int(events(tmp_path)[-1][1].split()[-1])
    assert learned > 0
    seen = float(Agent.load(tmp_path / "checkpoint").model.normaliser.count)
    assert seen == sum(len(episode) + 1 for episode, _ in EpisodeStore(shown)), "each is seen once"
    process = start(*more)
    wait_for(process, lambda: events(tmp_path)[-1][1].startswith(f"resumed at update {learned} "))
    time.sleep(1.0)
    stop(process, number)
    assert int(events(tmp_path)[-1][1].split()[-1]) >= learned
    assert [path.read_bytes() for path in EpisodeStore(shown).paths()] == files


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_loses_no_decision(tmp_path: Path, number: signal.Signals) -> None:
    words = ["train", f"out={tmp_path}", *SMALL, "demonstration_steps=0", "checkpoint_every=1000000"]
    words += ["planner_from=0", "updates_per_step=0.1"]
    process = start(*words, "log_every=100")
    wait_for(process, lambda: (tmp_path / "train.csv").exists())
    last = stop(process, number)
    agent = Agent.load(tmp_path / "checkpoint")
    steps = agent.provenance["steps"]
    assert steps >= 100 and f"step {steps}, update {agent.provenance['updates']}" in last
    episodes = [episode for episode, _ in EpisodeStore(tmp_path / "episodes")]
    assert sum(len(episode) for episode in episodes) == steps
    assert any(episode.truncated and len(episode) < 1000 for episode in episodes)
    process = start(*words, f"steps={steps + 4}", "eval_every=7", "learner.lr=0.002", "log_every=50")
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    whats = [what for _, what in events(tmp_path)]
    assert any(what.endswith(f"with {len(episodes)} episodes") for what in whats)
    state = torch.load(tmp_path / "checkpoint" / "learner.pt", weights_only=True)
    assert state["learner"]["policy_optimiser"]["param_groups"][0]["lr"] == 0.002


def test_a_stop_before_the_first_checkpoint_promises_none(tmp_path: Path) -> None:
    process = start("train", f"out={tmp_path}", *SMALL, "demonstration_steps=0", "threads=1")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert "goes on" not in said or Agent.load(tmp_path / "checkpoint")


def test_an_evaluation_is_left_at_once(tmp_path: Path) -> None:
    words = ["train", f"out={tmp_path}", *SMALL, "demonstration_steps=0", "checkpoint_every=10"]
    process = start(*words, "eval_every=10", "eval_seconds=100000", "planner_from=0", "log_every=10")
    wait_for(process, lambda: (tmp_path / "train.csv").exists())  # written just before the evaluation
    time.sleep(0.5)
    stop(process, signal.SIGTERM)
    assert Agent.load(tmp_path / "checkpoint").provenance["steps"] == 10


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    words = ["train", f"out={tmp_path}", *SMALL, "demonstration_steps=0", "updates_per_step=0.1"]
    process = start(*words, "steps=20")
    process.communicate(timeout=240)
    kept = (tmp_path / "checkpoint" / "learner.pt").read_bytes()
    process = start(*words, "steps=24", file_size=20_000)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 2 and "Traceback" not in said
    assert "File too large" in said.splitlines()[-1] and str(tmp_path) in said.splitlines()[-1]
    assert (tmp_path / "checkpoint" / "learner.pt").read_bytes() == kept
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name or ".new-" in path.name]


@pytest.mark.parametrize("form", ["official", "onnx"])
def test_an_export_that_does_not_fit_leaves_the_former_file(tmp_path: Path, form: str) -> None:
    if form == "onnx":
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    target = tmp_path / "model.pt"
    target.write_text("former")
    words = ["export", "cup-catch", "--format", form, "--out", str(target)]
    process = start(*words, file_size=5_000)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 2 and "Traceback" not in said, said
    assert "File too large" in said.splitlines()[-1]
    assert target.read_text() == "former" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("words", "about"),
    [
        (["train", "task=walker-walk", "demonstration_steps=10"], "demonstration_steps=0"),
        (["train", "robot=quadruped", "device=warp9"], "warp9"),
        (["expert", "robot=sextuped"], "sextuped"),
        (["student", "robot=quadruped", "expert=nowhere"], "holds no expert"),
    ],
)
def test_a_refused_start_leaves_no_folder(tmp_path: Path, words: list[str], about: str) -> None:
    process = start(*words, cwd=tmp_path)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 2 and about in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
