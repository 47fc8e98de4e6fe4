"""Layers, distributions, normaliser, tasks and pixels on their own."""

from __future__ import annotations

import pytest
import torch

from tdmpc2_core.model import TwoHot, WorldModel, WorldModelConfig, world_model_config
from tdmpc2_core.model.distributions import (
    gaussian_kl,
    gaussian_log_density,
    squashed_gaussian,
    student_log_density,
)
from tdmpc2_core.model.encoder import draw_shifts, shift
from tdmpc2_core.model.functional import simnorm


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_simnorm_and_gradient() -> None:
    x = (rand(2, 5, 32) * 10).requires_grad_()
    reference = x.detach().double().requires_grad_()
    expected = reference.view(2, 5, 4, 8).softmax(-1).view(2, 5, 32)
    weight = rand(2, 5, 32, seed=1)
    y = simnorm(x, 8)
    (y * weight).sum().backward()
    (expected * weight.double()).sum().backward()
    assert torch.allclose(y.double(), expected, atol=1e-6)
    assert torch.allclose(x.grad.double(), reference.grad, atol=1e-6)
    assert torch.isfinite(simnorm(torch.tensor([[1e4] + [0.0] * 7]), 8)).all()


def test_two_hot_edges() -> None:
    two_hot = TwoHot(101, -10.0, 10.0)
    value = torch.tensor([[-1e9], [-3.0], [0.0], [0.21], [22025.4657948], [1e9]])
    encoded = two_hot.encode(value)
    assert torch.allclose(encoded.sum(-1), torch.ones(6)) and torch.all(encoded >= 0)
    assert encoded[0, 0] == 1 and encoded[-1, 100] == 1
    logits = rand(6, 101)
    dense = -(encoded * logits.log_softmax(-1)).sum(-1, keepdim=True)
    assert torch.allclose(two_hot.cross_entropy(logits, value), dense, atol=1e-5)
    heads = rand(3, 6, 101)
    assert two_hot.cross_entropy(heads, value).shape == (3, 6, 1)


def test_linear_two_hot_is_exact_between_its_bins() -> None:
    two_hot = TwoHot(101, 20.0, 120.0, linear=True)
    value = torch.tensor([[-5.0], [20.0], [63.7], [120.0], [500.0]])
    encoded = two_hot.encode(value)
    assert (encoded > 0).sum(-1).tolist() == [1, 1, 2, 1, 1]
    back = two_hot.decode((encoded + 1e-30).log())
    assert torch.allclose(back, torch.tensor([[20.0], [20.0], [63.7], [120.0], [120.0]]), atol=1e-3)


@pytest.mark.parametrize("ends", [(1.0,), (2.0, 1.0)])
def test_a_range_has_two_ends(ends: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="value_range must be empty or"):
        WorldModelConfig(5, 2, value_range=ends)


def test_policy_densities() -> None:
    output, noise = rand(4, 6), rand(4, 3, seed=1)
    sample = squashed_gaussian(output, noise, -10.0, 2.0)
    normal = torch.distributions.Normal(output[:, :3], sample.log_std.exp())
    before = output[:, :3] + noise * sample.log_std.exp()
    expected = (normal.log_prob(before) - (1 - before.tanh().square() + 1e-6).log()).sum(-1, keepdim=True)
    assert torch.allclose(sample.log_prob, expected, atol=1e-4)
    assert torch.allclose(sample.entropy, -sample.log_prob)
    assert torch.allclose(sample.scaled_entropy, -3 * sample.gaussian_log_prob, atol=1e-4)
    deterministic = squashed_gaussian(output, None, -10.0, 2.0)
    assert torch.equal(deterministic.action, deterministic.mean)


def test_gaussian_formulas() -> None:
    mean, std, other, width = (
        rand(5, 3),
        rand(5, 3, seed=1).exp(),
        rand(5, 3, seed=2),
        rand(5, 3, seed=3).exp(),
    )
    p, q = torch.distributions.Normal(mean, std), torch.distributions.Normal(other, width)
    kl = torch.distributions.kl_divergence(p, q).sum(-1, keepdim=True)
    assert torch.allclose(gaussian_kl(mean, std, other, width), kl, atol=1e-5)
    assert torch.allclose(
        gaussian_log_density(other, mean, std), p.log_prob(other).sum(-1, keepdim=True), atol=1e-4
    )


def test_student_density_is_torchs_in_one_dimension_and_a_gaussian_in_the_limit() -> None:
    mean, scale, x = rand(5, 1), rand(5, 1, seed=1).exp(), rand(5, 1, seed=2)
    torchs = torch.distributions.StudentT(3.0, mean, scale).log_prob(x)
    assert torch.allclose(student_log_density(x, mean, scale, 3.0), torchs, atol=1e-5)
    mean, scale, x = (
        rand(5, 4).double(),
        rand(5, 4, seed=1).double().exp(),
        rand(5, 4, seed=2).double(),
    )
    limit = gaussian_log_density(x, mean, scale)
    assert torch.allclose(student_log_density(x, mean, scale, 1e6), limit, atol=1e-3)


