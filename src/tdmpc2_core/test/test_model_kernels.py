"""Compiled kernels: the product against the library's, and a machine without a C compiler."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import shutil
from collections.abc import Iterator

import pytest
import torch
from planning_support import generator, small_model

from tdmpc2_core.imagine.rollout import ModelRollout
from tdmpc2_core.learning import Batch, Learner, LearnerConfig
from tdmpc2_core.model import kernels as module
from tdmpc2_core.model.kernels import Kernels
from tdmpc2_core.planning import MPPI, PlannerConfig, make_planner


@pytest.fixture(scope="module", params=["", "-mno-avx512f"])
def library(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    """Kernels for this processor, and with narrower vectors, as `CC` with a flag makes them."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here: nothing to compare")
    if request.param and platform.machine() != "x86_64":
        pytest.skip(f"{request.param} is a flag of x86-64 compilers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CC", f"{compiler} {request.param}")
        yield Kernels(ctypes.CDLL(str(module._library())))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(1, 1, 1), (7, 5, 40), (205, 1100, 70), (96, 64, 32)]
)
def test_products_are_those_of_float64(
    rows: int,
    inputs: int,
    outputs: int,
    add: bool,
    threads: int,
    library: Kernels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Broken and whole tiles, panels and depths; both sides as they lie in memory and transposed."""
    monkeypatch.setattr(module, "threads_for", lambda elements: threads)
    g = generator(1)
    x, weight = torch.randn(rows, inputs, generator=g), torch.randn(inputs, outputs, generator=g)
    before, bias = torch.randn(rows, outputs, generator=g), torch.randn(outputs, generator=g)
    for left in (x, x.t().contiguous().t(), torch.cat([x, x], 1)[:, :inputs]):
        for right in (weight, weight.t().contiguous().t(), torch.cat([weight, weight], 1)[:, :outputs]):
            out = before.clone()
            library.matmul(left, right, out, None if add else bias, add)
            want = x.double() @ weight.double() + (before if add else bias)
            torch.testing.assert_close(out.double(), want, rtol=1e-5, atol=1e-6 * inputs + 1e-6)


def test_without_a_compiler_one_warning_and_the_plain_path(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    module._load.cache_clear()
    obs, start = torch.randn(2, 9, generator=generator(1)), torch.tensor([True, True])
    ones = torch.ones(3, 8, 1)
    batch = Batch(torch.zeros(4, 8, 9), torch.zeros(3, 8, 4), ones, 0.0 * ones, ones)
    made = []
    try:
        with caplog.at_level(logging.WARNING):
            for choice in ("auto", "off"):
                model = small_model()
                losses = Learner(model, LearnerConfig(kernels=choice), generator()).update(batch)
                for method in ("policy", "gradient", "mppi"):
                    config = PlannerConfig(method=method, num_samples=32, num_elites=4, kernels=choice)
                    planner = make_planner(model, config, 0.97, generator())
                    plan = planner.plan(obs, start, evaluate=True)
                assert isinstance(planner, MPPI) and type(planner.rollout) is ModelRollout
                made.append((plan.mean, losses["total_loss"]))
    finally:
        module._load.cache_clear()
    for found, wanted in zip(*made, strict=True):
        assert torch.equal(found, wanted)
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "no C compiler" in warning.getMessage()
