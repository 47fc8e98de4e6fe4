"""The mode refresh: the prior learns from what comes of its actions, in the simulation that was fitted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planning_support import generator, small_model

from tdmpc2_core.agent import Agent
from tdmpc2_core.cli import main
from tdmpc2_core.config import apply_overrides
from tdmpc2_core.data.episodes import EpisodeStore
from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.envs.robot.mixed import MixedEnv
from tdmpc2_core.envs.robot.randomisation import changed
from tdmpc2_core.errors import UserError
from tdmpc2_core.learning.prior import PriorConfig, PriorLearner
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.acceptance import judge
from tdmpc2_core.scoring.branch_ranking import Estimate
from tdmpc2_core.scoring.paired import Gain
from tdmpc2_core.scoring.prediction import PolicyShift, Prediction
from tdmpc2_core.train.collect import simulated
from tdmpc2_core.train.finetune import FineTuneConfig, fine_tune, run_folder
from tdmpc2_core.train.finetune_config import SimulationConfig
from tdmpc2_core.train.finetune_refresh import eager

QUICK = ["refresh.robots=4", "refresh.decisions=4", "refresh.rollouts=3", "refresh.warm_up=1"]
QUICK += ["refresh.settling=3", "refresh.updates=1", "refresh.learner.horizon=2", "refresh.check_every=1"]
QUICK += ["refresh.learner.batch_size=16", "sim_robots=2", "sim_seconds=1.5", "mix_sim=0", "mode=refresh"]


def moved(anchor: float) -> tuple[float, PriorLearner]:
    """What is left of a prior's squared distance from the best action; rewards are -|a - best|^2."""
    model = small_model()
    learner = PriorLearner(model, PriorConfig(anchor=anchor, lr=1e-3, desired_kl=0.05), generator())
    best, first = torch.tensor([0.3, -0.3, 0.5, 0.0]), None
    for seed in range(30):
        z = model.encode(torch.randn(128, 9, generator=generator(seed))).detach()
        with torch.no_grad():
            mean = model.policy(z).mean
        error = float((mean - best).square().mean())
        first = first or error
        action, density = learner.explore(mean)
        learner.update(z, action, density, -(action - best).square().sum(-1))
    return error / first, learner


def test_the_prior_finds_the_best_action_and_nothing_else_of_the_model_moves() -> None:
    near, learner = moved(anchor=0.0)
    assert near < 0.5
    old = small_model().state_dict()
    for name, value in learner.model.state_dict().items():
        assert torch.equal(value, old[name]) != name.startswith("policy_head."), name


def test_a_heavy_anchor_holds_the_prior_where_it_was() -> None:
    assert moved(anchor=100.0)[0] > 0.9


