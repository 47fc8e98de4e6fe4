"""The expert: advantages against their definition, a problem whose answer is known, and its runs."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tdmpc2_core.config import apply_overrides
from tdmpc2_core.errors import UserError
from tdmpc2_core.learning.expert import (
    Experience,
    Expert,
    ExpertConfig,
    ExpertLearner,
    generalised_advantages,
)
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.train.expert import ExpertRunConfig, ExpertTrainer, load_expert


def rollout(steps: int, robots: int, **changes: torch.Tensor) -> Experience:
    g = torch.Generator().manual_seed(1)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=g)

    nothing = torch.zeros(steps, robots, dtype=torch.bool)
    made = Experience(
        normal(steps, robots, 3), normal(steps, robots, 2), normal(steps, robots), normal(steps, robots),
        normal(steps, robots), nothing, nothing, torch.zeros(steps, robots), normal(robots),
    )  # fmt: skip
    return made._replace(**changes)


def test_advantages_are_sums_of_discounted_errors():
    """Against the definition (Schulman et al., 2016, eq. 16), with an end by fall and one by time."""
    terminated, truncated = torch.zeros(5, 1, dtype=torch.bool), torch.zeros(5, 1, dtype=torch.bool)
    terminated[1], truncated[3] = True, True
    timeout = torch.full((5, 1), 7.0)
    data = rollout(5, 1, terminated=terminated, truncated=truncated, timeout=timeout)
    found = generalised_advantages(data, 0.9, 0.8)
    following = torch.cat([data.value[1:], data.last_value[None]])
    onward = torch.where(terminated, 0.0, torch.where(truncated, timeout, following))
    error = data.reward + 0.9 * onward - data.value
    for t in range(5):
        total, weight = torch.zeros(1), 1.0
        for k in range(t, 5):
            total = total + weight * error[k]
            if terminated[k] or truncated[k]:
                break
            weight *= 0.9 * 0.8
        torch.testing.assert_close(found[t], total)


def test_it_learns_which_action_is_right():
    """A bandit: the reward is highest where the action equals a function of the observation."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(2)
    expert = Expert(2, 1, ExpertConfig(hidden=(32,), decisions=8, discount=0.5))
    learner = ExpertLearner(expert, generator)

    def wanted(observed: torch.Tensor) -> torch.Tensor:
        return 0.6 * observed[..., :1].sign()

    def error() -> float:
        probe = torch.randn(512, 2, generator=torch.Generator().manual_seed(9))
        with torch.no_grad():
            return float((expert.mean(probe) - wanted(probe)).abs().mean())

    before = error()
    for _ in range(120):
        rows = []
        for _ in range(8):
            observed = torch.randn(64, 2, generator=generator)
            action, log_prob, value = expert.act(observed, generator)
            reward = -(action - wanted(observed)).square().sum(-1)
            nothing = torch.zeros(64, dtype=torch.bool)
            rows.append((observed, action, log_prob, value, reward, nothing, ~nothing, torch.zeros(64)))
        told = learner.update(
            Experience(*map(torch.stack, zip(*rows, strict=True)), last_value=torch.zeros(64))
        )
    assert error() < 0.3 * before and np.isfinite(list(told.values())).all()


def test_its_spread_closes_towards_the_end():
    expert = Expert(3, 2, ExpertConfig(hidden=(8,), initial_std=0.5, final_std=0.1, entropy_share=0.5))
    learner, spread = ExpertLearner(expert, torch.Generator().manual_seed(0)), []
    for done in (0.25, 0.75, 1.0):
        learner.update(rollout(6, 16), done)
        spread.append(float(expert.log_std.detach().exp().max()))
    assert spread[0] > 0.45 and spread[1] < 0.25 and spread[2] < 0.12


def settings(folder: Path) -> list[str]:
    return [
        f"out={folder}",
        "robots=8",
        "decisions=1600",
        "checkpoint_every=1",
        "threads=1",
        "expert.decisions=10",
    ]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "train.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_killed_run_goes_on_and_its_expert_is_read_again(tmp_path):
    command = [sys.executable, "-m", "tdmpc2_core.cli", "expert", *settings(tmp_path)]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / "learner.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode in (-signal.SIGKILL, 0)
    known = load_expert(tmp_path, Embodiment.load("quadruped"))
    assert known.observation_dim > 40
    subprocess.run(command, env=os.environ, check=True, capture_output=True, timeout=150)
    done = [int(row["decisions"]) for row in rows_of(tmp_path)]
    assert done[-1] == 1600 and len(set(done)) >= 20
    after = load_expert(tmp_path, Embodiment.load("quadruped"))
    assert any(not torch.equal(a, b) for a, b in zip(known.parameters(), after.parameters(), strict=True))


@pytest.mark.timeout(600)
def test_a_stopped_run_goes_on_with_its_levels(tmp_path):
    """A robot with a curriculum, from a folder of its own, stopped by a real signal."""
    source = Embodiment.load("quadruped").directory
    robot = tmp_path / "robot"
    shutil.copytree(source, robot)
    text = yaml.safe_load((robot / "embodiment.yaml").read_text())
    text["randomisation"]["curriculum"] = {"success": -1000.0, "start": 0.25, "rise": 0.2, "drop": 0.0}
    text["episode_seconds"] = 0.2
    (robot / "embodiment.yaml").write_text(yaml.safe_dump(text))
    folder = tmp_path / "run"
    words = [f"robot={robot}", *settings(folder)]
    command = [sys.executable, "-m", "tdmpc2_core.cli", "expert", *words, "decisions=10000000"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (folder / "train.csv").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 130, said
    assert "expert stopped at decision" in said.splitlines()[-1]
    state = torch.load(folder / "learner.pt", weights_only=True)
    level = state["level"].numpy()
    assert level.shape == (8,) and (level > 0.25).any() and state["done"] > 0
    config = apply_overrides(ExpertRunConfig(), [*words, "decisions=10000000", "expert.lr=0.0007"])
    trainer = ExpertTrainer(config)
    np.testing.assert_array_equal(trainer.env.level, level)
    assert trainer.learner.optimiser.param_groups[0]["lr"] == trainer.learner.lr == 0.0007


def test_mistakes_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="holds no expert"):
        load_expert(tmp_path, Embodiment.load("arm"))
    config = ExpertRunConfig(
        out=tmp_path, robots=4, decisions=40, threads=1, expert=ExpertConfig(decisions=10)
    )
    ExpertTrainer(config).train()
    with pytest.raises(UserError, match="another robot"):
        load_expert(tmp_path, Embodiment.load("arm"))
    with pytest.raises(UserError, match="started with robots=4, not 5"):
        ExpertTrainer(ExpertRunConfig(out=tmp_path, robots=5, expert=ExpertConfig(decisions=10)))
