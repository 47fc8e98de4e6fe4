"""Layers of TD-MPC2: NormedLinear, the MLP built from it, and a stacked ensemble of such MLPs.

Weights are drawn from a truncated normal (std 0.02), biases are zero, LayerNorm starts at (1, 0). Every draw
uses the generator that is passed in; the global random state is neither read nor advanced.

A hidden layer, linear -> dropout -> LayerNorm -> Mish, is one operation with a hand-written gradient
(`hidden`) for float32 on a CPU, where eager PyTorch spends as long on the activation as on the matrix
product. Other devices and precisions compose it from library kernels (`composed`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2_core.model.functional import mish, mish_and_slope, simnorm
from tdmpc2_core.model.kernels import EPS, Kernels, active

_aten = torch.ops.aten
_FEW_ROWS, _LARGE = 64, 4_000_000  # rows, weights: below and beyond, packing takes longer than it saves


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
    """Whether `hidden` is the faster way for this input; otherwise, and in an export, use `composed`."""
    if like.device.type != "cpu" or like.dtype != torch.float32:
        return False
    return not (torch.is_autocast_enabled("cpu") or torch.compiler.is_exporting())


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
        ctx.eps, ctx.kernels = eps, active.get()
        x, before = _linear(weight, bias, dropped, parts, ctx.kernels)
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
                    _product(ctx.kernels, d, block[h], part[own], add=own != h)
            if d_weight is not None and d_bias is not None and d_gain is not None and d_shift is not None:
                _product(ctx.kernels, d.t(), x[own], d_weight[h])
                d_bias[h] = torch.sum(d, 0) if db is None or dropped else db
                d_gain[h], d_shift[h] = dg, ds
        return d_weight, d_bias, d_gain, d_shift, None, None, *d_parts


def _product(
    kernels: Kernels | None, x: Tensor, w: Tensor, out: Tensor, bias: Tensor | None = None, add: bool = False
) -> None:
    """out <- x w + bias, or + out where `add`; by the kernels, where packing w is little beside it."""
    if kernels is not None and len(x) >= _FEW_ROWS and w.numel() <= _LARGE:
        kernels.matmul(x, w, out, bias, add)
    elif bias is not None:
        torch.addmm(bias, x, w, out=out)
    else:
        torch.addmm(out, x, w, beta=float(add), out=out)


def _linear(
    weight: Tensor,
    bias: Tensor,
    dropped: Sequence[Tensor],
    parts: Sequence[Tensor],
    kernels: Kernels | None,
) -> tuple[Tensor, Tensor]:
    """Joined input (1 or heads, N, in) and its linear map (heads, N, out), dropped entries at zero."""
    x = parts[0] if len(parts) == 1 else torch.cat(list(parts), -1)
    before = x.new_empty(weight.shape[0], x.shape[1], weight.shape[1])
    for h in range(len(weight)):
        _product(kernels, x[h if len(x) > 1 else 0], weight[h].t(), before[h], bias[h])
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
    kernels = active.get()
    _, y = _linear(weight, bias, dropped, parts, kernels)
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


_INIT_STD = 0.02

Heads = Tensor | Sequence[int] | None
"""Indices of ensemble heads, or None for all of them."""


def _weight(*shape: int, generator: torch.Generator) -> nn.Parameter:
    weight = torch.empty(*shape)
    nn.init.trunc_normal_(weight, std=_INIT_STD, a=-2.0, b=2.0, generator=generator)
    return nn.Parameter(weight)


class Linear(nn.Module):
    """x (..., in) -> x W^T + b (..., out), float32 even under autocast."""

    def __init__(self, in_dim: int, out_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = _weight(out_dim, in_dim, generator=generator)
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        return F.linear(x, self.weight, self.bias).float()


class NormedLinear(nn.Module):
    """Linear -> LayerNorm (eps 1e-5) -> Mish, or SimNorm when `simnorm_dim` is given.

    x (..., in) -> (..., out). Only a SimNorm takes what is `added` to its input.
    """

    def __init__(
        self, in_dim: int, out_dim: int, generator: torch.Generator, simnorm_dim: int | None = None
    ) -> None:
        super().__init__()
        self.weight = _weight(out_dim, in_dim, generator=generator)
        self.bias = nn.Parameter(torch.zeros(out_dim))
        self.norm_weight = nn.Parameter(torch.ones(out_dim))
        self.norm_bias = nn.Parameter(torch.zeros(out_dim))
        self.simnorm_dim = simnorm_dim

    def forward(self, *parts: Tensor, added: Tensor | None = None) -> Tensor:
        """Parts (..., in_k) of the input, side by side -> (..., out); added (..., out)."""
        if self.simnorm_dim is None:
            flat = [part.reshape(1, -1, part.shape[-1]) for part in parts]
            layer = hidden if uses_hidden(parts[0]) else composed
            y = layer(flat, self.weight[None], self.bias[None], self.norm_weight[None], self.norm_bias[None])
            return y.view(*parts[0].shape[:-1], -1)
        x = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        y = F.linear(x, self.weight, self.bias).float()
        y = F.layer_norm(y, (y.shape[-1],), self.norm_weight, self.norm_bias, EPS)
        return simnorm(y if added is None else y + added, self.simnorm_dim)


class MLP(nn.Module):
    """Hidden NormedLinear layers, then a plain Linear, or a SimNorm NormedLinear when `simnorm_dim` is given.

    x (..., in_dim) -> (..., out_dim).
    """

    def __init__(
        self,
        in_dim: int,
        hidden: Sequence[int],
        out_dim: int,
        generator: torch.Generator,
        simnorm_dim: int | None = None,
    ) -> None:
        super().__init__()
        dims = [in_dim, *hidden]
        layers: list[nn.Module] = [
            NormedLinear(a, b, generator) for a, b in zip(dims[:-1], dims[1:], strict=True)
        ]
        if simnorm_dim is None:
            layers.append(Linear(dims[-1], out_dim, generator))
        else:
            layers.append(NormedLinear(dims[-1], out_dim, generator, simnorm_dim))
        self.layers = nn.ModuleList(layers)

    def forward(self, *parts: Tensor, added: Tensor | None = None) -> Tensor:
        """Parts (..., in_k) of the input, side by side -> (..., out_dim); added: before a final SimNorm."""
        first, *others, last = self.layers
        x = first(*parts)
        for layer in others:
            x = layer(x)
        return last(x) if added is None else last(x, added=added)


class EnsembleLayer(nn.Module):
    """One ensemble layer: batched linear map, then LayerNorm and Mish with per-head affine if `normed`.

    x (heads, N, in) -> (heads, N, out). Parameters carry the head as leading dimension.
    """

    def __init__(
        self, num_heads: int, in_dim: int, out_dim: int, generator: torch.Generator, normed: bool
    ) -> None:
        super().__init__()
        self.weight = _weight(num_heads, out_dim, in_dim, generator=generator)
        self.bias = nn.Parameter(torch.zeros(num_heads, out_dim))
        self.normed = normed
        if normed:
            self.norm_weight = nn.Parameter(torch.ones(num_heads, out_dim))
            self.norm_bias = nn.Parameter(torch.zeros(num_heads, out_dim))

    def forward(
        self,
        parts: Sequence[Tensor],
        heads: Tensor | None,
        frozen: bool,
        dropout: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Parts (heads or 1, N, in_k) of the input, side by side -> (heads, N, out).

        frozen: weights are constants of the backward pass.
        """

        def pick(parameter: Tensor) -> Tensor:
            parameter = parameter.detach() if frozen else parameter
            return parameter if heads is None else parameter.index_select(0, heads)

        weight, bias = pick(self.weight), pick(self.bias)
        if not self.normed:
            (x,) = parts
            return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2)).float()
        layer = hidden if uses_hidden(parts[0]) else composed
        gain, shift = pick(self.norm_weight), pick(self.norm_bias)
        return layer(parts, weight, bias, gain, shift, dropout, generator)


