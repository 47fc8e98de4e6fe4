"""Three consecutive updates against the recorded ones of the official code."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from parity import TRAINED, Fixture, assert_close, available

from tdmpc2_core.checkpoint.official import to_current, to_package
from tdmpc2_core.learning import Learner
from tdmpc2_core.model import WorldModel
from tdmpc2_core.model.kernels import KernelChoice

LOSSES = (
    "consistency_loss",
    "reward_loss",
    "value_loss",
    "termination_loss",
    "total_loss",
    "pi_loss",
    "pi_scale",
)
OTHERS = ("pi_entropy", "pi_scaled_entropy", "grad_norm", "pi_grad_norm")


def _assert_statistics(model: WorldModel, statistics: dict[str, list[float]]) -> None:
    state = model.state_dict()
    _, names = to_current({name: torch.tensor([i]) for i, name in enumerate(statistics)}, "statistics")
    rows = list(statistics.values())
    renamed = to_package(names, "statistics")
    assert set(renamed) <= set(state) and len(renamed) > 20
    for name, index in renamed.items():
        reference = torch.tensor(rows[index], dtype=torch.float64)
        value = state[name].double().flatten()
        actual = torch.cat([value.sum()[None], value.norm()[None], value[: len(reference) - 2]])
        assert_close(actual, reference, 1e-4, name)


@pytest.mark.parametrize("kernels", ["off", "auto"])
@pytest.mark.parametrize("stem", TRAINED)
def test_three_updates(stem: str, kernels: KernelChoice) -> None:
    f = Fixture.load(stem)
    model = f.model()
    learner = Learner(model, f.learner_config(kernels=available(kernels)), torch.Generator().manual_seed(0))
    for update in range(3):
        draws = f.draws(update)
        _, target = learner.targets(f.batch().prepare(learner.config.window), draws)
        assert_close(target, f[f"upd{update}_td_target"], 1e-3, f"update {update} td target")
        metrics = learner.update(f.batch(), draws)
        for name in LOSSES + OTHERS:
            if f"upd{update}_{name}" in f.arrays:
                tolerance = 1e-3 if "grad" in name else 1e-4
                assert_close(metrics[name], f[f"upd{update}_{name}"], tolerance, f"update {update} {name}")
        for name in ("termination_rate", "termination_f1"):
            if f"upd{update}_{name}" in f.arrays:
                assert_close(metrics[name], f[f"upd{update}_{name}"], 1e-4, f"update {update} {name}")
        if update in (0, 2):
            _assert_statistics(model, f.settings[f"param_stats_after_update_{update}"])


@pytest.mark.parametrize("kernels", ["off", "auto"])
@pytest.mark.parametrize("stem", TRAINED)
def test_gradient_of_every_tensor(stem: str, kernels: KernelChoice) -> None:
    f = Fixture.load(stem)
    model = f.model()
    reference = f.settings["grad_norms_update_0"]
    config = f.learner_config(grad_clip_norm=1e9, kernels=available(kernels))
    learner = Learner(model, config, torch.Generator().manual_seed(0))
    norms: dict[str, torch.Tensor] = {}

    def keep(name: str, parameter: torch.Tensor) -> None:
        norms.setdefault(name, parameter.grad.norm())  # the task embedding gets a second one, of the policy

    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(partial(keep, name))
    learner.update(f.batch(), f.draws(0))
    recorded = {k: torch.tensor(v) for part in reference.values() for k, v in part.items()}
    named = to_package(recorded, "gradients")
    assert set(named) == set(norms)
    for name, norm in norms.items():
        assert_close(norm, named[name], 1e-3, name)


def test_three_updates_without_the_left_over_task_gradient() -> None:
    f = Fixture.load("tiny_multitask_3")
    config = f.learner_config(leak_policy_gradient_to_task=False)
    learner = Learner(f.model(), config, torch.Generator().manual_seed(0))
    for update in range(3):
        metrics = learner.update(f.batch(), f.draws(update))
        for name in ("total_loss", "grad_norm", "pi_loss", "pi_grad_norm"):
            tolerance = 1e-3 if "grad" in name else 1e-4
            assert_close(metrics[name], f[f"cleared_upd{update}_{name}"], tolerance, f"{update} {name}")
    assert abs(f["cleared_upd1_grad_norm"] / f["upd1_grad_norm"] - 1) > 1e-4  # the leak is visible here
