"""Whole networks as compiled calls: equal to the plain model to rounding, and only where they belong."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from planning_support import generator, small_model
from test_planning_fused import compare, compiled

from tdmpc2_core.model import WorldModel
from tdmpc2_core.planning.compiled import CompiledModel, compiled_model
from tdmpc2_core.planning.compiled_rollout import CompiledRollout
from tdmpc2_core.planning.config import PlannerConfig
from tdmpc2_core.planning.policy import PolicyPlanner
from tdmpc2_core.planning.rollout import ModelRollout

VARIANTS: list[dict[str, Any]] = [
    {},
    {"episodic": True},
    {"num_q": 5},
    {"normalise_obs": True},
    {"simnorm_dim": 4},
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rollout(model: WorldModel, soft: bool = False) -> CompiledRollout:
    """A rollout that has seen the weights twice."""
    made = CompiledRollout(model, 0.97, soft, compiled())
    for ready in (False, True):
        made.encode(torch.zeros(1, model.config.obs_dim))
        assert made._ready is ready
    return made


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_equal_to_rounding(changes: dict[str, Any], soft: bool) -> None:
    model = small_model(**changes)
    heads = (3, 1) if model.config.num_q == 5 else (0, 1)
    assert compare(ModelRollout(model, 0.97, soft), rollout(model, soft), heads) < 2e-5


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
    for ready in (False, True):
        assert compare(plain, fast) < 2e-5
        assert fast._ready is ready


def test_others_keep_the_general_path() -> None:
    library = compiled()
    obs = torch.zeros(1, 9)
    large = small_model()
    with torch.no_grad():
        large.encoder.layers[-1].norm_weight.mul_(1000.0)  # an argument of 2^x might overflow
    several = CompiledRollout(small_model(task_dim=6, action_dims=(4, 2, 3)), 0.97, False, library)
    for made, task in ((CompiledRollout(large, 0.97, False, library), None), (several, torch.tensor([0]))):
        for _ in range(3):
            made.encode(obs, task)
            assert not made._ready
    fast = rollout(small_model())
    torch.set_num_threads(2)
    fast.encode(obs)
    assert not fast._ready, "several threads share the library's products"
    assert compiled_model(small_model(), "off") is None


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
