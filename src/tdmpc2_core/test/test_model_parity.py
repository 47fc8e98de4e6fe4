"""Functions, heads and distributions against the recorded outputs of the official code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from parity import SHIPPED, STEMS, Fixture, assert_close

from tdmpc2_core.learning import discount_for
from tdmpc2_core.learning.actor import RunningScale
from tdmpc2_core.model import TwoHot
from tdmpc2_core.model.distributions import squashed_gaussian
from tdmpc2_core.model.functional import mish, simnorm, symexp, symlog


@pytest.fixture(scope="module")
def functions() -> dict[str, torch.Tensor]:
    with np.load(SHIPPED / "functions.npz") as arrays:
        return {name: torch.from_numpy(np.asarray(value)) for name, value in arrays.items()}


def test_scalar_functions(functions: dict[str, torch.Tensor]) -> None:
    f = functions
    assert_close(symlog(f["x"]), f["symlog"], 1e-6, "symlog")
    assert_close(symexp(f["symexp_in"]), f["symexp"], 1e-5, "symexp")
    assert_close(mish(f["mish_in"]), f["mish"], 1e-6, "mish")
    assert_close(simnorm(f["simnorm_in"], 8), f["simnorm"], 1e-6, "simnorm")
    raw = f["log_std_in"][:, None]
    log_std = squashed_gaussian(torch.cat([torch.zeros_like(raw), raw], -1), None, -10.0, 2.0).log_std
    assert_close(log_std[:, 0], f["log_std"], 1e-6, "log_std")


def test_two_hot(functions: dict[str, torch.Tensor]) -> None:
    f, two_hot = functions, TwoHot(101, -10.0, 10.0)
    encoded = two_hot.encode(f["x"][:, None])
    assert_close(encoded, f["two_hot"], 1e-4, "encode")
    assert_close(two_hot.decode((encoded + 1e-30).log()), f["two_hot_inv_of_log_two_hot"], 1e-3, "round trip")
    assert_close(two_hot.decode(f["logits"]), f["two_hot_inv"], 1e-4, "decode")
    assert_close(two_hot.cross_entropy(f["logits"], f["soft_ce_target"]), f["soft_ce"], 1e-5, "cross entropy")


def test_running_scale_and_discount(functions: dict[str, torch.Tensor]) -> None:
    scale = RunningScale(0.01)
    values = [scale.update(functions[f"running_scale_q{i}"]).clone() for i in range(6)]
    assert_close(torch.stack(values), functions["running_scale_values"].flatten(), 1e-5, "scale")
    discounts = [discount_for(int(n)) for n in functions["discount_ep_len"]]
    assert_close(torch.tensor(discounts), functions["discount"].flatten(), 1e-6, "discount")


@pytest.mark.parametrize("stem", STEMS)
@torch.no_grad()
def test_forward(stem: str) -> None:
    f = Fixture.load(stem)
    model = f.model()
    assert model.num_parameters == f.settings["learnable_params"]
    task, action = f.get("task"), f["action"]
    shift = f.get("shift")
    z = model.encode(f["obs"], task, None if shift is None else shift.long())
    assert_close(z, f["z"], 1e-4, "z")
    next_z = model.next(z, action, task)
    assert_close(next_z, f["next_z"], 1e-4, "next_z")
    assert_close(model.reward_logits(z, action, task), f["reward_logits"], 1e-4, "reward_logits")
    assert_close(model.reward(z, action, task), f["reward"], 1e-4, "reward")
    if model.config.episodic:
        assert_close(model.termination_logits(next_z), f["termination_logit"], 1e-4, "termination_logit")
        assert_close(model.termination(next_z), f["termination_prob"], 1e-4, "termination_prob")


@pytest.mark.parametrize("stem", STEMS)
@torch.no_grad()
def test_values(stem: str) -> None:
    f = Fixture.load(stem)
    model = f.model()
    z, action, task = f["z"], f["action"], f.get("task")
    for target, prefix in ((False, ""), (True, "target_")):
        logits = model.q_logits(z, action, task, target=target)
        assert_close(logits, f[f"{prefix}q_logits"], 1e-4, f"{prefix}q_logits")
        every = model.q_values(z, action, task, target=target)
        assert_close(every, f[f"{prefix}q_values"], 1e-4, f"{prefix}q_values")
        for name in ("min", "avg"):
            values = model.q_values(z, action, task, heads=f[f"{prefix}q_{name}_idx"], target=target)
            value = values.amin(0) if name == "min" else values.mean(0)
            assert_close(value, f[f"{prefix}q_{name}"], 1e-4, f"{prefix}q_{name}")


@pytest.mark.parametrize("stem", STEMS)
@torch.no_grad()
def test_policy(stem: str) -> None:
    f = Fixture.load(stem)
    sample = f.model().policy(f["z"], f.get("task"), noise=f["pi_eps"])
    for name in ("action", "mean", "log_std", "entropy", "scaled_entropy"):
        assert_close(getattr(sample, name), f[f"pi_{name}"], 1e-4, name)


def test_embedding_is_rescaled_in_place_when_it_is_looked_up() -> None:
    f = Fixture.load("tiny_multitask_3")
    model = f.model()
    assert torch.equal(model.task_embedding, f["task_emb_raw"]) and f["task_emb_raw"][1].norm() > 2
    with torch.no_grad():
        model.encode(f["obs"], f["task"])
    assert_close(model.task_embedding, f["task_emb_after_lookup"], 1e-6, "embedding")
