"""The fused rollouts equal the plain ones to rounding, and follow the model's weights."""

from typing import Any

import pytest
import torch
from planning_support import generator, small_model

from tdmpc2_core.learning.batch import Batch
from tdmpc2_core.learning.config import LearnerConfig
from tdmpc2_core.learning.learner import Learner
from tdmpc2_core.model.kernels import Kernels, kernels
from tdmpc2_core.planning.fused import FusedRollout
from tdmpc2_core.planning.rollout import ModelRollout, discounted_return

VARIANTS: list[dict[str, Any]] = [
    {},
    {"episodic": True},
    {"num_q": 5},
    {"normalise_obs": True},
    {"task_dim": 6, "action_dims": (4, 2, 3)},
    {"simnorm_dim": 4},
]


def compare(plain: ModelRollout, fused: FusedRollout, heads: tuple[int, ...] = (0, 1)) -> float:
    """Largest error of fused actions and returns, relative to 1 + |value|."""
    g, (horizon, robots, count) = generator(3), (3, 3, 10)
    size = plain.model.config.action_dim
    obs = torch.randn(robots, plain.model.config.obs_dim, generator=g)
    actions = torch.rand(horizon, robots, count, size, generator=g) * 2 - 1
    noise = torch.randn(robots, count, size, generator=g)
    prior_noise = torch.randn(horizon, robots, count, size, generator=g)
    task = torch.tensor([0, 2, 1]) if plain.model.config.num_tasks else None
    with torch.inference_mode():
        z, same = plain.encode(obs, task), fused.encode(obs, task)
        want = plain.prior(z, prior_noise, task), plain.returns(z, actions, noise, heads, task)
        have = fused.prior(same, prior_noise, task), fused.returns(same, actions, noise, heads, task)
    assert want[1].shape == (robots, count) and want[1].std() > 1e-3
    return max(float(((a - b).abs() / (1 + a.abs())).max()) for a, b in zip(want, have, strict=True))


def compiled() -> Kernels:
    library = kernels("auto")
    if library is None:
        pytest.skip("no C compiler here: nothing to compare")
    return library


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_compiled_kernels_equal_to_rounding(changes: dict[str, Any]) -> None:
    model = small_model(**changes)
    heads = (3, 1) if model.config.num_q == 5 else (0, 1)
    fused = FusedRollout(model, 0.97, kernels=compiled())
    assert compare(ModelRollout(model, 0.97), fused, heads) < 2e-5


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_equal_to_rounding(changes: dict[str, Any], soft: bool) -> None:
    model = small_model(**changes)
    heads = (3, 1) if model.config.num_q == 5 else (0, 1)
    assert compare(ModelRollout(model, 0.97, soft), FusedRollout(model, 0.97, soft), heads) < 2e-5


def test_large_layer_norm_weights_take_the_safe_simnorm() -> None:
    model = small_model()
    with torch.no_grad():
        model.dynamics.layers[-1].norm_weight.mul_(1000.0)
    for fused in (FusedRollout(model, 0.97), FusedRollout(model, 0.97, kernels=compiled())):
        assert not fused.weights.bounded
        assert compare(ModelRollout(model, 0.97), fused) < 2e-5


def test_compiled_kernels_keep_nan() -> None:
    model = small_model()
    with torch.no_grad():
        model.reward_head.layers[-1].bias[0] = torch.nan
    fused, g = FusedRollout(model, 0.97, kernels=compiled()), generator()
    actions, noise = torch.zeros(2, 1, 3, 4), torch.zeros(1, 3, 4)
    with torch.inference_mode():
        latent = fused.encode(torch.randn(1, 9, generator=g))
        assert fused.returns(latent, actions, noise, (0, 1)).isnan().all()


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("foreach", [False, True])
def test_weights_follow_the_optimiser(kind: type[torch.optim.Optimizer], foreach: bool) -> None:
    model = small_model()
    plain, fused = ModelRollout(model, 0.97), FusedRollout(model, 0.97)
    optimiser = kind(model.parameters(), lr=0.05, foreach=foreach)
    for _ in range(2):
        obs, action = torch.randn(5, 9, generator=generator()), torch.zeros(5, 4)
        z = model.encode(obs)
        heads = model.q_logits(z, action).square().mean() + model.policy(z, noise=action).action.sum()
        (
            heads + model.reward_logits(z, action).square().mean() + model.next(z, action).square().sum()
        ).backward()
        optimiser.step()
        assert compare(plain, fused) < 2e-5


def test_weights_follow_the_learner() -> None:
    """The learner's fused Adam kernel does not count versions by itself."""
    model = small_model()
    plain, fused = ModelRollout(model, 0.97), FusedRollout(model, 0.97)
    learner = Learner(model, LearnerConfig(lr=0.05), generator())
    random = generator(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    ones, zeros = torch.ones(3, 8, 1), torch.zeros(3, 8, 1)
    batch = Batch(normal(4, 8, 9), normal(3, 8, 4).clamp(-1, 1), normal(3, 8, 1), zeros, ones)
    before = model.reward_head.layers[-1].weight.detach().clone()
    for _ in range(3):
        learner.update(batch)
        assert compare(plain, fused) < 2e-5
    assert (model.reward_head.layers[-1].weight - before).abs().max() > 0.01


def test_weights_follow_a_loaded_state() -> None:
    model = small_model()
    plain, fused = ModelRollout(model, 0.97), FusedRollout(model, 0.97)
    model.load_state_dict(small_model(seed=4).state_dict())
    assert compare(plain, fused) < 2e-5


def test_return_stops_at_the_first_termination() -> None:
    rewards, value = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]), torch.tensor([10.0, 10.0])
    ended = torch.tensor([[0.1, 0.1], [0.9, 0.2], [0.1, 0.1]])
    total = discounted_return(rewards, value, ended, 0.5, soft=False)
    torch.testing.assert_close(total, torch.tensor([1.5, 1.75 + 1.25]))
    soft = discounted_return(rewards[:1], value, torch.tensor([[0.25, 1.0]]), 0.5, soft=True)
    torch.testing.assert_close(soft, torch.tensor([1.0 + 0.5 * 0.75 * 10.0, 1.0]))
