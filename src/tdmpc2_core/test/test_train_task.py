"""Training on a benchmark task as a real process that is killed, and the bundles that such runs gave."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from train_support import events, start, wait_for_checkpoints

from tdmpc2_core import cli
from tdmpc2_core.agent import Agent
from tdmpc2_core.data.episodes import EpisodeStore
from tdmpc2_core.envs.registry import make_env
from tdmpc2_core.files import shipped_bundle
from tdmpc2_core.scoring.evaluation import evaluate_task

pytest.importorskip("dm_control", reason="needs the extra dmcontrol (dm_control)")

SETTINGS = [
    "task=cup-catch",
    "num_envs=2",
    "random_steps=100",
    "random_hold=2",
    "updates_per_step=0.01",
    "checkpoint_every=600",
    "log_every=400",
    "eval_every=1400",
    "eval_episodes=1",
    "learner.batch_size=16",
    "planner.method=policy",
]


def test_killed_run_on_a_task_goes_on_and_leaves_a_bundle_of_that_task(tmp_path):
    process = start(tmp_path, *SETTINGS, "steps=100000")
    wait_for_checkpoints(process, tmp_path, 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = max(step for step, what in events(tmp_path) if "checkpoint" in what)
    stored = len(EpisodeStore(tmp_path / "episodes"))
    steps = (last // 1400 + 1) * 1400 + 2
    process = start(tmp_path, *SETTINGS, f"steps={steps}")
    _, errors = process.communicate(timeout=150)
    assert process.returncode == 0, errors
    resumed = [what for step, what in events(tmp_path) if step == last and "resumed" in what]
    assert len(resumed) == 1 and f"with {stored} episodes" in resumed[0]
    episodes = [episode for episode, _ in EpisodeStore(tmp_path / "episodes")]
    assert all(len(episode) == 500 and episode.truncated for episode in episodes)
    drawn = episodes[0].action[:50]  # of 100 random steps in two environments
    np.testing.assert_array_equal(drawn[0::2], drawn[1::2])
    assert np.unique(drawn[:, 0]).size == 25
    agent = Agent.load(tmp_path / "checkpoint")
    assert agent.tasks == ("cup-catch",) and agent.embodiment is None
    assert agent.control_period == pytest.approx(0.04) and not agent.model.config.episodic
    rows = (tmp_path / "eval.csv").read_text().splitlines()
    assert rows[0].startswith("step,mean_return") and len(rows) >= 2
    assert agent.provenance["resumes"] == 1 and agent.provenance["steps"] == steps


def test_evaluation_sums_the_rewards_of_whole_episodes():
    agent = Agent.load(shipped_bundle("cup-catch"), planner="policy")
    result = evaluate_task(agent, "cup-catch", episodes=2, seed=4)
    returns = []
    for seed in (4, 5):
        env = make_env("cup-catch", seed)
        observation, total, done, steps = env.reset(), 0.0, False, 0
        while not done:
            outcome = env.step(agent.act(observation[None], evaluate=True).action[0])
            observation, total, done, steps = (
                outcome.observation,
                total + outcome.reward,
                outcome.truncated,
                steps + 1,
            )
        assert steps == 500
        returns.append(total)
    assert result.mean_return == pytest.approx(np.mean(returns), rel=0.01)
    assert result.lowest_return == pytest.approx(min(returns), rel=0.01)
    assert result.return_per_step == pytest.approx(result.mean_return / 500)


@pytest.mark.parametrize(
    ("task", "planner", "bar"),
    [("cup-catch", "policy", 900), ("cup-catch", None, 850), ("walker-walk", None, 700)],
)
def test_shipped_bundle_does_its_task(task, planner, bar):
    folder = shipped_bundle(task)
    assert sum(file.stat().st_size for file in Path(folder).rglob("*")) < 4_000_000
    agent = Agent.load(folder, planner=planner)
    assert agent.tasks == (task,)
    assert agent.measured and all(row["planner"] and row["return"] > 0 for row in agent.measured)
    assert evaluate_task(agent, task, episodes=2 if planner else 1, seed=100).mean_return > bar


def test_command_line_evaluates_a_shipped_task(tmp_path, capsys):
    written = tmp_path / "result.json"
    arguments = ["eval", "cup-catch", "--planner", "policy", "--episodes", "1", "--json", str(written)]
    assert cli.main(arguments) == 0
    assert "return" in capsys.readouterr().out
    assert json.loads(written.read_text())["mean_return"] > 900