class MLPEnsemble(nn.Module):
    """`num_heads` MLPs of one shape with separate weights, evaluated together by batched products."""

    def __init__(
        self,
        num_heads: int,
        in_dim: int,
        hidden: Sequence[int],
        out_dim: int,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        dims = [in_dim, *hidden, out_dim]
        last = len(dims) - 2
        self.num_heads = num_heads
        self.dropout = dropout
        self.layers = nn.ModuleList(
            EnsembleLayer(num_heads, a, b, generator, normed=i < last)
            for i, (a, b) in enumerate(zip(dims[:-1], dims[1:], strict=True))
        )

    def forward(
        self,
        *parts: Tensor,
        heads: Heads = None,
        frozen: bool = False,
        dropout_generator: torch.Generator | None = None,
    ) -> Tensor:
        """Parts (..., in_k) of the input, side by side -> (heads, ..., out_dim) in the order of `heads`.

        Only the requested heads are computed. frozen: treat the weights as constants, so that a backward pass
        computes no gradient for them. dropout_generator: draws the dropout mask of the first layer; None
        means no dropout.
        """
        lead, device = parts[0].shape[:-1], parts[0].device
        index = None if heads is None else torch.as_tensor(heads, dtype=torch.long, device=device)
        first, *others = self.layers
        flat = [part.reshape(1, -1, part.shape[-1]) for part in parts]
        y = first(flat, index, frozen, self.dropout, dropout_generator)
        for layer in others:
            y = layer((y,), index, frozen, 0.0, None)
        return y.view(y.shape[0], *lead, y.shape[-1])

    @torch.no_grad()
    def zero_output_weight(self) -> None:
        """Set the weights of the last layer to zero: every head then predicts a uniform distribution."""
        nn.init.zeros_(self.get_parameter(f"layers.{len(self.layers) - 1}.weight"))


class LayerWeights(NamedTuple):
    """A layer's parameters: weight (out, in), bias (out), LayerNorm gain and shift (out) or
    None, group length of the SimNorm that follows; Mish follows a LayerNorm without one."""

    weight: Tensor
    bias: Tensor
    gain: Tensor | None
    shift: Tensor | None
    group: int | None


def layer_weights(layer: nn.Module, head: int | None = None) -> LayerWeights:
    """Of a `Linear` or `NormedLinear`, or of one head of an `EnsembleLayer`; views, not copies."""

    def pick(name: str) -> Tensor:
        tensor = layer.get_parameter(name)
        return tensor if head is None else tensor[head]

    weight, bias, group = pick("weight"), pick("bias"), getattr(layer, "simnorm_dim", None)
    if not hasattr(layer, "norm_weight"):
        return LayerWeights(weight, bias, None, None, None)
    return LayerWeights(weight, bias, pick("norm_weight"), pick("norm_bias"), group)
