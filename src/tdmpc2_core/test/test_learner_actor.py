"""Formulas, gates and masks of the actor objectives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from planning_support import generator, small_model

from tdmpc2_core.learning import LearnerConfig
from tdmpc2_core.learning.actor import OBJECTIVES, ActorInputs, ActorOptions, objective
from tdmpc2_core.learning.batch import Batch
from tdmpc2_core.learning.learner import Learner
from tdmpc2_core.model.distributions import PolicySample

A, B = 3, 8


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def actor_inputs(scale: float = 3.0, plan_mask: torch.Tensor | None = None) -> ActorInputs:
    g = seeded(2)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    raw, log_std, noise = rand(4, B, A), rand(4, B, A) * 0.3, rand(4, B, A)
    sample = PolicySample((raw + noise * log_std.exp()).tanh(), raw.tanh(), log_std, noise, A)
    mask = torch.ones(3, B, 1) if plan_mask is None else plan_mask
    return ActorInputs(
        sample,
        rand(4, B, 1),
        torch.tensor(scale),
        torch.tensor(2.0),
        rand(3, B, A).tanh(),
        torch.ones(3, B, 1),
        None,
        rand(3, B, A).tanh(),
        rand(3, B, A).abs() * 0.2,
        mask,
    )


def test_objective_formulas() -> None:
    x = actor_inputs()
    s = x.sample
    base = OBJECTIVES["max_q"].loss(x, ActorOptions())
    assert torch.allclose(base, -(1e-4 * s.scaled_entropy + x.q / 3.0))
    squashed = OBJECTIVES["max_q"].loss(x, ActorOptions(entropy="squashed", entropy_coef=0.1))
    assert torch.allclose(squashed, 0.1 * s.log_prob - x.q / 3.0, atol=1e-6)
    normal = torch.distributions.Normal(x.plan_mean, x.plan_std.clamp(min=0.05))
    term = -A / 61 * normal.log_prob(s.action[:3]).sum(-1, keepdim=True) / 3.0
    square = OBJECTIVES["tdmpc_square"].loss(x, ActorOptions(objective="tdmpc_square"))
    assert torch.allclose(square[:3], base[:3] + term, atol=1e-5) and torch.equal(square[3], base[3])
    own = torch.distributions.Normal(x.plan_mean, s.log_std[:3].exp().clamp(min=0.05))
    share = (x.q[:3] / 3.0).softmax(1)
    alignment = -A / 50 * (share * own.log_prob(s.action[:3]).sum(-1, keepdim=True)).sum(1) / 3.0
    boom = OBJECTIVES["boom"].loss(x, ActorOptions(objective="boom"))
    assert torch.allclose(boom[:3].mean(1), base[:3].mean(1) + alignment, atol=1e-5)
    policy = torch.distributions.Normal(s.mean[:3], s.log_std[:3].exp())
    kl = torch.distributions.kl_divergence(policy, normal).sum(-1, keepdim=True)
    bmpc = OBJECTIVES["bmpc"].loss(x, ActorOptions(objective="bmpc"))
    assert torch.allclose(bmpc[:3], kl / 2.0 - 1e-4 * s.scaled_entropy[:3], atol=1e-4)
    bc = OBJECTIVES["bc"].loss(x, ActorOptions(objective="bc", bc_weight=2.0))
    assert torch.allclose(
        bc[:3], base[:3] + 2 * (s.action[:3] - x.action).square().mean(-1, keepdim=True), atol=1e-6
    )


def test_a_far_plan_pulls_less_than_a_near_one_under_a_student_t() -> None:
    def pull(distance: float, freedom: float | None) -> float:
        x = actor_inputs(3.0)
        action = x.sample.action.detach().requires_grad_()
        plan = action[:3].detach() + distance
        sample = replace(x.sample, action=action)
        options = ActorOptions(objective="tdmpc_square", plan_freedom=freedom)
        x = replace(x, sample=sample, plan_mean=plan, plan_std=torch.full_like(plan, 0.05), q=x.q.detach())
        OBJECTIVES["tdmpc_square"].loss(x, options)[:3].sum().backward()
        base = actor_inputs(3.0).sample.action.detach().requires_grad_()
        OBJECTIVES["max_q"].loss(replace(x, sample=replace(x.sample, action=base)), options)[
            :3
        ].sum().backward()
        return float((action.grad - base.grad).norm())

    near, far = 0.02, 0.5
    assert pull(far, None) == pytest.approx(far / near * pull(near, None), rel=1e-3)
    assert pull(far, float(A)) < pull(near, float(A))


@pytest.mark.parametrize("objective", ["tdmpc_square", "boom"])
def test_gate_and_missing_plans(objective: str) -> None:
    evaluate = OBJECTIVES[objective].loss
    options = ActorOptions(objective=objective)
    base = OBJECTIVES["max_q"].loss(actor_inputs(1.5), options)
    assert torch.allclose(evaluate(actor_inputs(1.5), options), base)
    assert not torch.allclose(evaluate(actor_inputs(1.5), replace(options, scale_threshold=1.0)), base)
    none = actor_inputs(3.0, torch.zeros(3, B, 1))
    none = replace(
        none, plan_mean=torch.full_like(none.plan_mean, torch.nan), plan_std=none.plan_std * torch.nan
    )
    assert torch.allclose(evaluate(none, options), OBJECTIVES["max_q"].loss(none, options))
    some = torch.zeros(3, B, 1)
    some[:, 2] = 1
    mixed = evaluate(actor_inputs(3.0, some), options) - OBJECTIVES["max_q"].loss(actor_inputs(3.0), options)
    assert torch.all(mixed[:3, 2] != 0) and torch.all(mixed[:, [0, 1, 3]] == 0)


@pytest.mark.parametrize(
    ("size", "weight"), [(12, 12 / 50), (23, 23 / 50), (24, 0.024), (48, 0.048), (49, 49 / 50)]
)
def test_weight_of_booms_alignment_by_action_size(size: int, weight: float) -> None:
    g = seeded(4)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    log_std, noise = rand(4, B, size) * 0.3, rand(4, B, size)
    raw = rand(4, B, size)
    sample = PolicySample((raw + noise * log_std.exp()).tanh(), raw.tanh(), log_std, noise, size)
    ones = torch.ones(3, B, 1)
    x = ActorInputs(
        sample, rand(4, B, 1), torch.tensor(3.0), torch.tensor(2.0), rand(3, B, size).tanh(), ones,
        None, rand(3, B, size).tanh(), rand(3, B, size).abs(), ones,
    )  # fmt: skip
    rule = OBJECTIVES["boom"].loss(x, ActorOptions(objective="boom"))
    given = OBJECTIVES["boom"].loss(x, ActorOptions(objective="boom", plan_weight=weight))
    other = OBJECTIVES["boom"].loss(x, ActorOptions(objective="boom", plan_weight=2 * weight))
    assert torch.equal(rule, given) and not torch.allclose(rule, other)


def test_reduction_over_the_two_heads() -> None:
    assert {name: row.heads for name, row in OBJECTIVES.items()} == {
        "max_q": "mean", "tdmpc_square": "mean", "boom": "min", "bmpc": None, "bc": "mean"
    }  # fmt: skip


def test_settings_accept_the_registered_names_alone() -> None:
    for name, row in OBJECTIVES.items():
        assert ActorOptions(objective=name).objective == name and row.summary
    with pytest.raises(ValueError, match="max_q, tdmpc_square.*did you mean 'max_q'"):
        ActorOptions(objective="maxq")


def test_an_objective_is_one_function_with_its_row() -> None:
    """A made-up one: the policy shall leave its action at a constant."""

    @objective(heads=None)
    def still(inputs: ActorInputs, options: ActorOptions) -> torch.Tensor:
        """Distance of the mean action from 0.3."""
        return (inputs.sample.mean - 0.3).square().sum(-1, keepdim=True)

    try:
        model, random = small_model(), generator(1)
        config = LearnerConfig(lr=3e-3, actor=ActorOptions(objective="still"))
        learner = Learner(model, config, generator(2))
        ones, zeros = torch.ones(3, 16, 1), torch.zeros(3, 16, 1)
        obs = torch.randn(4, 16, 9, generator=random)
        batch = Batch(obs, torch.rand(3, 16, 4, generator=random) * 2 - 1, zeros, zeros, ones)

        def distance() -> float:
            with torch.no_grad():
                return float((model.policy(model.encode(obs[0])).mean - 0.3).abs().mean())

        before = distance()
        for _ in range(60):
            learner.update(batch)
        assert distance() < 0.5 * before
    finally:
        del OBJECTIVES["still"]


def test_bc_counts_real_actions_and_valid_steps_alone() -> None:
    x, options = actor_inputs(), ActorOptions(objective="bc")
    mask = torch.ones(B, A)
    mask[0, 1:] = 0
    valid = torch.ones(3, B, 1)
    valid[2, 3] = 0
    masked = replace(x, action_mask=mask, valid=valid)
    extra = OBJECTIVES["bc"].loss(masked, options) - OBJECTIVES["max_q"].loss(x, options)
    error = (x.sample.action[:3] - x.action).square()
    assert torch.allclose(extra[:3, 0, 0], error[:, 0, 0], atol=1e-5)
    assert torch.allclose(extra[:2, 3, 0], error[:2, 3].mean(-1), atol=1e-5) and extra[2, 3].abs().max() == 0
