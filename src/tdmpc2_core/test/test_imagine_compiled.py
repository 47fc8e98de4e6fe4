"""Whole networks as compiled calls: equal to the plain model to rounding, following its weights."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from planning_support import generator, small_model

from tdmpc2_core.imagine.compiled import CompiledModel, CompiledRollout, compiled_model
from tdmpc2_core.imagine.rollout import ModelRollout, discounted_return
from tdmpc2_core.learning.batch import Batch
from tdmpc2_core.learning.learner import Learner, LearnerConfig
from tdmpc2_core.model import WorldModel
from tdmpc2_core.model.kernels import Kernels, kernels
from tdmpc2_core.planning.planners import PlannerConfig
from tdmpc2_core.planning.policy import PolicyPlanner

VARIANTS: list[dict[str, Any]] = [
    {},
    {"episodic": True},
    {"num_q": 5},
    {"normalise_obs": True},
    {"simnorm_dim": 4},
    {"task_dim": 6, "action_dims": (4, 2, 3)},
    {"reward_range": (-2.0, 3.0), "value_range": (0.0, 50.0)},
    {"residual_dim": 12},
]


@pytest.fixture(autouse=True, params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work of any size is shared out, where there are two threads."""
    monkeypatch.setattr("tdmpc2_core.model.kernels._SMALL", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def compare(plain: ModelRollout, fast: CompiledRollout, heads: tuple[int, ...] = (0, 1)) -> float:
    """Largest error of compiled actions and returns, relative to 1 + |value|."""
    g, (horizon, robots, count) = generator(3), (3, 3, 10)
    size = plain.model.config.action_dim
    obs = torch.randn(robots, plain.model.config.obs_dim, generator=g)
    actions = torch.rand(horizon, robots, count, size, generator=g) * 2 - 1
    noise = torch.randn(robots, count, size, generator=g)
    prior_noise = torch.randn(horizon, robots, count, size, generator=g)
    task = torch.tensor([0, 2, 1]) if plain.model.config.num_tasks else None
    with torch.inference_mode():
        z, same = plain.encode(obs, task), fast.encode(obs, task)
        want = plain.prior(z, prior_noise, task), plain.returns(z, actions, noise, heads, task)
        have = fast.prior(same, prior_noise, task), fast.returns(same, actions, noise, heads, task)
    assert want[1].shape == (robots, count) and want[1].std() > 1e-3
    return max(float(((a - b).abs() / (1 + a.abs())).max()) for a, b in zip(want, have, strict=True))


def compiled() -> Kernels:
    library = kernels("auto")
    if library is None:
        pytest.skip("no C compiler here: nothing to compare")
    return library


def rollout(model: WorldModel, soft: bool = False, disagreement_cost: float = 0.0) -> CompiledRollout:
    """A rollout that has compiled networks from its first plan on."""
    made = CompiledRollout(model, 0.97, soft, disagreement_cost, compiled())
    made.encode(torch.zeros(1, model.config.obs_dim), torch.tensor([0]) if model.config.num_tasks else None)
    assert made.ready
    return made


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_equal_to_rounding(changes: dict[str, Any], soft: bool) -> None:
    model = small_model(**changes)
    heads = (3, 1) if model.config.num_q == 5 else (0, 1)
    assert compare(ModelRollout(model, 0.97, soft), rollout(model, soft), heads) < 2e-5


def test_the_cost_of_disagreement_is_equal_too() -> None:
    model = small_model(num_q=5)
    plain, fast = ModelRollout(model, 0.97, False, 0.7), rollout(model, False, 0.7)
    assert compare(plain, fast, (0, 2, 4)) < 2e-5
    assert compare(ModelRollout(model, 0.97), fast, (0, 2, 4)) > 1e-3


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 40])
def test_any_number_of_candidates(count: int) -> None:
    model, g = small_model(), generator(1)
    plain, fast = ModelRollout(model, 0.97), rollout(model)
    obs, noise = torch.randn(1, 9, generator=g), torch.randn(1, count, 4, generator=g)
    actions = torch.rand(2, 1, count, 4, generator=g) * 2 - 1
    with torch.inference_mode():
        want = plain.returns(plain.encode(obs), actions, noise, (0, 1))
        have = fast.returns(fast.encode(obs), actions, noise, (0, 1))
    torch.testing.assert_close(have, want, rtol=2e-5, atol=2e-5)


def test_new_weights_are_taken_up() -> None:
    model = small_model()
    fast, plain = rollout(model), ModelRollout(model, 0.97)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator(5)))
    assert compare(plain, fast) < 2e-5
    assert fast.ready


def test_large_layer_norm_weights_do_not_overflow() -> None:
    model = small_model()
    with torch.no_grad():
        model.dynamics.layers[-1].norm_weight.mul_(1000.0)
    assert compare(ModelRollout(model, 0.97), rollout(model)) < 2e-5


def test_nothing_is_compiled_where_it_is_not_wanted() -> None:
    assert compiled_model(small_model(), "off") is None
    other = CompiledModel(small_model().double(), compiled())
    assert not other.refresh(), "the networks are of float32"


