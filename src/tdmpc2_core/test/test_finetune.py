"""Fine-tuning on recorded episodes: learns what was recorded, keeps the best, refuses what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from planning_support import small_model
from small_robot import small_robot

from tdmpc2_core.agent import Agent
from tdmpc2_core.data.episodes import Episode, EpisodeStore
from tdmpc2_core.errors import UserError
from tdmpc2_core.planning import PlannerConfig
from tdmpc2_core.train.finetune import FineTuneConfig, fine_tune

ROBOT = small_robot()
SMALL = PlannerConfig(num_samples=24, num_elites=4, num_pi_trajs=4, iterations=2)
FAST = FineTuneConfig(updates=150, batch_size=64)


def episode(random: np.random.Generator, steps: int = 60, dim: int = ROBOT.observation_dim) -> Episode:
    """A robot whose observation follows its action linearly; the reward is the first entry."""
    mixing = np.random.default_rng(7).normal(size=(ROBOT.action_dim, dim)) * 0.3
    action = random.uniform(-1, 1, (steps, ROBOT.action_dim)).astype(np.float32)
    observation = np.zeros((steps + 1, dim), np.float32)
    for k in range(steps):
        observation[k + 1] = 0.8 * observation[k] + action[k] @ mixing
    zeros, flags = np.zeros_like(action), np.zeros(steps, bool)
    reward, value = observation[1:, 0].copy(), np.full(steps, np.nan, np.float32)
    return Episode(observation, action, reward, flags, zeros, zeros, flags, value, True)


@pytest.fixture
def place(tmp_path):
    """A bundle and a store of eleven episodes."""
    model = small_model(ROBOT.observation_dim, ROBOT.action_dim, episodic=True)
    Agent(model, SMALL, 0.97, ROBOT).save(tmp_path / "base")
    store, random = EpisodeStore(tmp_path / "episodes"), np.random.default_rng(0)
    for _ in range(11):
        store.append(episode(random), source="test")
    return tmp_path


def test_model_learns_what_was_recorded(place):
    seen = []
    result = fine_tune(
        place / "base", [place / "episodes"], place / "new", FAST, lambda p: seen.append(p) or True
    )
    assert result.improved and result.updates == 150 and result.ended_by == "updates"
    assert result.loss_after < 0.7 * result.loss_before
    assert seen[-1].updates == 150 and np.isfinite(seen[-1].loss)
    agent = Agent.load(place / "new", embodiment=ROBOT)
    assert agent.provenance["fine_tuned"]["updates"] == 150
    fresh = episode(np.random.default_rng(99))  # an episode that neither training nor selection has seen
    assert reward_error(agent, fresh) < 0.8 * reward_error(Agent.load(place / "base"), fresh)


def reward_error(agent: Agent, recorded: Episode) -> float:
    """Mean absolute error of the predicted rewards."""
    import torch

    with torch.no_grad():
        z = agent.model.encode(torch.from_numpy(recorded.observation[:-1]))
        predicted = agent.model.reward(z, torch.from_numpy(recorded.action)).squeeze(-1).numpy()
    return float(np.abs(predicted - recorded.reward).mean())


def test_same_seed_gives_the_same_result(place):
    few = FineTuneConfig(updates=10, batch_size=32, seed=3)
    losses = [fine_tune(place / "base", [place / "episodes"], place / name, few).loss_after for name in "ab"]
    assert losses[0] == losses[1]


def test_it_ends_on_request_and_by_time(place):
    slow = FineTuneConfig(updates=10**6, batch_size=32)
    result = fine_tune(place / "base", [place / "episodes"], place / "a", slow, lambda progress: False)
    assert result.ended_by == "request" and 0 < result.updates < 10**6
    timed = FineTuneConfig(updates=10**6, batch_size=32, max_seconds=0.5)
    result = fine_tune(place / "base", [place / "episodes"], place / "b", timed)
    assert result.ended_by == "time" and result.seconds < 60.0


def test_nothing_is_written_without_a_gain(place):
    result = fine_tune(
        place / "base", [place / "episodes"], place / "a", FineTuneConfig(updates=1), lambda p: True
    )
    assert result.improved == (place / "a").exists()
    assert (place / "base/bundle.json").is_file()


@pytest.mark.parametrize("what", ["missing", "bag", "other", "damaged", "output", "one"])
def test_inputs_that_do_not_fit(place, what):
    data, output = place / "data", place / "new"
    data.mkdir()
    if what == "bag":
        (data / "metadata.yaml").write_text("rosbag2_bagfile_information: {}\n")
    if what in ("other", "damaged", "one"):
        store = EpisodeStore(data)
        store.append(episode(np.random.default_rng(0), dim=3 if what == "other" else ROBOT.observation_dim))
    if what == "damaged":
        (data / "0000001.safetensors").write_bytes(b"no tensors")
    if what == "output":
        data = place / "episodes"
        output.mkdir()
    said = {
        "missing": "holds no episodes",
        "bag": "is a rosbag2",
        "other": "same robot",
        "damaged": "not a readable episode",
        "output": "exists already",
        "one": "two are needed",
    }[what]
    with pytest.raises(UserError, match=said):
        fine_tune(place / "base", [data], output, FAST)
