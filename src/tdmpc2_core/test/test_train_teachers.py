"""Dataset aggregation: labels are the scripted controller's, whoever drives, and learning from them works."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tdmpc2_core import cli
from tdmpc2_core.data.episodes import EpisodeStore
from tdmpc2_core.envs.robot.env import RobotEnv
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.teachers.demonstrator import Demonstrator, Teachers
from tdmpc2_core.train.behaviour import Behaviour
from tdmpc2_core.train.online import OnlineTrainer
from tdmpc2_core.train.run import TrainingRun
from tdmpc2_core.train.train_config import TrainConfig


def environments(count: int) -> list[RobotEnv]:
    return [RobotEnv(Embodiment.load("quadruped"), seed) for seed in range(count)]


def test_labels_are_the_scripted_controllers_wherever_the_policy_goes():
    (env,) = environments(1)
    env.reset()
    teachers, second = Teachers([env], np.random.default_rng(0)), Demonstrator(env.embodiment)
    teachers.restart(0)
    second.reset()
    rng = np.random.default_rng(1)
    for _ in range(40):
        own = rng.uniform(-0.3, 0.3, (1, 12)).astype(np.float32)
        wanted = second.action(env)
        taken, labels = teachers.decide(own, share=0.0)
        np.testing.assert_array_equal(taken, own)
        np.testing.assert_allclose(labels[0], wanted, atol=1e-6)
        env.step(taken[0])


def test_the_share_of_decisions_that_the_controller_makes():
    robots = environments(4)
    for env in robots:
        env.reset()
    teachers, own = Teachers(robots, np.random.default_rng(2)), np.full((4, 12), 0.9, dtype=np.float32)
    driven = {0.0: 0, 0.3: 0, 1.0: 0}
    for share in driven:
        for _ in range(1500):
            taken, labels = teachers.decide(own, share)
            other = (taken != own).any(axis=1)
            driven[share] += int(other.sum())
            spread = np.abs(taken[other] - labels[other])
            assert (spread < 6.0 * Demonstrator(robots[0].embodiment).noise).all()
    assert driven[0.0] < 4 * 150 * 0.1, "a turn that began before goes on to its end"
    assert 0.15 < driven[0.3] / 6000 < 0.45
    assert driven[1.0] > 6000 - 4 * 150


@pytest.mark.parametrize(("steps", "share"), [(0, 0.8), (300, 0.4), (600, 0.0), (900, 0.0)])
def test_the_share_falls_with_the_steps_and_the_planner_waits(steps, share, monkeypatch):
    config = TrainConfig(dagger_steps=1000, dagger_share=0.8, demonstration_anneal=600, planner_from=100)
    asked: list[tuple[bool, float]] = []

    class Prior:
        def act(self, observations, first, evaluate, use_prior):
            asked.append((use_prior, float("nan")))
            return type("Result", (), {"action": np.zeros((2, 12), np.float32)})

    decider = Behaviour(config, Prior(), environments(2), np.random.default_rng(0))
    monkeypatch.setattr(
        decider._teachers,
        "decide",
        lambda actions, share: asked.append((False, share)) or (actions, actions + 0.1),
    )
    decision = decider.decide(np.zeros((2, 3)), np.zeros(2, dtype=bool), steps)
    assert asked[0][0] and asked[1][1] == pytest.approx(share)
    mean, std, _ = decision.plan(1)
    assert mean == pytest.approx(0.1) and std == pytest.approx(config.demonstration_std)


def test_a_run_keeps_the_labels_of_its_own_decisions(tmp_path: Path):
    config = TrainConfig(
        out=tmp_path, steps=2600, num_envs=2, demonstration_steps=0, dagger_steps=2400, log_every=5000,
        eval_every=5000, updates_per_step=0.01, demonstration_anneal=1000, model_size="tiny", planner_from=0,
    )  # fmt: skip
    config = replace(config, learner=replace(config.learner, batch_size=16))
    trainer = OnlineTrainer(TrainingRun(config))
    trainer.train()
    episodes = [episode for episode, _ in EpisodeStore(tmp_path / "episodes")]
    assert episodes and all(episode.has_plan.all() for episode in episodes)
    first = episodes[0]
    assert np.isnan(first.value).all(), "a label has no value"
    np.testing.assert_allclose(first.plan_std, config.demonstration_std)


def test_a_task_without_scripted_controller_says_so(tmp_path: Path, capsys):
    pytest.importorskip("dm_control", reason="dm_control is not installed")
    assert cli.main(["train", "task=cup-catch", "dagger_steps=100", f"out={tmp_path}"]) == 2
    assert "dagger_steps=0" in capsys.readouterr().err


def test_a_run_older_than_a_setting_goes_on_with_its_default(tmp_path: Path):
    config = TrainConfig(out=tmp_path)
    TrainingRun(config)
    path = tmp_path / "config.yaml"
    kept = [line for line in path.read_text().splitlines() if not line.startswith("dagger")]
    path.write_text("\n".join(kept))
    TrainingRun(config)
    assert "dagger_steps: 0" in path.read_text()
