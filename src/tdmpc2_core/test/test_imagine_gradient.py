"""Predicted returns with their gradient: against finite differences, autograd and the score's formula."""

from typing import Any

import pytest
import torch
from planning_support import generator, small_model
from torch import Tensor

from tdmpc2_core.imagine.gradient import GradientRollout
from tdmpc2_core.imagine.rollout import ModelRollout
from tdmpc2_core.model.functional import simnorm

VARIANTS: list[dict[str, Any]] = [
    {},
    {"episodic": True},
    {"num_q": 5},
    {"normalise_obs": True},
    {"task_dim": 6, "action_dims": (4, 2, 3)},
    {"reward_range": (-2.0, 3.0), "value_range": (0.0, 50.0)},
    {"residual_dim": 12},
]


def observations(robots: int, seed: int = 1) -> Tensor:
    return torch.randn(robots, 9, generator=generator(seed))


def tasks(model: Any) -> Tensor | None:
    return torch.tensor([0, 2, 1]) if model.config.num_tasks else None


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_slope_equals_finite_differences(changes: dict[str, Any]) -> None:
    model = small_model(**changes).double()
    rollout = GradientRollout(model, 0.97, soft_termination=True)
    heads, task = ((3, 1) if model.config.num_q == 5 else (0, 1)), tasks(model)
    g = generator(2)
    actions = torch.rand(4, 3, 2, 4, generator=g, dtype=torch.float64) * 2 - 1
    latent = simnorm(torch.randn(3, 16, generator=g, dtype=torch.float64), 8)
    values, slope = rollout.gradient(latent, actions, heads, task)
    zero, h = torch.zeros_like(actions[0]), 1e-5
    torch.testing.assert_close(values, rollout.returns(latent, actions, zero, heads, task))
    for _ in range(6):
        direction = torch.randn(actions.shape, generator=g, dtype=torch.float64)
        up, down = (
            rollout.returns(latent, actions + sign * h * direction, zero, heads, task) for sign in (1, -1)
        )
        torch.testing.assert_close(
            (slope * direction).sum((0, 3)), (up - down) / (2 * h), rtol=1e-6, atol=1e-7
        )


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_returns_and_slope_equal_those_of_autograd(changes: dict[str, Any], soft: bool) -> None:
    model = small_model(**changes)
    discount = (0.9, 0.95, 0.99) if model.config.num_tasks else 0.97
    rollout = GradientRollout(model, discount, soft)
    plain = ModelRollout(model, discount, soft)
    heads, task, g = (1, 0), tasks(model), generator(3)
    actions, noise = (torch.randn(*shape, 4, generator=g).tanh() for shape in ((5, 3, 2), (3, 2)))
    with torch.no_grad():
        latent = plain.encode(torch.randn(3, 9, generator=g), task)
        drawn = plain.returns(latent, actions, noise, heads, task)
    torch.testing.assert_close(
        rollout.returns(latent, actions, noise, heads, task), drawn, rtol=1e-4, atol=1e-4
    )
    actions.requires_grad_()
    want = plain.returns(latent, actions, torch.zeros_like(noise), heads, task)
    (want_slope,) = torch.autograd.grad(want.sum(), actions)
    have, slope = rollout.gradient(latent, actions.detach(), heads, task)
    torch.testing.assert_close(have, want.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(slope, want_slope, rtol=1e-3, atol=1e-4)
