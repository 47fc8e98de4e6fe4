"""Hidden layers with hand-written gradients against the same layers from library operations in float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from tdmpc2_core.model.functional import mish, mish_and_slope
from tdmpc2_core.model.kernels import kernels, using
from tdmpc2_core.model.layers import EPS, composed, dropped_entries, hidden, uses_hidden


@pytest.fixture(params=["off", "auto"], autouse=True)
def _kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test with library operations and with compiled kernels."""
    library = kernels(request.param)
    if request.param == "auto" and library is None:
        pytest.skip("no C compiler here: nothing to compare")
    with using(library):
        yield


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mish_and_its_slope() -> None:
    x = torch.cat([rand(4000) * 6, torch.tensor([-1e4, -90.0, 0.0, 25.0, 60.0, 1e4])])
    exact = x.double().requires_grad_()
    value = F.mish(exact)
    value.sum().backward()
    y, slope = torch.empty_like(x), torch.empty_like(x)
    mish_and_slope(x, y, slope)
    for have, want in ((mish(x), value), (y, value), (slope, exact.grad)):
        assert torch.allclose(have.double(), want, atol=2e-6, rtol=1e-6)


def layer(heads: int, inputs: int, outputs: int) -> list[torch.Tensor]:
    """Weight, bias, gain and shift."""
    weight = rand(heads, outputs, inputs, seed=1) / inputs**0.5
    return [weight, *(rand(heads, outputs, seed=s) for s in (2, 3, 4))]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("heads", "lead"), [(1, 1), (3, 1), (3, 3)])
def test_equal_to_library_operations(heads: int, lead: int, frozen: bool) -> None:
    parts = [rand(lead, 7, 10, seed=5), rand(lead, 7, 4, seed=6).requires_grad_()]
    tensors = [t.requires_grad_(not frozen) for t in layer(heads, 14, 24)]
    twins = [t.detach().double().requires_grad_(t.requires_grad) for t in (*parts, *tensors)]
    weight = rand(heads, 7, 24, seed=7)
    y, want = hidden(parts, *tensors), composed(twins[:2], *twins[2:])
    assert torch.allclose(y, want.float(), atol=1e-5)
    (y * weight).sum().backward()
    (want * weight).sum().backward()
    for have, exact in zip((*parts, *tensors), twins, strict=True):
        assert (have.grad is None) == (exact.grad is None)
        assert have.grad is None or torch.allclose(have.grad, exact.grad.float(), atol=2e-5, rtol=1e-4)
    with torch.no_grad():
        assert torch.allclose(hidden(parts, *tensors), y, atol=1e-6)


def test_dropout_is_that_of_a_mask() -> None:
    x, tensors = rand(1, 50, 10), [t.requires_grad_() for t in layer(2, 10, 16)]
    g = torch.Generator().manual_seed(8)
    keep = torch.ones(2, 800)
    for row in keep:
        row[dropped_entries(800, 0.3, g)] = 0.0
    keep = keep.view(2, 50, 16).double() / 0.7
    weight, bias, gain, shift = (t.detach().double().requires_grad_() for t in tensors)
    before = torch.baddbmm(bias[:, None], x.double().expand(2, -1, -1), weight.transpose(1, 2)) * keep
    want = F.mish(F.layer_norm(before, (16,), eps=EPS) * gain[:, None] + shift[:, None])
    y = hidden([x], *tensors, dropout=0.3, generator=torch.Generator().manual_seed(8))
    assert torch.allclose(y, want.float(), atol=1e-5)
    scale = rand(2, 50, 16, seed=9)
    (y * scale).sum().backward()
    (want * scale).sum().backward()
    for have, exact in zip(tensors, (weight, bias, gain, shift), strict=True):
        assert torch.allclose(have.grad, exact.grad.float(), atol=5e-5, rtol=1e-4)


def test_dropped_entries_are_independent_draws() -> None:
    """Mean and variance of counts and of gaps against the binomial and geometric distributions."""
    g, p, size, trials = torch.Generator().manual_seed(0), 0.02, 3000, 400
    draws = [dropped_entries(size, p, g) for _ in range(trials)]
    for d in draws:
        assert len(d) == len(d.unique()) and (len(d) == 0 or 0 <= int(d.min()) <= int(d.max()) < size)
    counts = torch.tensor([float(len(d)) for d in draws])
    assert abs(float(counts.mean()) - size * p) < 4 * (size * p * (1 - p) / trials) ** 0.5
    assert 0.75 < float(counts.var()) / (size * p * (1 - p)) < 1.3
    hits = torch.zeros(size).index_add_(0, torch.cat(draws), torch.ones(int(counts.sum())))
    for half in hits.view(3, -1).sum(1):  # as often at the end as at the beginning
        assert abs(float(half) - size * p * trials / 3) < 4 * (size * p * trials / 3) ** 0.5
    neighbours = sum(int((d[1:] - d[:-1] == 1).sum()) for d in draws)
    assert abs(neighbours - trials * size * p * p) < 4 * (trials * size * p * p) ** 0.5
    assert len(dropped_entries(1000, 0.0, g)) == 0


def test_other_precisions_take_the_library_operations() -> None:
    x = rand(1, 5, 8)
    assert uses_hidden(x) and not uses_hidden(x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not uses_hidden(x)
        y = composed([x], *layer(2, 8, 16), dropout=0.5, generator=torch.Generator().manual_seed(0))
    assert y.dtype == torch.float32 and torch.isfinite(y).all()
