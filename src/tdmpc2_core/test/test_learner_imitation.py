"""The imitation term of the world-model loss."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from test_learner_update import A, B, learner, make_batch, seeded, small_model

from tdmpc2_core.learning import ActorOptions, Batch, Learner


def imitated(coefficient: float, batch: Batch) -> tuple[Learner, dict[str, torch.Tensor]]:
    it = learner(imitation_coef=coefficient, actor=ActorOptions("bmpc"))
    return it, it.update(batch, it.draw(B))


def test_imitation_shapes_the_encoder_and_leaves_the_policys_own_step_alone() -> None:
    batch = make_batch(3)
    (without, _), (with_term, metrics) = imitated(0.0, batch), imitated(5.0, batch)
    for one, other in zip(
        without.model.policy_head.parameters(), with_term.model.policy_head.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    assert any(
        not torch.equal(one, other)
        for one, other in zip(
            without.model.encoder.parameters(), with_term.model.encoder.parameters(), strict=True
        )
    )
    assert metrics["imitation_loss"] > 0.0


def test_imitation_is_the_weighted_distance_from_the_stored_plans() -> None:
    batch, model = make_batch(3), small_model()
    held = torch.rand(3, B, 1, generator=seeded(7)) < 0.5
    assert batch.plan_mean is not None
    batch = replace(batch, has_plan=held, plan_mean=torch.where(held, batch.plan_mean, torch.nan))
    _, metrics = imitated(1.0, batch)
    total, z = 0.0, model.encode(batch.obs[0])
    assert batch.plan_mean is not None
    for t in range(3):
        for b in range(B):
            if held[t, b]:
                mean = torch.tanh(model.policy_head(z[b : b + 1])[0, :A])
                square = (mean - batch.plan_mean[t, b]).square().mean().item()
                total += 0.5**t * 0.05**2 * math.log(1.0 + square / 0.05**2)
        z = model.next(z, batch.action[t])
    assert float(metrics["imitation_loss"]) == pytest.approx(total / (3 * B), rel=1e-5)


def test_imitation_needs_stored_plans() -> None:
    with pytest.raises(ValueError, match="imitation_coef needs plan_mean"):
        learner(imitation_coef=1.0).update(make_batch(3, plan=False))