def test_a_wide_model_and_many_rows() -> None:
    """Several blocks of rows, layers wider than a panel, whole and broken tiles."""
    model = small_model(mlp_dim=300, latent_dim=64, enc_dim=48)
    plain, fast, g = ModelRollout(model, 0.97), rollout(model), generator(2)
    obs, noise = torch.randn(2, 9, generator=g), torch.randn(2, 205, 4, generator=g)
    actions = torch.rand(3, 2, 205, 4, generator=g) * 2 - 1
    with torch.inference_mode():
        want = plain.returns(plain.encode(obs), actions, noise, (0, 1))
        have = fast.returns(fast.encode(obs), actions, noise, (0, 1))
    assert want.std() > 0.1
    torch.testing.assert_close(have, want, rtol=1e-3, atol=1e-3)


def test_results_do_not_depend_on_threads() -> None:
    model, g = small_model(), generator(6)
    fast = rollout(model)
    obs, noise = torch.randn(3, 9, generator=g), torch.randn(3, 50, 4, generator=g)
    actions = torch.rand(3, 3, 50, 4, generator=g) * 2 - 1
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        with torch.inference_mode():
            found.append(fast.returns(fast.encode(obs), actions, noise, (0, 1)).clone())
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_nan_stays_nan() -> None:
    model = small_model()
    with torch.no_grad():
        model.reward_head.layers[-1].bias[0] = torch.nan
    fast = rollout(model)
    with torch.inference_mode():
        z = fast.encode(torch.randn(1, 9, generator=generator()))
        assert fast.returns(z, torch.zeros(2, 1, 3, 4), torch.zeros(1, 3, 4), (0, 1)).isnan().all()


@pytest.mark.parametrize("robots", [1, 3])
def test_the_policy_prior_is_the_models(robots: int) -> None:
    model = small_model(num_q=5, normalise_obs=True)
    obs, first = torch.randn(robots, 9, generator=generator(2)), torch.zeros(robots, dtype=torch.bool)
    plans = []
    for choice in ("off", "auto"):
        planner = PolicyPlanner(model, PlannerConfig(method="policy", kernels=choice), 0.97, generator(4))
        for _ in range(3):
            plan = planner.plan(obs, first, evaluate=False)
        assert choice == "off" or (
            isinstance(planner._compiled, CompiledModel) and planner._compiled.refresh()
        )
        plans.append(plan)
    plain, fast = plans
    for name in ("action", "mean", "std", "value"):
        torch.testing.assert_close(getattr(fast, name), getattr(plain, name), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("foreach", [False, True])
def test_weights_follow_the_optimiser(kind: type[torch.optim.Optimizer], foreach: bool) -> None:
    model = small_model()
    plain, fast = ModelRollout(model, 0.97), rollout(model)
    optimiser = kind(model.parameters(), lr=0.05, foreach=foreach)
    for _ in range(2):
        obs, action = torch.randn(5, 9, generator=generator()), torch.zeros(5, 4)
        z = model.encode(obs)
        heads = model.q_logits(z, action).square().mean() + model.policy(z, noise=action).action.sum()
        (
            heads + model.reward_logits(z, action).square().mean() + model.next(z, action).square().sum()
        ).backward()
        optimiser.step()
        assert compare(plain, fast) < 2e-5
        assert fast.ready


def test_weights_follow_the_learner() -> None:
    """The learner's fused Adam kernel does not count versions by itself."""
    model = small_model()
    plain, fast = ModelRollout(model, 0.97), rollout(model)
    learner = Learner(model, LearnerConfig(lr=0.05), generator())
    random = generator(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    ones, zeros = torch.ones(3, 8, 1), torch.zeros(3, 8, 1)
    batch = Batch(normal(4, 8, 9), normal(3, 8, 4).clamp(-1, 1), normal(3, 8, 1), zeros, ones)
    before = model.reward_head.layers[-1].weight.detach().clone()
    for _ in range(3):
        learner.update(batch)
        assert compare(plain, fast) < 2e-5
        assert fast.ready
    assert (model.reward_head.layers[-1].weight - before).abs().max() > 0.01


def test_weights_follow_a_loaded_state() -> None:
    model = small_model()
    plain, fast = ModelRollout(model, 0.97), rollout(model)
    model.load_state_dict(small_model(seed=4).state_dict())
    assert compare(plain, fast) < 2e-5
    assert fast.ready


def test_return_stops_at_the_first_termination() -> None:
    rewards, value = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]), torch.tensor([10.0, 10.0])
    ended = torch.tensor([[0.1, 0.1], [0.9, 0.2], [0.1, 0.1]])
    total = discounted_return(rewards, value, ended, 0.5, soft=False)
    torch.testing.assert_close(total, torch.tensor([1.5, 1.75 + 1.25]))
    soft = discounted_return(rewards[:1], value, torch.tensor([[0.25, 1.0]]), 0.5, soft=True)
    torch.testing.assert_close(soft, torch.tensor([1.0 + 0.5 * 0.75 * 10.0, 1.0]))
