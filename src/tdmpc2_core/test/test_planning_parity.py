"""The planner repeats recorded calls of the official code: same draws, same results."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from parity import STEMS, Fixture, assert_close, available
from torch import Tensor

from tdmpc2_core.imagine.rollout import Rollout
from tdmpc2_core.model.kernels import KernelChoice
from tdmpc2_core.planning import MPPI, PlanDraws, PlannerConfig, planner_preset


class Watched:
    """A rollout that keeps the candidates it was asked to score."""

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout
        self.candidates: list[Tensor] = []

    def encode(self, obs: Tensor, task: Tensor | None, shifts: Tensor | None = None) -> Tensor:
        return self.rollout.encode(obs, task, shifts)

    def prior(self, latent: Tensor, noise: Tensor, task: Tensor | None) -> Tensor:
        return self.rollout.prior(latent, noise, task)

    def returns(
        self, latent: Tensor, actions: Tensor, noise: Tensor, heads: tuple[int, ...], task: Tensor | None
    ) -> Tensor:
        self.candidates.append(actions.clone())
        return self.rollout.returns(latent, actions, noise, heads, task)


def settings(f: Fixture) -> PlannerConfig:
    """The paper's planner with the fixture's population; its iterations must be those that were recorded."""
    names = ("num_samples", "num_elites", "num_pi_trajs")
    sizes = {name: f.settings[name] for name in names if name in f.settings}
    config = replace(planner_preset("paper", f.settings["action_dim"]), **sizes)
    assert config.iterations == f.settings["iterations"]
    return config


def draws(f: Fixture, prefix: str) -> PlanDraws:
    """The recorded random numbers with a robot axis."""
    final, shift = f.get(f"{prefix}final_noise"), f.get(f"{prefix}shift")
    return PlanDraws(
        prior=f[f"{prefix}pi_eps"].unsqueeze(1),
        samples=f[f"{prefix}sample_noise"].unsqueeze(2),
        terminal=f[f"{prefix}value_pi_eps"].unsqueeze(1),
        heads=f[f"{prefix}q_idx"],
        elite=f[f"{prefix}gumbel_exponential"].unsqueeze(0),
        final=None if final is None else final.unsqueeze(0),
        shifts=None if shift is None else shift.long(),
    )


@pytest.mark.parametrize("kernels", ["off", "auto"], ids=["plain", "compiled"])
@pytest.mark.parametrize("stem", STEMS)
def test_calls_in_sequence(stem: str, kernels: KernelChoice) -> None:
    f = Fixture.load(stem)
    model, config = f.model(), replace(settings(f), kernels=available(kernels))
    tasks = range(model.config.num_tasks) if model.config.num_tasks else [None]
    recorded = 0
    for task in tasks:
        planner = MPPI(model, config, f.settings["discount"], torch.Generator())
        planner.rollout = watched = Watched(planner.rollout)
        for call in range(3):
            prefix = f"plan_{call}_" if task is None else f"plan_task{task}_{call}_"
            if f.get(f"{prefix}obs") is None:
                break
            recorded += 1
            if call:
                assert_close(planner._mean.squeeze(1), f[f"{prefix}prev_mean_in"], 1e-3, "previous mean")
            watched.candidates.clear()
            plan = planner.plan(
                f[f"{prefix}obs"].unsqueeze(0),
                torch.tensor([bool(f[f"{prefix}t0"])]),
                evaluate=bool(f[f"{prefix}eval"]),
                task=None if task is None else torch.tensor([task]),
                draws=draws(f, prefix),
            )
            assert_close(torch.stack(plan.trace).squeeze(1), f[f"{prefix}values"][..., 0], 1e-3, "values")
            for name, seen in (("first", watched.candidates[0]), ("last", watched.candidates[-1])):
                candidates = f.get(f"{prefix}actions_{name}_iter")
                if candidates is not None:
                    assert_close(seen.squeeze(1), candidates, 1e-3, f"{name} candidates")
            assert_close(plan.mean.squeeze(0), f[f"{prefix}mean_out"], 1e-3, "mean")
            assert_close(plan.action.squeeze(0), f[f"{prefix}action"], 1e-3, "action")
    assert recorded >= 2
