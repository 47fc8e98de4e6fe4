"""The learner's options: n-step returns, masks, actor objectives, gates, task gradient, resume, precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tdmpc2_core.config import from_mapping, to_mapping
from tdmpc2_core.errors import UserError
from tdmpc2_core.learning import ActorOptions, Batch, Learner, LearnerConfig
from tdmpc2_core.learning.actor import OBJECTIVES
from tdmpc2_core.learning.losses import n_step_returns, time_weights, world_model_losses
from tdmpc2_core.learning.memory import keep_freed_memory
from tdmpc2_core.model import WorldModel, WorldModelConfig

O, A, B = 6, 3, 8  # noqa: E741


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_model(**overrides: Any) -> WorldModel:
    values = {
        "latent_dim": 16,
        "enc_dim": 16,
        "mlp_dim": 16,
        "num_q": 3,
        "dropout": 0.0,
        "episodic": True,
        **overrides,
    }
    model = WorldModel(WorldModelConfig(O, A, **values), seeded(0))
    with torch.no_grad():
        for head in (model.q_heads, model.target_q_heads, model.reward_head):
            head.layers[-1].weight.normal_(std=0.3, generator=seeded(1))
    return model


def make_batch(window: int, plan: bool = True, seed: int = 0) -> Batch:
    g = seeded(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    flat = (window, B, 1)
    return Batch(
        rand(window + 1, B, O),
        rand(window, B, A).tanh(),
        rand(*flat),
        (torch.rand(flat, generator=g) < 0.2).float(),
        torch.ones(flat),
        rand(window, B, A).tanh() if plan else None,
        rand(window, B, A).abs() if plan else None,
        torch.ones(flat, dtype=torch.bool) if plan else None,
    )


def learner(model: WorldModel | None = None, **overrides: Any) -> Learner:
    return Learner(small_model() if model is None else model, LearnerConfig(**overrides), seeded(5))


def weights(model: WorldModel) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.state_dict().values()]


def test_one_step_return_is_the_papers_bit_for_bit() -> None:
    batch, it = make_batch(3), learner()
    draws = it.draw(B)
    next_z, target = it.targets(batch, draws)
    model = it.model
    with torch.no_grad():
        z = model.encode(batch.obs[1:])
        action = model.policy(z, noise=draws.td_noise).action
        value = model.q_values(z, action, heads=draws.td_heads, target=True).amin(0)
    assert torch.equal(next_z, z)
    assert torch.equal(target, batch.reward + 0.99 * (1 - batch.terminated) * value)


def test_n_step_returns_by_hand() -> None:
    reward = torch.arange(1.0, 6.0)[:, None, None].expand(5, 4, 1).clone()
    terminated, valid = torch.zeros(5, 4, 1), torch.ones(5, 4, 1)
    terminated[1, 1] = 1  # terminal state after step 1
    valid[2:, 1] = 0
    valid[3:, 2] = 0  # time limit after step 2
    terminated[2, 3] = 1  # terminal state, rows behind it not marked
    reward[2:, 1], reward[3:, 2] = 100.0, 100.0
    result = n_step_returns(reward, terminated, valid, torch.tensor(0.5), horizon=3, n_step=3)
    full = [1 + 1 + 0.75, 2 + 1.5 + 1.0, 3 + 2 + 1.25]
    assert result.reward[:, 0, 0].tolist() == full
    assert result.bootstrap[:, 0, 0].tolist() == [0.125] * 3 and result.steps[:, 0, 0].tolist() == [3, 3, 3]
    assert result.reward[:2, 1, 0].tolist() == [2.0, 2.0] and result.bootstrap[:2, 1, 0].tolist() == [
        0.0,
        0.0,
    ]
    assert result.reward[:, 2, 0].tolist() == [2.75, 3.5, 3.0]
    assert result.bootstrap[:, 2, 0].tolist() == [0.125, 0.25, 0.5] and result.steps[:, 2, 0].tolist() == [
        3,
        2,
        1,
    ]
    assert (
        result.reward[:, 3, 0].tolist() == [2.75, 3.5, 3.0]
        and result.bootstrap[:, 3, 0].tolist() == [0.0] * 3
    )


def test_n_step_target_bootstraps_from_the_last_true_observation() -> None:
    batch, it = make_batch(5), learner(n_step=3)
    batch = replace(batch, terminated=torch.zeros(5, B, 1))
    batch.valid[2:, 0] = 0
    draws = it.draw(B)
    _, target = it.targets(batch, draws)
    model = it.model
    with torch.no_grad():
        z = model.encode(torch.stack([batch.obs[2, 0], batch.obs[2, 0], batch.obs[4, 1]]))
        noise = torch.stack([draws.td_noise[0, 0], draws.td_noise[1, 0], draws.td_noise[1, 1]])
        action = model.policy(z, noise=noise).action
        value = model.q_values(z, action, heads=draws.td_heads, target=True).amin(0)[:, 0]
    r = batch.reward[..., 0]
    expected = [r[0, 0] + 0.99 * r[1, 0] + 0.99**2 * value[0], r[1, 0] + 0.99 * value[1]]
    expected.append(r[1, 1] + 0.99 * r[2, 1] + 0.99**2 * r[3, 1] + 0.99**3 * value[2])
    assert torch.allclose(
        torch.stack([target[0, 0, 0], target[1, 0, 0], target[1, 1, 0]]), torch.stack(expected), atol=1e-4
    )


def test_losses_equal_the_papers_sums() -> None:
    batch, it = make_batch(3), learner()
    next_z, target = it.targets(batch, it.draw(B))
    m, c = it.model, it.config
    losses = world_model_losses(
        m, batch, next_z, target, time_weights(0.5, 3, it.device), c.loss_weights, None
    )
    z, consistency, reward, value, zs = m.encode(batch.obs[0]), 0.0, 0.0, 0.0, []
    for t in range(3):
        reward += (
            0.5**t
            * m.reward_two_hot.cross_entropy(m.reward_logits(z, batch.action[t]), batch.reward[t]).mean()
            / 3
        )
        for q in m.q_logits(z, batch.action[t]):
            value += 0.5**t * m.value_two_hot.cross_entropy(q, target[t]).mean() / 9
        z = m.next(z, batch.action[t])
        zs.append(z)
        consistency += 0.5**t * (z - next_z[t]).square().mean() / 3
    logits = m.termination_logits(torch.stack(zs))
    termination = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.terminated)
    total = 20 * consistency + 0.1 * reward + termination + 0.1 * value
    for a, b in zip(
        (losses.consistency, losses.reward, losses.value, losses.termination, losses.total),
        (consistency, reward, value, termination, total),
        strict=True,
    ):
        assert torch.allclose(a, torch.as_tensor(b), rtol=1e-5)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_rows_behind_the_end_do_not_matter(objective: str) -> None:
    options = ActorOptions(objective=objective, scale_threshold=0.0)
    results = []
    for noise in (0.0, 1.0):
        batch = make_batch(5)
        batch.valid[2:, :3] = 0
        for field in (batch.action, batch.reward, batch.plan_mean, batch.obs[1:]):
            field[2:, :3] += noise
        it = learner(n_step=3, actor=options, soft_termination=True)
        for _ in range(2):
            metrics = it.update(batch)
        results.append((weights(it.model), metrics))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert torch.allclose(results[0][1]["total_loss"], results[1][1]["total_loss"], atol=1e-6)


def test_leak_of_the_policy_gradient_into_the_task_embedding() -> None:
    config = {"task_dim": 4, "action_dims": (3, 2), "episodic": False}
    batch = replace(make_batch(3), task=torch.tensor([0, 1] * 4))
    for leak in (True, False):
        it = learner(small_model(**config), leak_policy_gradient_to_task=leak, task_discounts=(0.95, 0.99))
        it.update(batch)
        assert (it.model.task_embedding.grad is not None) == leak
        assert all(p.grad is None for n, p in it.model.named_parameters() if n != "task_embedding")


@pytest.mark.parametrize("states", ["predicted", "mixed"])
def test_the_policy_learns_on_predicted_states_or_on_encoded_ones_too(states: str) -> None:
    it, batch, seen = learner(actor_states=states), make_batch(3), []
    with torch.no_grad():
        encoded = it.model.encode(batch.obs)
        z = encoded[0]
        predicted = torch.stack([z, *(z := it.model.next(z, action) for action in batch.action)])
    step = it._policy_step
    it._policy_step = lambda *args: seen.append(args[2]) or step(*args)  # type: ignore[method-assign]
    it.update(batch)
    wanted = predicted.clone()
    if states == "mixed":
        wanted[:, ::2] = encoded[:, ::2]
    torch.testing.assert_close(seen[0], wanted)


@pytest.mark.parametrize("tasks", [False, True])
def test_resume_continues_bit_for_bit(tasks: bool) -> None:
    extra = {"task_dim": 4, "action_dims": (3, 2), "episodic": False} if tasks else {}
    batch = replace(make_batch(3), task=torch.tensor([0, 1] * 4) if tasks else None)
    first = learner(small_model(dropout=0.1, **extra))
    first.update(batch)
    second = learner(small_model(dropout=0.1, **extra))
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    a, b = first.update(batch), second.update(batch)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert all(torch.equal(x, y) for x, y in zip(weights(first.model), weights(second.model), strict=True))
    assert second.updates == 2


def test_a_resumed_learner_steps_at_its_own_rate() -> None:
    first = learner(small_model())
    first.update(make_batch(3))
    second = learner(first.model, lr=3e-5, enc_lr_scale=0.5)
    second.load_state_dict(first.state_dict())
    assert {group["lr"] for group in second.optimiser.param_groups} == {3e-5, 1.5e-5}


def test_global_random_state_is_untouched_and_losses_fall() -> None:
    it = learner(small_model(dropout=0.1), lr=1e-3)
    before = torch.get_rng_state()
    losses = [it.update(make_batch(3))["total_loss"] for _ in range(60)]
    assert torch.equal(before, torch.get_rng_state())
    assert losses[-1] < 0.8 * losses[0] and not losses[0].requires_grad


def test_bfloat16_stays_close_to_float32() -> None:
    metrics = {}
    for precision in ("float32", "bfloat16"):
        it = learner(precision=precision, n_step=3, actor=ActorOptions(objective="tdmpc_square"))
        metrics[precision] = it.update(make_batch(5))
        assert all(p.dtype == torch.float32 for p in it.model.parameters())
    for name in ("total_loss", "value_loss", "reward_loss", "consistency_loss", "pi_loss", "grad_norm"):
        a, b = metrics["float32"][name], metrics["bfloat16"][name]
        assert b.dtype == torch.float32 and torch.allclose(a, b, rtol=0.05, atol=1e-3), name


def test_frozen_parts_stay() -> None:
    model = small_model()
    model.encoder.requires_grad_(False)
    model.q_heads.requires_grad_(False)
    before = [p.clone() for p in (*model.encoder.parameters(), *model.q_heads.parameters())]
    dynamics = model.dynamics.layers[0].weight.detach().clone()
    learner(model).update(make_batch(3))
    after = (*model.encoder.parameters(), *model.q_heads.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.equal(dynamics, model.dynamics.layers[0].weight)


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="have 3 steps, the learner needs 5"):
        learner(n_step=3).update(make_batch(3))
    with pytest.raises(ValueError, match="needs plan fields"):
        learner(actor=ActorOptions(objective="boom")).update(make_batch(3, plan=False))
    with pytest.raises(ValueError, match="reward has shape"):
        learner().update(replace(make_batch(3), reward=torch.zeros(3, B)))
    with pytest.raises(ValueError, match="go together"):
        learner().update(replace(make_batch(3), plan_std=None))
    with pytest.raises(ValueError, match="ActorOptions: objective: expected one of max_q, .*got text 'sac'"):
        ActorOptions(objective="sac")
    with pytest.raises(UserError, match="rate"):
        from_mapping(LearnerConfig, {"rate": 1}, "test")
    config = LearnerConfig(n_step=3, task_discounts=(0.9,), actor=ActorOptions("bmpc"))
    assert from_mapping(LearnerConfig, to_mapping(config), "test") == config


def test_keep_freed_memory_is_harmless() -> None:
    assert keep_freed_memory() in (True, False)