def test_ensemble_heads_frozen_and_dropout() -> None:
    model = WorldModel(world_model_config("robot", 9, 3, num_q=4, dropout=0.5))
    with torch.no_grad():
        model.q_heads.layers[-1].weight.normal_(generator=torch.Generator().manual_seed(0))
    z, action = rand(2, 7, 128), rand(2, 7, 3, seed=1).requires_grad_()
    every = model.q_logits(z, action)
    assert every.shape == (4, 2, 7, 101)
    assert torch.allclose(model.q_logits(z, action, heads=[3, 1]), every[[3, 1]], atol=1e-5)
    model.q_values(z, action, heads=torch.tensor([0]), frozen=True).sum().backward()
    assert action.grad is not None and all(p.grad is None for p in model.q_heads.parameters())
    model.q_values(z, action).sum().backward()
    assert all(p.grad is not None for p in model.q_heads.parameters())
    dropped = [
        model.q_logits(z, action, dropout_generator=torch.Generator().manual_seed(s)) for s in (5, 5, 6)
    ]
    assert torch.equal(dropped[0], dropped[1]) and not torch.equal(dropped[0], dropped[2])
    assert not torch.allclose(dropped[0], every, atol=1e-3)


def test_normaliser() -> None:
    model = WorldModel(world_model_config("robot", 4, 2, normalise_obs=True))
    scale, shift = torch.tensor([3.0, 0.1, 50.0, 0.0]), torch.tensor([1.0, -2.0, 0.0, 5.0])
    data = rand(4000, 4) * scale + shift
    for part in data.split(250):
        model.normaliser.update(part.view(5, 50, 4))
    normaliser = model.normaliser
    assert torch.allclose(normaliser.mean, data.mean(0), atol=1e-2)
    assert torch.allclose(normaliser.variance, data.var(0, correction=0), rtol=1e-3)
    normalised = normaliser(data)
    assert torch.allclose(normalised[:, :3].std(0), torch.ones(3), atol=1e-2) and torch.all(
        normalised[:, 3].abs() < 0.1
    )
    assert normaliser(torch.full((4,), 1e6)).max() == 10
    frozen = normaliser.mean.clone()
    model.eval()
    normaliser.update(data + 100)
    assert torch.equal(normaliser.mean, frozen)
    assert torch.equal(model.encode(data[:3]), model.encoder(normaliser(data[:3])))
    plain = WorldModel(world_model_config("robot", 4, 2))
    plain.normaliser.update(data)
    assert torch.equal(plain.normaliser(data), data)


def test_tasks() -> None:
    config = WorldModelConfig(7, 4, latent_dim=16, enc_dim=16, mlp_dim=16, task_dim=8, action_dims=(4, 2, 3))
    model = WorldModel(config)
    with torch.no_grad():
        model.task_embedding[1] = 2.0
    task = torch.tensor([1, 0, 2, 1, 0])
    z = model.encode(rand(3, 5, 7), task)
    assert model.task_embedding[1].norm().item() == pytest.approx(1.0, abs=1e-5)
    sample = model.policy(z, task, noise=rand(3, 5, 4))
    assert torch.all(sample.action[:, 1, 2:] != 0) and torch.all(sample.action[:, [0, 3], 2:] == 0)
    assert torch.all(sample.log_std[:, 2, 3:] == 0) and sample.action_dims.flatten().tolist() == [
        2,
        4,
        3,
        2,
        4,
    ]
    assert torch.allclose(
        model.next(z, sample.action, task)[:, 0], model.next(z[:, 0], sample.action[:, 0], 1), atol=1e-6
    )
    with pytest.raises(ValueError, match="give the task index"):
        model.encode(rand(3, 7))


def test_pixels() -> None:
    config = WorldModelConfig(9, 2, obs_kind="pixels", enc_dim=16, mlp_dim=16)
    model = WorldModel(config)
    frames = torch.randint(
        0, 256, (2, 3, 9, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    z = model.encode(frames)
    assert z.shape == (2, 3, 512) and torch.equal(z, model.encode(frames))
    assert torch.allclose(z.view(2, 3, 64, 8).sum(-1), torch.ones(2, 3, 64), atol=1e-5)
    shifts = draw_shifts((2, 3), torch.Generator().manual_seed(1), torch.device("cpu"))
    moved = model.encode(frames, shifts=shifts)
    assert not torch.allclose(moved, z)
    image = torch.arange(64.0 * 64).view(1, 1, 64, 64)
    for seed in range(4):
        x, y = draw_shifts((1,), torch.Generator().manual_seed(seed), torch.device("cpu"))[0].tolist()
        shifted = shift(image, torch.tensor([[x, y]]))
        inside = shifted[0, 0, 10:50, 10:50] - image[0, 0, 10:50, 10:50]
        assert torch.all(inside == 64 * (y - 3) + (x - 3)) and {x, y} <= set(range(7))
    assert torch.equal(shift(image, torch.tensor([[3, 3]])), image)


def test_no_termination_head() -> None:
    with pytest.raises(ValueError, match="episodic=True"):
        WorldModel(world_model_config("robot", 4, 2)).termination(rand(1, 128))
