"""Gradient planners: ascent on a known optimum, the best sequence so far, deadlines, determinism."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from planning_support import Hill, generator, small_model
from torch import Tensor

from tdmpc2_core.imagine.rollout import ModelRollout
from tdmpc2_core.planning import GradientConfig, PlanDraws, Planner, PlannerConfig, PlanRequest, make_planner

ASCENT = PlannerConfig(
    method="gradient", horizon=8, gradient=GradientConfig(seeds=3, iterations=6, anchor=0.0)
)
BOTH = PlannerConfig(
    method="mppi+gradient", num_samples=24, num_elites=6, num_pi_trajs=4, iterations=2, horizon=3
)
METHODS = pytest.mark.parametrize("config", [ASCENT, BOTH], ids=lambda config: config.method)


def planner(config: PlannerConfig, seed: int = 0, **changes: Any) -> Any:
    return make_planner(small_model(**changes), config, 0.97, generator(seed))


def observations(robots: int, seed: int = 1) -> Tensor:
    return torch.randn(robots, 9, generator=generator(seed))


def starts(*flags: bool) -> Tensor:
    return torch.tensor(flags)


# ---- ascent ----


def on_hill(config: PlannerConfig, hill: Hill) -> Any:
    search = planner(config)
    search.rollout = search._slope = hill
    return search


@METHODS
def test_ascent_finds_the_optimum_of_every_robot(config: PlannerConfig) -> None:
    hill = Hill(config.horizon, 2)
    search = on_hill(replace(config, gradient=GradientConfig(iterations=80, step=0.1, anchor=0.0)), hill)
    plan = search.plan(observations(2), starts(True, True), evaluate=True)
    torch.testing.assert_close(plan.mean, hill.goal.squeeze(2).transpose(0, 1), rtol=0, atol=0.02)
    torch.testing.assert_close(plan.action, plan.mean[:, 0])
    assert plan.value.min() > -0.1


def test_an_optimum_out_of_reach_ends_at_the_bound() -> None:
    hill = Hill(8, 1)
    hill.goal = torch.full_like(hill.goal, 3.0)
    plan = on_hill(replace(ASCENT, gradient=GradientConfig(iterations=60, step=0.3, anchor=0.0)), hill).plan(
        observations(1), starts(True), True
    )
    torch.testing.assert_close(plan.mean, torch.ones_like(plan.mean), rtol=0, atol=1e-3)


@METHODS
def test_anchor_pulls_the_optimum_by_its_price(config: PlannerConfig) -> None:
    """-20 |a - goal|^2 - w |a - anchor|^2 is highest at (20 goal + w anchor) / (20 + w)."""
    hill = Hill(config.horizon, 2)
    search = on_hill(replace(config, gradient=GradientConfig(iterations=80, step=0.1, anchor=10.0)), hill)
    draws = draws_of(config, 2)
    plan = search.plan(observations(2), starts(True, True), evaluate=True, draws=draws)
    if config.method == "gradient":
        anchor = draws.prior[:, :, 0].tanh()
    else:
        request = PlanRequest(observations(2), starts(True, True), evaluate=True, draws=draws)
        anchor = on_hill(config, hill)._search(request).mean
    best = (20.0 * hill.goal.squeeze(2) + 10.0 * anchor) / 30.0
    torch.testing.assert_close(plan.mean, best.transpose(0, 1), rtol=0, atol=0.02)
    away = (plan.mean.transpose(0, 1) - hill.goal.squeeze(2)).square().sum((0, 2))
    torch.testing.assert_close(plan.value, -20.0 * away, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("horizon", [8, 12])
def test_predicted_return_rises_with_every_small_step(horizon: int) -> None:
    config = replace(
        ASCENT, horizon=horizon, gradient=GradientConfig(seeds=5, iterations=10, step=0.003, anchor=0.0)
    )
    trace = torch.stack(planner(config).plan(observations(3), starts(*[True] * 3), True).trace)
    assert len(trace) == 11 and trace.shape[1:] == (3, 5)
    assert (trace.diff(dim=0) > -1e-4).all() and (trace[-1] > trace[0]).all()


@METHODS
def test_the_plan_is_the_best_sequence_that_was_evaluated(config: PlannerConfig) -> None:
    """Its value is that of its actions, predicted by the plain rollout; more iterations never lower it."""
    values = []
    for iterations in (1, 3, 8):
        gradient = GradientConfig(iterations=iterations, step=0.2, anchor=0.0)
        search = planner(replace(config, gradient=gradient))
        plan = search.plan(observations(2), starts(True, True), True)
        plain = ModelRollout(search.model, 0.97)
        with torch.no_grad():
            latent, sequence = plain.encode(observations(2)), plan.mean.transpose(0, 1).unsqueeze(2)
            predicted = plain.returns(latent, sequence, torch.zeros(2, 1, 4), (0, 1)).squeeze(1)
        torch.testing.assert_close(plan.value, predicted, rtol=1e-3, atol=1e-3)
        ascent = plan.trace[-1 - iterations :]
        torch.testing.assert_close(plan.value, torch.stack(ascent).amax((0, 2)))
        assert (plan.value > ascent[0].amax(1)).all()
        values.append(plan.value)
    assert (values[2] > values[0]).all()


def test_the_previous_plan_competes_moved_on_by_one_decision() -> None:
    search = planner(ASCENT)
    before = search.plan(observations(2), starts(True, True), True).mean.transpose(0, 1)
    latent = search.rollout.encode(observations(2), None)
    made = search._starts(latent, PlanRequest(observations(2), starts(False, True), evaluate=True))
    assert made.shape == (8, 2, 4, 4)
    torch.testing.assert_close(made[:-1, 0, -1], before[1:, 0])
    torch.testing.assert_close(made[-1, 0, -1], made[-1, 0, 0])
    torch.testing.assert_close(made[:, 1, -1], made[:, 1, 0])
    again = search.plan(observations(2), starts(False, False), True)
    first = planner(ASCENT).plan(observations(2), starts(True, True), True)
    assert (again.value >= first.value - 1e-3).all(), "a warm start goes on from where the last plan ended"


# ---- protocol ----


def draws_of(config: PlannerConfig, robots: int) -> PlanDraws:
    g = generator(8)
    seeds = config.gradient.seeds if config.method == "gradient" else config.num_pi_trajs
    return PlanDraws(
        prior=torch.randn(config.horizon, robots, seeds, 4, generator=g),
        samples=torch.randn(
            config.iterations,
            config.horizon,
            robots,
            config.num_samples - config.num_pi_trajs,
            4,
            generator=g,
        ),
        terminal=torch.randn(config.iterations, robots, config.num_samples, 4, generator=g),
        heads=torch.tensor([[0, 1]] * config.iterations),
    )


@METHODS
def test_a_robot_in_a_batch_gets_the_plan_it_gets_alone(config: PlannerConfig) -> None:
    draws, one = draws_of(config, 3), slice(1, 2)
    both = planner(config).plan(observations(3), starts(True, True, True), True, draws=draws)
    own = replace(
        draws,
        prior=draws.prior[:, one],
        samples=draws.samples[:, :, one],
        terminal=draws.terminal[:, one],
    )
    alone = planner(config).plan(observations(3)[one], starts(True), True, draws=own)
    for name in ("mean", "std", "action", "value"):
        torch.testing.assert_close(getattr(both, name)[one], getattr(alone, name), rtol=1e-3, atol=1e-3)


@METHODS
def test_same_seed_same_plan_and_training_adds_noise(config: PlannerConfig) -> None:
    def run(seed: int, evaluate: bool = True) -> Tensor:
        search = planner(config, seed)
        for _ in range(2):
            plan = search.plan(observations(2), starts(False, False), evaluate)
        return plan.action

    torch.testing.assert_close(run(5), run(5), rtol=0, atol=0)
    torch.testing.assert_close(run(5, False), run(5, False), rtol=0, atol=0)
    assert (run(5) - run(6)).abs().max() > 1e-4
    assert (run(5) - run(5, False)).abs().max() > 1e-3


@METHODS
def test_deadline_is_overrun_by_less_than_one_iteration(config: PlannerConfig) -> None:
    config = replace(config, iterations=2, gradient=GradientConfig(iterations=500))
    hill = Hill(config.horizon, 1, seconds=0.02)
    search = on_hill(config, hill)
    for attempt in range(2):
        deadline = time.monotonic() + 0.15
        plan = search.plan(observations(1), starts(True), True, deadline=deadline)
        late = time.monotonic() - deadline
        assert plan.ended_by == "deadline" and 2 <= plan.iterations < 9, attempt
        assert late < hill.seconds + 0.02
        assert torch.isfinite(plan.value).all()


@pytest.mark.parametrize("method", ["mppi", "policy", "gradient", "mppi+gradient"])
def test_a_passed_deadline_gives_actions_of_the_prior_at_once(method: Any) -> None:
    search: Planner = planner(replace(ASCENT, method=method))
    plan = search.plan(observations(2), starts(True, True), True, deadline=time.monotonic() - 1.0)
    assert plan.iterations == 0 and plan.ended_by == ("policy" if method == "policy" else "deadline")
    assert torch.isfinite(plan.action).all() and torch.isfinite(plan.mean).all()
    assert plan.mean.shape == plan.std.shape == (2, 8, 4) and plan.std.min() > 0
    if method == "gradient":
        mode = planner(replace(ASCENT, method="policy")).plan(observations(2), starts(True, True), True)
        torch.testing.assert_close(plan.mean, mode.mean)


@METHODS
def test_masked_actions_stay_zero(config: PlannerConfig) -> None:
    search = planner(config, task_dim=6, action_dims=(4, 2))
    plan = search.plan(observations(2), starts(True, True), False, task=torch.tensor([0, 1]))
    assert plan.mean[1, :, 2:].abs().max() == 0 and plan.action[1, 2:].abs().max() == 0
    assert plan.mean[0].abs().min() > 0


@METHODS
def test_a_broken_model_gives_finite_actions_and_no_value(config: PlannerConfig) -> None:
    search = planner(config)
    with torch.no_grad():
        search.model.reward_head.layers[-1].bias.fill_(torch.nan)
    plan = search.plan(observations(1), starts(True), True)
    assert torch.isfinite(plan.action).all() and torch.isnan(plan.value).all()


def test_tolerance_ends_an_ascent_that_stands() -> None:
    config = replace(ASCENT, tolerance=0.02, gradient=GradientConfig(iterations=50, step=0.1))
    hill = Hill(8, 1)
    plan = on_hill(config, hill).plan(observations(1), starts(True), True)
    assert plan.ended_by == "converged" and plan.iterations < 50


def test_planning_follows_new_weights() -> None:
    search = planner(ASCENT)
    search.plan(observations(1), starts(True), True)
    search.model.load_state_dict(small_model(seed=4).state_dict())
    have = search.plan(observations(1), starts(True), True, draws=draws_of(ASCENT, 1))
    fresh = make_planner(small_model(seed=4), ASCENT, 0.97, generator())
    want = fresh.plan(observations(1), starts(True), True, draws=draws_of(ASCENT, 1))
    torch.testing.assert_close(have.mean, want.mean)
