"""The compiled planner: its two parts and the package give what MPPI gives with the same random numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planning_support import generator, small_model
from torch import Tensor
from torch._inductor.exc import InductorError, InvalidCxxCompiler

from tdmpc2_core.checkpoint import Bundle, save_bundle
from tdmpc2_core.cli import main
from tdmpc2_core.errors import UserError
from tdmpc2_core.export.aoti import CompiledPlanner, export_aoti
from tdmpc2_core.export.planner_parts import Iterate, Start, check_exportable
from tdmpc2_core.model import WorldModel
from tdmpc2_core.planning import MPPI, PlanDraws, PlannerConfig

TINY = PlannerConfig(num_samples=16, num_elites=4, num_pi_trajs=2, iterations=3, horizon=2)
TASKS = {"task_dim": 4, "action_dims": (4, 2)}


def draws(config: PlannerConfig, num_q: int, robots: int, actions: int, seed: int) -> PlanDraws:
    g, h, i, own = generator(seed), config.horizon, config.iterations, config.num_pi_trajs

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, actions, generator=g)

    heads = torch.stack([torch.randperm(num_q, generator=g)[:2] for _ in range(i)])
    samples = normal(i, h, robots, config.num_samples - own)
    return PlanDraws(normal(h, robots, own), samples, normal(i, robots, config.num_samples), heads)


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("extra", [{"num_q": 3, "episodic": True, "normalise_obs": True}, TASKS])
@torch.no_grad()
def test_parts_are_the_planner(extra: dict[str, object], reuse: bool) -> None:
    model, config = small_model(**extra).eval(), replace(TINY, reuse_prior_values=reuse, prior_weight=0.5)
    several = bool(model.config.num_tasks)
    discount = (0.9, 0.99) if several else 0.97
    reference = MPPI(model, config, discount, generator(), fused=False)
    start, iterate = Start(model, config, discount), Iterate(model, config, discount)
    task = (torch.tensor([1, 0, 1]),) if several else ()
    first, previous = torch.tensor([True, False, True]), torch.zeros(2, 3, 4)
    for call in range(2):
        obs, d = torch.randn(3, 9, generator=generator(call)), draws(config, model.config.num_q, 3, 4, call)
        plan = reference.plan(obs, first, True, *task, draws=d)
        terminal = d.terminal[0][:, :2]
        z, prior, mean, std, known = start(obs, first, previous, d.prior, terminal, d.heads[0], *task)
        for i in range(config.iterations):
            heads = d.heads[0] if reuse else d.heads[i]
            given = (z, prior, known, mean, std, d.samples[i], d.terminal[i], heads, *task)
            mean, std, value, values, _, _ = iterate(*given)
            torch.testing.assert_close(values, plan.trace[i], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mean.transpose(0, 1), plan.mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(std.transpose(0, 1), plan.std, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(value, plan.value, atol=1e-5, rtol=1e-5)
        previous = mean


def saved(model: WorldModel, config: PlannerConfig, path: Path) -> Path:
    save_bundle(path, Bundle(model.state_dict(), model.config, config, 0.97, 0.02))
    return path


@pytest.mark.timeout(600)  # a C++ compiler runs; seconds on an idle machine
def test_package_plans_like_the_eager_planner(tmp_path: Path) -> None:
    model, config = small_model(num_q=3).eval(), replace(TINY, horizon=1)
    bundle, out = saved(model, config, tmp_path / "bundle"), tmp_path / "planner.pt2"
    assert main(["export", str(bundle), "--format", "aoti", "--out", str(out)]) == 0
    compiled, eager = CompiledPlanner(out), MPPI(model, config, 0.97, generator())
    for call in range(2):
        obs, d = torch.randn(1, 9, generator=generator(call)), draws(config, 3, 1, 4, call)
        first = torch.tensor([call == 0])
        have, want = (planner.plan(obs, first, True, draws=d) for planner in (compiled, eager))
        for name in ("action", "mean", "std", "value"):
            torch.testing.assert_close(getattr(have, name), getattr(want, name), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(torch.stack(have.trace), torch.stack(want.trace), atol=1e-4, rtol=1e-4)
    late = compiled.plan(obs, first, True, deadline=0.0)
    assert (late.iterations, late.ended_by) == (0, "deadline") and bool(late.action.isfinite().all())
    again = [CompiledPlanner(out, seed=4).plan(obs, first, False).action for _ in range(2)]
    assert torch.equal(*again) and bool((again[0].abs() <= 1).all())
    with pytest.raises(UserError, match="for 1 robots at a time, not 2"):
        compiled.plan(torch.zeros(2, 9), torch.tensor([True, True]), True)


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InductorError(InvalidCxxCompiler(), None)

    monkeypatch.setattr(torch._inductor, "aot_compile", refuse)
    with pytest.raises(UserError, match="cannot be compiled here .*InvalidCxxCompiler.*is g.. or clang"):
        export_aoti(small_model().eval(), replace(TINY, horizon=1), 0.9, tmp_path / "planner.pt2")


def test_what_cannot_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="plans with 'policy'"):
        check_exportable(PlannerConfig(method="policy"))
    with pytest.raises(UserError, match="num_pi_trajs"):
        check_exportable(replace(TINY, num_pi_trajs=0))
    bundle = saved(small_model(), TINY, tmp_path / "bundle")
    assert main(["export", str(bundle), "--format", "aoti", "--out", str(tmp_path / "planner.so")]) == 2
    assert "ending .pt2" in capsys.readouterr().err
    (tmp_path / "broken.pt2").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(UserError, match="no planner package that runs here"):
        CompiledPlanner(tmp_path / "broken.pt2")
    with pytest.raises(UserError, match="no such file"):
        CompiledPlanner(tmp_path / "none.pt2")
