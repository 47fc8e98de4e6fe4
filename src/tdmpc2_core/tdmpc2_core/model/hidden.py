"""Hidden layers, linear -> dropout -> LayerNorm -> Mish, as one operation with a hand-written gradient.

For float32 on a CPU, where eager PyTorch spends as long on the activation as on the matrix product. Other
devices and precisions compose the same layer from library kernels (`composed`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2_core.model.functional import mish, mish_and_slope
from tdmpc2_core.model.kernels import EPS, active

_aten = torch.ops.aten


def dropped_entries(count: int, p: float, generator: torch.Generator) -> Tensor:
    """Indices of the entries out of `count` that dropout with probability `p` sets to zero (int64).

    The gaps between dropped entries are geometric, so that `count` * `p` numbers are drawn, not `count`.
    """
    if p <= 0.0:
        return torch.empty(0, dtype=torch.int64)
    expected = count * p
    batch = int(expected + 4.0 * math.sqrt(expected)) + 16
    parts, last = [], -1
    while last < count:
        gaps = torch.empty(batch, dtype=torch.float64).exponential_(generator=generator)
        gaps = gaps.div_(-math.log1p(-p)).floor_().long() + 1
        parts.append(gaps.cumsum_(0).add_(last))
        last = int(parts[-1][-1])
    indices = torch.cat(parts)
    return indices[: int(torch.searchsorted(indices, count))]


def uses_hidden(like: Tensor) -> bool:
    """Whether `hidden` is the faster way for this input; otherwise use `composed`."""
    return like.device.type == "cpu" and like.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


class _Hidden(torch.autograd.Function):
    """Arguments as `hidden`. One head after the other: its temporaries stay in the cache."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        bias: Tensor,
        gain: Tensor,
        shift: Tensor,
        dropped: Sequence[Tensor],
        eps: float,
        *parts: Tensor,
    ) -> Tensor:
        x, before = _linear(weight, bias, dropped, parts)
        ctx.eps, ctx.kernels = eps, active.get()
        ctx.sizes = [part.shape[-1] for part in parts]
        y = torch.empty_like(before)
        if ctx.kernels is not None:
            for h, row in enumerate(before):
                ctx.kernels.forward(row, gain[h], shift[h], eps, y[h])
            ctx.save_for_backward(x, before, before, weight, gain, shift, *dropped)
            return y
        slope = torch.empty_like(before)
        statistics: list[Tensor] = []
        for h, row in enumerate(before):
            u, mean, inverse = _aten.native_layer_norm(row, row.shape[-1:], gain[h], shift[h], eps)
            mish_and_slope(u, y[h], slope[h])
            statistics += [mean, inverse]
        ctx.save_for_backward(x, before, slope, weight, gain, shift, *statistics, *dropped)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, before, slope, weight, gain, shift, *others = ctx.saved_tensors
        heads, train, needed = len(before), ctx.needs_input_grad[0], ctx.needs_input_grad[6:]
        known = 0 if ctx.kernels is not None else 2 * heads
        statistics, dropped = others[:known], others[known:]
        columns = weight.split(ctx.sizes, -1)
        d_parts = [
            x.new_empty(len(x), x.shape[1], size) if need else None
            for size, need in zip(ctx.sizes, needed, strict=True)
        ]
        d_weight, d_bias, d_gain, d_shift = (
            torch.empty_like(t) if train else None for t in (weight, gain, gain, gain)
        )
        for h in range(heads):
            grad, db = grad_outputs[0][h], None
            if ctx.kernels is not None:
                d, (dg, ds, db) = ctx.kernels.backward(
                    grad.contiguous(), before[h], gain[h], shift[h], ctx.eps
                )
            else:
                d, dg, ds = _aten.native_layer_norm_backward(
                    grad * slope[h],
                    before[h],
                    before.shape[-1:],
                    *statistics[2 * h : 2 * h + 2],
                    gain[h],
                    shift[h],
                    (True, train, train),
                )
            if dropped:
                d.view(-1).index_fill_(0, dropped[h], 0.0)
            own = h if len(x) > 1 else 0
            for part, block in zip(d_parts, columns, strict=True):
                if part is not None:  # an input that all heads share gets their sum
                    torch.addmm(part[own], d, block[h], beta=float(own != h), out=part[own])
            if d_weight is not None and d_bias is not None and d_gain is not None and d_shift is not None:
                torch.mm(d.t(), x[own], out=d_weight[h])
                d_bias[h] = torch.sum(d, 0) if db is None or dropped else db
                d_gain[h], d_shift[h] = dg, ds
        return d_weight, d_bias, d_gain, d_shift, None, None, *d_parts


def _linear(
    weight: Tensor, bias: Tensor, dropped: Sequence[Tensor], parts: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Joined input (1 or heads, N, in) and its linear map (heads, N, out), dropped entries at zero."""
    x = parts[0] if len(parts) == 1 else torch.cat(list(parts), -1)
    before = x.new_empty(weight.shape[0], x.shape[1], weight.shape[1])
    for h in range(len(weight)):
        torch.addmm(bias[h], x[h if len(x) > 1 else 0], weight[h].t(), out=before[h])
        if dropped:
            before[h].view(-1).index_fill_(0, dropped[h], 0.0)
    return x, before


def hidden(
    parts: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    gain: Tensor,
    shift: Tensor,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mish(LayerNorm(dropout(x W^T + b)) * gain + shift), x the parts side by side -> (heads, N, out).

    parts (1 or heads, N, in_k), float32: the gradient is computed only of those that need one. weight
    (heads, out, in); bias, gain, shift (heads, out). generator: draws which entries are dropped; None: none.
    """
    dropped, eps = [], EPS
    if generator is not None and dropout > 0.0:
        count = parts[0].shape[1] * weight.shape[1]
        dropped = [dropped_entries(count, dropout, generator) for _ in weight]
        eps = EPS * (1.0 - dropout) ** 2  # LayerNorm undoes dropout's factor 1 / (1 - p), its epsilon apart
    if torch.is_grad_enabled() and any(t.requires_grad for t in (weight, bias, gain, shift, *parts)):
        return _Hidden.apply(weight, bias, gain, shift, dropped, eps, *parts)
    _, y = _linear(weight, bias, dropped, parts)
    kernels = active.get()
    for h, row in enumerate(y):
        if kernels is not None:
            kernels.forward(row, gain[h], shift[h], eps, row)
            continue
        mish(F.layer_norm(row, row.shape[-1:], gain[h], shift[h], eps), out=row)
    return y


def composed(
    parts: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    gain: Tensor,
    shift: Tensor,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`hidden` from library operations: any device and precision, fixed shapes, no wait for the device."""
    x = parts[0] if len(parts) == 1 else torch.cat(list(parts), -1)
    y = torch.baddbmm(bias.unsqueeze(1), x.expand(len(weight), -1, -1), weight.transpose(1, 2))
    if generator is not None and dropout > 0.0:
        keep = torch.empty_like(y, requires_grad=False).bernoulli_(1.0 - dropout, generator=generator)
        y = y * keep.div_(1.0 - dropout)
    y = F.layer_norm(y, (y.shape[-1],), eps=EPS)
    return F.mish(torch.addcmul(shift.unsqueeze(1), y, gain.unsqueeze(1)))
