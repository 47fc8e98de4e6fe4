"""The agent: decisions for many robots, plans for one, saving and loading."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planning_support import small_model

from tdmpc2_core.agent import Agent, ObservationError, PlanError
from tdmpc2_core.errors import UserError
from tdmpc2_core.planning import PlannerConfig
from tdmpc2_core.robots import Embodiment

ROBOT = Embodiment.load("quadruped")
SMALL = PlannerConfig(num_samples=24, num_elites=4, num_pi_trajs=4, iterations=2)


def agent(seed: int = 0, planner: PlannerConfig | str = SMALL, **changes: Any) -> Agent:
    model = small_model(ROBOT.observation_dim, ROBOT.action_dim, normalise_obs=True, **changes)
    return Agent(model, planner, 0.97, ROBOT, seed=seed)


def observations(robots: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(robots, ROBOT.observation_dim)).astype(np.float32)


@pytest.mark.parametrize("evaluate", [False, True])
@pytest.mark.parametrize("use_prior", [False, True])
def test_act_gives_arrays_for_every_robot(evaluate: bool, use_prior: bool) -> None:
    result = agent().act(observations(3), np.ones(3, dtype=bool), evaluate, use_prior=use_prior)
    for array in (result.action, result.plan_mean, result.plan_std):
        assert array.shape == (3, 12) and array.dtype == np.float32 and np.isfinite(array).all()
    assert result.value.shape == (3,) and np.abs(result.action).max() <= 1


def test_plan_starts_with_the_chosen_action() -> None:
    plan = agent(planner=replace(SMALL, evaluation="sample")).plan(observations(1)[0], now=12.5, first=True)
    same = agent(planner=replace(SMALL, evaluation="sample"))
    result = same.act(observations(1), np.array([True]), evaluate=True)
    np.testing.assert_array_equal(plan.actions[0], result.action[0])
    assert plan.actions.shape == (3, 12) and plan.dt == pytest.approx(0.02) and plan.created == 12.5
    assert plan.iterations == 2 and plan.ended_by == "budget" and np.isfinite(plan.value)


def test_plan_keeps_its_deadline() -> None:
    plan = agent().plan(observations(1)[0], now=0.0, deadline=time.monotonic() - 1.0)
    assert plan.ended_by == "deadline" and plan.iterations == 0 and np.isfinite(plan.actions).all()


def test_a_passed_deadline_is_answered_at_once_and_nan_is_refused() -> None:
    someone, obs = agent(), observations(1)[0]
    plan = someone.plan(obs, now=0.0, deadline=time.monotonic() - 1.0)
    assert plan.ended_by == "deadline" and plan.iterations == 0 and np.isnan(plan.value)
    assert np.isfinite(plan.actions).all() and plan.actions.any()
    with pytest.raises(UserError, match="deadline is nan"):
        someone.plan(obs, now=0.0, deadline=float("nan"))


def test_seeds_decide_everything() -> None:
    actions = []
    for seed in (1, 1, 2):
        one = agent(seed)
        actions.append([one.act(observations(2), evaluate=False).action for _ in range(2)])
    np.testing.assert_array_equal(actions[0], actions[1])
    assert np.abs(actions[0][0] - actions[2][0]).max() > 1e-3


def test_reset_forgets_the_warm_start() -> None:
    one = agent()
    one.act(observations(2), evaluate=True)
    assert one.planner._mean is not None
    one.reset()
    assert one.planner._mean is None


def test_fork_shares_the_model_only() -> None:
    one = agent()
    one.act(observations(2))
    other = one.fork("policy")
    assert other.model is one.model and other.planner is not one.planner
    assert other.plan(observations(1)[0], now=0.0).ended_by == "policy"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_observation_that_is_not_finite_is_named(bad: float) -> None:
    obs = observations(2)
    obs[1, 3] = bad
    with pytest.raises(ObservationError, match=r"entry 3 \(gyro\)"):
        agent().act(obs)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ObservationError, match="167"):
        agent().act(np.zeros((2, 5), np.float32))
    with pytest.raises(ObservationError, match="first"):
        agent().act(observations(2), np.zeros(3, dtype=bool))


def test_broken_weights_give_an_error_and_no_lasting_state() -> None:
    one = agent()
    weight = one.model.policy_head.layers[-1].bias
    good = weight.detach().clone()
    weight.data.fill_(np.nan)
    with pytest.raises(PlanError):
        one.act(observations(2), use_prior=True)
    weight.data.copy_(good)
    assert np.isfinite(one.act(observations(2)).action).all()


def test_observe_moves_the_statistics_also_after_loading(tmp_path: Path) -> None:
    agent().save(tmp_path / "a")
    one = Agent.load(tmp_path / "a")
    one.observe(observations(50) * 3 + 1)
    assert float(one.model.normaliser.count) == 50 and not one.model.normaliser.training
    assert one.model.normaliser.mean.mean() == pytest.approx(1.0, abs=0.2)


def test_saved_and_loaded_agents_act_alike(tmp_path: Path) -> None:
    one = agent(seed=3)
    one.observe(observations(20))
    one.save(tmp_path / "a", provenance={"steps": 7}, measured=[{"samples": 24, "return": np.float32(1.5)}])
    other = Agent.load(tmp_path / "a", embodiment=ROBOT, seed=3)
    for evaluate in (False, True):
        np.testing.assert_array_equal(
            one.act(observations(3), None, evaluate).action, other.act(observations(3), None, evaluate).action
        )
    assert (
        other.discount == 0.97
        and other.planner_config == SMALL
        and other.control_period == pytest.approx(0.02)
    )
    assert other.provenance["steps"] == 7 and other.measured[0]["return"] == 1.5
    assert other.embodiment == ROBOT


def test_loading_keeps_provenance_on_the_next_save(tmp_path: Path) -> None:
    agent().save(tmp_path / "a", provenance={"steps": 7})
    Agent.load(tmp_path / "a").save(tmp_path / "b")
    assert Agent.load(tmp_path / "b").provenance["steps"] == 7


def test_a_planner_can_be_chosen_at_loading(tmp_path: Path) -> None:
    agent().save(tmp_path / "a")
    assert Agent.load(tmp_path / "a", planner="policy").plan(observations(1)[0], 0.0).ended_by == "policy"
    with pytest.raises(UserError, match="huge"):
        Agent.load(tmp_path / "a", planner="huge")


def test_a_model_of_another_size_is_refused() -> None:
    with pytest.raises(UserError, match="167"):
        Agent(small_model(9, 4), SMALL, embodiment=ROBOT)
    with pytest.raises(UserError, match="discount"):
        Agent(small_model(9, 4), SMALL, discount=0.0)
