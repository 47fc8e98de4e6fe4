"""MPPI: warm start, deadline, evaluation, determinism, and that it finds good actions."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from planning_support import generator, small_model
from torch import Tensor

from tdmpc2_core.config import from_mapping, to_mapping
from tdmpc2_core.errors import UserError
from tdmpc2_core.planning import MPPI, PlannerConfig, PolicyPlanner, make_planner, planner_preset
from tdmpc2_core.planning.trust_region import TrustRegion

SMALL = PlannerConfig(num_samples=32, num_elites=6, num_pi_trajs=4, iterations=3)


def planner(config: PlannerConfig = SMALL, seed: int = 0, **changes: Any) -> MPPI:
    return MPPI(small_model(**changes), config, 0.97, generator(seed))


def observations(robots: int, seed: int = 1) -> Tensor:
    return torch.randn(robots, 9, generator=generator(seed))


def starts(*flags: bool) -> Tensor:
    return torch.tensor(flags)


class Target:
    """A rollout whose return is highest at one known action per step: minus the squared distance to it."""

    def __init__(self, horizon: int, robots: int, size: int) -> None:
        self.goal = torch.rand(horizon, robots, 1, size, generator=generator(9)) * 1.2 - 0.6
        self.seconds = 0.0

    def encode(self, obs: Tensor, task: Tensor | None, shifts: Tensor | None = None) -> Tensor:
        return obs

    def prior(self, latent: Tensor, noise: Tensor, task: Tensor | None) -> Tensor:
        return noise.tanh()

    def returns(
        self, latent: Tensor, actions: Tensor, noise: Tensor, heads: tuple[int, ...], task: Tensor | None
    ) -> Tensor:
        time.sleep(self.seconds)
        return -20.0 * (actions - self.goal).square().sum((0, 3))


def test_finds_the_best_action_of_every_robot() -> None:
    search = planner(PlannerConfig(horizon=2, num_samples=512, num_elites=32, num_pi_trajs=8, iterations=8))
    search.rollout = target = Target(2, 2, 4)
    plan = search.plan(observations(2), starts(True, True), evaluate=True)
    assert (plan.mean - target.goal.squeeze(2).transpose(0, 1)).abs().mean() < 0.1
    torch.testing.assert_close(plan.action, plan.mean[:, 0])
    assert plan.iterations == 8 and plan.ended_by == "budget" and plan.std.max() < 0.5


def test_first_mask_decides_per_robot_what_is_carried_over() -> None:
    search = planner()
    search.plan(observations(2), starts(True, True), evaluate=True)
    previous = search._mean.clone()
    mean, std = search._initial(observations(2), starts(False, True), previous[:, :, None])
    torch.testing.assert_close(mean[:-1, 0], previous[1:, 0])
    assert mean[-1].abs().max() == 0 and mean[:, 1].abs().max() == 0
    assert std.min() == SMALL.max_std
    assert (
        search._initial(observations(3), starts(False, False, False), previous[:, :1, None])[0].abs().max()
        == 0
    )


def test_robots_do_not_influence_each_other() -> None:
    draws = record(planner(), 3)
    search = planner()
    both = search.plan(observations(3), starts(True, True, True), True, draws=draws)
    alone = planner().plan(observations(3)[1:2], starts(True), True, draws=only(draws, 1))
    torch.testing.assert_close(both.mean[1:2], alone.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both.action[1:2], alone.action, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("reuse", [False, True])
def test_compiled_and_plain_plans_are_equal(reuse: bool) -> None:
    config = replace(SMALL, reuse_prior_values=reuse)
    draws = record(planner(), 2)
    model = small_model()
    plans = []
    for choice in ("auto", "off"):
        search = MPPI(model, replace(config, kernels=choice), 0.97, generator())
        plans.append(search.plan(observations(2), starts(True, True), True, draws=draws))
    for name in ("action", "mean", "std", "value"):
        torch.testing.assert_close(getattr(plans[0], name), getattr(plans[1], name), atol=1e-4, rtol=1e-4)


def test_same_seed_same_actions_and_evaluation_mean_is_repeatable() -> None:
    runs = [
        planner(seed=5).plan(observations(2), starts(True, True), evaluate=False).action for _ in range(2)
    ]
    torch.testing.assert_close(runs[0], runs[1], atol=0, rtol=0)
    other = planner(seed=6).plan(observations(2), starts(True, True), evaluate=False).action
    assert (runs[0] - other).abs().max() > 1e-3


def test_sampled_evaluation_takes_an_elite_and_training_adds_noise() -> None:
    search = planner(replace(SMALL, evaluation="sample"))
    plan = search.plan(observations(1), starts(True), evaluate=True)
    assert (plan.action - plan.mean[:, 0]).abs().max() > 1e-4
    assert plan.action.abs().max() <= 1


def test_deadline_returns_the_best_so_far() -> None:
    search = planner(replace(SMALL, iterations=50))
    search.rollout = target = Target(3, 1, 4)
    target.seconds = 0.02
    deadline = time.monotonic() + 0.09
    plan = search.plan(observations(1), starts(True), True, deadline=deadline)
    late = time.monotonic() - deadline
    assert plan.ended_by == "deadline" and 1 <= plan.iterations < 6
    assert late < target.seconds + 0.01


def test_deadline_in_the_past_falls_back_to_the_policy_trajectories() -> None:
    plan = planner().plan(observations(2), starts(True, True), True, deadline=time.monotonic() - 1)
    assert plan.iterations == 0 and plan.ended_by == "deadline"
    assert torch.isfinite(plan.action).all() and torch.isnan(plan.value).all()
    assert plan.mean.shape == (2, 3, 4)


def test_tolerance_ends_a_converged_search() -> None:
    search = planner(replace(SMALL, iterations=60, tolerance=0.02))
    search.rollout = Target(3, 1, 4)
    plan = search.plan(observations(1), starts(True), True)
    assert plan.ended_by == "converged" and plan.iterations < 60


def test_nan_values_count_as_zero() -> None:
    search = planner()
    with torch.no_grad():
        search.model.reward_head.layers[-1].bias.fill_(torch.nan)
    plan = search.plan(observations(1), starts(True), True)
    assert torch.isfinite(plan.action).all() and plan.trace[0].abs().max() == 0


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_prior_weight_starts_at_the_policy(weight: float) -> None:
    search = planner(replace(SMALL, prior_weight=weight))
    prior = torch.full((3, 1, 4, 4), 0.4)
    mean, std = search._initial(observations(1), starts(True), prior)
    torch.testing.assert_close(mean, torch.full_like(mean, 0.4 * weight))
    torch.testing.assert_close(std, torch.full_like(std, max((1 - weight) * SMALL.max_std, SMALL.min_std)))


def test_masked_actions_stay_zero() -> None:
    search = planner(task_dim=6, action_dims=(4, 2))
    plan = search.plan(observations(2), starts(True, True), False, task=torch.tensor([0, 1]))
    assert plan.action[1, 2:].abs().max() == 0 and plan.std[1, :, 2:].abs().max() == 0
    assert plan.action[0].abs().min() > 0


def test_policy_planner_gives_the_mode_and_rolls_it_out() -> None:
    model = small_model()
    search = make_planner(model, planner_preset("policy"), 0.97, generator())
    assert isinstance(search, PolicyPlanner)
    plan = search.plan(observations(2), starts(True, True), True)
    with torch.no_grad():
        z = model.encode(observations(2))
        mode = model.policy(z).mean
        torch.testing.assert_close(plan.mean[:, 1], model.policy(model.next(z, mode)).mean)
    torch.testing.assert_close(plan.action, mode)
    assert plan.mean.shape == plan.std.shape == (2, 3, 4) and plan.ended_by == "policy"
    sampled = search.plan(observations(2), starts(True, True), False)
    assert (sampled.action - mode).abs().max() > 1e-4


def test_presets_and_settings() -> None:
    assert planner_preset("paper", action_dim=21).iterations == 8
    assert planner_preset("paper", action_dim=19).iterations == 6
    assert from_mapping(PlannerConfig, to_mapping(SMALL), "test") == SMALL
    with pytest.raises(ValueError, match="accepted: paper"):
        planner_preset("huge")
    for wrong in (
        {"num_elites": 900},
        {"temperature": "hot"},
        {"samples": 3},
        {"iterations": 2.5},
        {"method": "cem"},
    ):
        with pytest.raises(UserError, match=next(iter(wrong))):
            from_mapping(PlannerConfig, wrong, "test")


def record(search: MPPI, robots: int) -> Any:
    """Random numbers for one call of `SMALL` or a variant with as many candidates."""
    from tdmpc2_core.planning import PlanDraws

    g, cfg = generator(8), search.config
    normal = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return PlanDraws(
        prior=normal(cfg.horizon, robots, cfg.num_pi_trajs, 4),
        samples=normal(cfg.iterations, cfg.horizon, robots, cfg.num_samples - cfg.num_pi_trajs, 4),
        terminal=normal(cfg.iterations, robots, cfg.num_samples, 4),
        heads=torch.tensor([[0, 1]] * cfg.iterations),
    )


def only(draws: Any, robot: int) -> Any:
    """The random numbers of one robot out of a batch."""
    pick = slice(robot, robot + 1)
    return replace(
        draws,
        prior=draws.prior[:, pick],
        samples=draws.samples[:, :, pick],
        terminal=draws.terminal[:, pick],
    )


# ---- trust region ----


def near_prior(**settings: float | bool) -> PlannerConfig:
    return replace(SMALL, num_samples=256, prior_weight=1.0, trust_region=TrustRegion(**settings))


def on_target(config: PlannerConfig) -> tuple[MPPI, Target]:
    search = planner(config)
    search.rollout = target = Target(3, 2, 4)
    return search, target


def test_gate_leaves_the_prior_in_charge_unless_the_plan_promises_more() -> None:
    """The mode of `Target.prior` is 0, worth -20 |goal|^2; no plan is worth more than 0."""
    search, target = on_target(near_prior(gate=1e-3))
    worth = 20.0 * target.goal.square().sum((0, 2, 3))
    found = search.plan(observations(2), starts(True, True), evaluate=True)
    assert (found.value > -worth).all() and found.mean.abs().amax((1, 2)).min() > 0.05
    gate = float(worth.min() + 0.5 * (worth.max() - worth.min()))  # more than one robot's plan can promise
    search, _ = on_target(near_prior(gate=gate))
    found = search.plan(observations(2), starts(True, True), evaluate=True)
    acts = found.mean.abs().amax((1, 2)) > 0
    assert not acts[worth.argmin()] and torch.isclose(found.value, -worth, rtol=1e-4)[worth.argmin()]
    torch.testing.assert_close(found.action, found.mean[:, 0])


def test_distance_cost_moves_the_optimum_towards_the_prior() -> None:
    """-20 |a - goal|^2 - c |a|^2 / A is highest at goal / (1 + c / (20 A))."""
    deep = replace(near_prior(distance_cost=80.0), num_samples=512, num_elites=32, iterations=10)
    search, target = on_target(deep)
    found = search.plan(observations(2), starts(True, True), evaluate=True)
    wanted = target.goal.squeeze(2).transpose(0, 1) / 2.0
    assert (found.mean - wanted).abs().mean() < 0.06


@pytest.mark.parametrize("alike", [True, False])
def test_plans_compare_alike_where_the_end_is_valued_at_the_mode(alike: bool) -> None:
    search = planner(near_prior(valued_mode=alike))
    plan = torch.rand(3, 1, 1, 4, generator=generator(4)).expand(-1, -1, 256, -1)
    noise = search._terminal_noise(plan, 0, None)
    with torch.inference_mode():
        latent = search.rollout.encode(observations(1), None)
        values = search.rollout.returns(latent, plan, noise, (0, 1), None)
    assert (values.std() < 1e-5) == alike


def test_a_trust_region_needs_policy_trajectories() -> None:
    with pytest.raises(ValueError, match="num_pi_trajs must be at least 1"):
        replace(SMALL, num_pi_trajs=0, trust_region=TrustRegion(gate=1.0))
