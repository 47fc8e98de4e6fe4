"""Share of demonstrations in a batch and updates per step, against their formulas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tdmpc2_core import cli
from tdmpc2_core.agent import Agent
from tdmpc2_core.learning import LearnerConfig
from tdmpc2_core.learning.replay import ReplayBuffer
from tdmpc2_core.train.online import OnlineTrainer
from tdmpc2_core.train.run import command_line
from tdmpc2_core.train.train_config import TrainConfig


def filled(value: float) -> ReplayBuffer:
    replay = ReplayBuffer(1, 200, 3, 2)
    for _ in range(100):
        replay.add(0, np.full(3, value, dtype=np.float32), np.zeros(2, dtype=np.float32), 0.0, False)
    return replay


@pytest.mark.parametrize(("step", "share"), [(0, 0.5), (250, 0.4), (500, 0.3), (1000, 0.1), (5000, 0.1)])
def test_demonstration_share_falls_linearly(step: int, share: float) -> None:
    config = replace(
        TrainConfig(),
        demonstration_share=0.5,
        demonstration_share_end=0.1,
        demonstration_anneal=1000,
        learner=LearnerConfig(batch_size=200),
    )
    trainer = OnlineTrainer.__new__(OnlineTrainer)
    trainer.config, trainer.window = config, config.learner.window
    trainer.replay, trainer.demonstrations = filled(0.0), filled(1.0)
    trainer.run = SimpleNamespace(progress=SimpleNamespace(steps=step))
    batch = trainer._sample()
    assert batch.size == 200 and float(batch.obs[0, :, 0].sum()) == round(share * 200)
    trainer.demonstrations = ReplayBuffer(1, 10, 3, 2)
    assert float(trainer._sample().obs.abs().sum()) == 0.0


def test_updates_per_step(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    settings = [
        "steps=60",
        "num_envs=2",
        "demonstration_steps=0",
        "updates_per_step=1.5",
        "planner_from=1000",
        "learner.batch_size=8",
        "eval_every=1000",
        f"out={tmp_path}",
    ]
    try:
        assert cli.main(["train", *settings]) == 0
    finally:
        torch.set_num_threads(threads)
    made = Agent.load(tmp_path / "checkpoint").provenance
    assert made["steps"] == 60
    assert made["updates"] == 90


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["train", "robot=arm", "out=/home/me/runs/a"], "tdmpc2 train robot=arm"),
        (["train", "--resume", "/home/me/runs/a"], "tdmpc2 train --resume a"),
        (["train", "--resume=/home/me/runs/a"], "tdmpc2 train --resume=a"),
    ],
)
def test_provenance_names_no_folder_of_this_machine(words: list[str], kept: str) -> None:
    assert command_line(words) == kept