def test_mixed_robots_are_those_of_two_batches_and_tell_which_they_are() -> None:
    robot = Embodiment.load("quadruped")
    parts = [(changed(robot, "payload"), 2), (robot, 1)]
    mixed = MixedEnv(parts, seed=3)
    alone = [BatchEnv(parts[0][0], 2, 3), BatchEnv(robot, 1, 5)]
    observed, known = mixed.reset()
    assert np.array_equal(observed, np.concatenate([env.reset() for env in alone]))
    assert known.shape == (3, mixed.privileged_dim)
    assert known[:, -2:].tolist() == [[1, 0], [1, 0], [0, 1]]
    for _ in range(3):
        step = mixed.step(np.full((3, robot.action_dim), 0.1))
        steps = [env.step(np.full((env.count, robot.action_dim), 0.1)) for env in alone]
        assert np.array_equal(step.reward, np.concatenate([one.reward for one in steps]))
        assert np.array_equal(step.observation, np.concatenate([one.observation for one in steps]))
    layouts = [env.privileged_layout() for env in alone]
    assert "payload" in layouts[0] and "payload" not in layouts[1]  # what one alone knows is left out
    assert mixed.privileged_dim == steps[1].privileged.shape[1] + 2


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of the shipped quadruped, just long enough to be split."""
    store = tmp_path_factory.mktemp("recorded")
    agent = Agent.load("quadruped", planner=replace(Agent.load("quadruped").planner_config, method="policy"))
    assert agent.embodiment is not None
    simulated(agent, agent.embodiment, EpisodeStore(store), SimulationConfig(decisions=480, robots=4), 1)
    return store


def settings(*words: str) -> FineTuneConfig:
    return apply_overrides(FineTuneConfig(sim_robot=Path("quadruped")), [*QUICK, *words])


def test_refresh_needs_a_simulation_and_the_gate_refuses_what_is_no_better_in_it(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", "--bundle", "quadruped", "--data", str(recorded), *QUICK]
    assert main([*words, "--out", str(tmp_path / "a")]) == 2
    assert "give --sim-robot" in capsys.readouterr().err
    assert not run_folder(tmp_path / "a").exists()
    same = ["refresh.prior.lr=1e-12", "refresh.prior.lr_range=[1e-12,1e-12]", "refresh.learner.lr=1e-12"]
    words += ["--sim-robot", "quadruped", "--out", str(tmp_path / "b"), *same]
    assert main(words) == 3
    assert "the reward in the simulator did not rise beyond chance" in capsys.readouterr().err
    report = json.loads((run_folder(tmp_path / "b") / "report.json").read_text())
    assert report["modes"]["refresh"]["updates"] == 6 and not report["written"]
    assert [updates for updates, _ in report["modes"]["refresh"]["looks"]] == [1, 2, 3, 4, 5, 6]


def test_a_refresh_that_was_stopped_goes_on_and_leaves_the_encoder(recorded: Path, tmp_path: Path) -> None:
    def stop(progress: object) -> bool:
        raise KeyboardInterrupt

    out, kept = tmp_path / "new", run_folder(tmp_path / "new") / "refresh.pt"
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        fine_tune("quadruped", [recorded], out, settings("refresh.rollouts=1", "refresh.settling=1"), stop)
    done = torch.load(kept, weights_only=True)["updates"]
    assert 0 < done < 6
    found = fine_tune("quadruped", [recorded], out, settings())
    assert found.updates == 6 and found.mode == "refresh" and found.ended_by == "updates"
    state, old = torch.load(kept, weights_only=True), Agent.load("quadruped").model.state_dict()
    assert state["resumes"] == 1
    still = ("encoder.", "state_")
    for name, value in old.items():
        same = torch.equal(value, state["model"][name])
        assert same or not name.startswith(still), name
        assert not same or not name.startswith(("policy_head.", "q_heads.", "reward_head.", "dynamics."))


def test_in_the_simulation_a_model_that_follows_worse_is_refused() -> None:
    told = Prediction(np.ones((4, 20)), np.ones((4, 20)), np.full((4, 20), np.nan), np.ones((4, 20)), 1.0)
    more, none, worse = Estimate(0.1, 0.05, 0.15), Estimate(0.0, 0.0, 0.0), Estimate(0.02, 0.01, 0.03)
    far = PolicyShift(prior=9.0, planner=9.0, draws=0.0)  # tried in the simulation, so it is no reason

    def reasons(reward: Estimate, error: Estimate, falls: tuple[int, int]) -> tuple[str, ...]:
        found = Gain(reward, error, none, falls, base=2.0, base_error=0.1, robots=4)
        return judge(told, told, far, 0.2, found).reasons

    assert reasons(more, none, (1, 1)) == ()
    assert "did not rise beyond chance" in reasons(none, none, (0, 0))[0]
    assert "follows commands worse in the simulator, by 0.02" in reasons(more, worse, (0, 0))[0]
    assert "fell 2 times in the simulator, the parent 1 times" in reasons(more, none, (2, 1))[0]


def test_following_counts_more_while_the_prior_learns_and_nothing_else_does() -> None:
    for name, followed in (("quadruped", "track_"), ("arm", "tool_")):
        robot = Embodiment.load(name)
        for old, new in zip(robot.reward.terms, eager(robot, 3.0).reward.terms, strict=True):
            assert new.weight == pytest.approx(old.weight * (3.0 if old.name.startswith(followed) else 1.0))


def test_a_simulation_is_asked_for_before_the_data_are_read() -> None:
    with pytest.raises(UserError, match="give --sim-robot"):
        fine_tune("quadruped", ["nowhere"], "never", FineTuneConfig(mode="refresh", mix_sim=0.0))
