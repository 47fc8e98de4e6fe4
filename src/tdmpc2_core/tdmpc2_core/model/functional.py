"""Elementwise functions of the model, with hand-written gradients where eager PyTorch is slow on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_EXP_LIMIT = 20.0  # e^20 squared still fits float32, and mish(x) equals x there to the last bit
_CHUNK = 65536  # elements


def _pieces(x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Flat views of contiguous tensors of one shape, in pieces whose temporaries stay in a core's cache."""
    flat = [tensor.view(-1) for tensor in (x, *others)]
    size = _CHUNK if x.device.type == "cpu" and x.numel() > 2 * _CHUNK else max(x.numel(), 1)
    return zip(*(tensor.split(size) for tensor in flat), strict=True)


def _head_pieces(x: Tensor) -> list[tuple[slice, slice]]:
    """The same for x (heads, N, C): index ranges of heads and rows."""
    heads, rows, width = x.shape
    if x.device.type != "cpu" or x.numel() <= _CHUNK:
        return [(slice(0, heads), slice(0, rows))]
    step = max(_CHUNK // width, 1)
    return [(slice(h, h + 1), slice(i, i + step)) for h in range(heads) for i in range(0, rows, step)]


def _value(x: Tensor, y: Tensor) -> None:
    """y <- mish(x), x float32."""
    e = x.clamp(max=_EXP_LIMIT).exp_()
    m = torch.addcmul(e, e, e, value=0.5)
    torch.add(m, 1.0, out=e)
    torch.div(m.mul_(x), e, out=y)


def _value_and_slope(x: Tensor, y: Tensor, slope: Tensor) -> None:
    """y <- mish(x), slope <- its derivative, x float32.

    With e = exp(x), m = e + e^2 / 2, q = 1 / (m + 1) and t = m q: y = x t and dy/dx = t + x e q (e q + q).
    The slope is computed here, while its parts are in the cache.
    """
    e = x.clamp(max=_EXP_LIMIT).exp_()
    t = torch.addcmul(e, e, e, value=0.5)
    q = (t + 1.0).reciprocal_()
    t.mul_(q)
    e.mul_(q)
    q.add_(e).mul_(e)
    torch.addcmul(t, x, q, out=q)
    slope.copy_(q)
    torch.mul(t, x, out=y)


class _Mish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y, slope = torch.empty_like(x), torch.empty_like(x)
        for x_part, y_part, slope_part in _pieces(x, y, slope):
            _value_and_slope(x_part.float(), y_part, slope_part)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return grad_outputs[0] * slope


def mish(x: Tensor) -> Tensor:
    """Mish, x tanh(softplus(x)), by the identity x n / (n + 2), n = e^x (e^x + 2); any shape, dtype kept.

    Exact up to rounding, computed in float32. Several times faster than the library kernel on a CPU, forward
    and backward.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return _Mish.apply(x)
    x = x.contiguous()
    y = torch.empty_like(x)
    for x_part, y_part in _pieces(x, y):
        _value(x_part.float(), y_part)
    return y


class _AffineMish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        x = x.contiguous()
        y, slope = torch.empty_like(x), torch.empty_like(x)
        for heads, rows in _head_pieces(x):
            u = torch.addcmul(shift[heads, None], x[heads, rows].float(), gain[heads, None])
            _value_and_slope(u, y[heads, rows], slope[heads, rows])
        ctx.save_for_backward(x, gain, slope)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        x, gain, slope = ctx.saved_tensors
        grad, grad_x = grad_outputs[0], torch.empty_like(x)
        train = ctx.needs_input_grad[1]
        grad_gain, grad_shift = torch.zeros_like(gain), torch.zeros_like(gain)
        for heads, rows in _head_pieces(x):
            g = grad[heads, rows].float() * slope[heads, rows]
            if train:
                grad_shift[heads] += g.sum(1)
                grad_gain[heads] += (g * x[heads, rows]).sum(1)
            torch.mul(g, gain[heads, None], out=grad_x[heads, rows])
        return (grad_x, grad_gain, grad_shift) if train else (grad_x, None, None)


def affine_mish(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """mish(x * gain + shift) with one gain and shift per head: x (heads, N, C), gain and shift (heads, C).

    Computed in float32, in the dtype of x on return.
    """
    if torch.is_grad_enabled() and (x.requires_grad or gain.requires_grad):
        return _AffineMish.apply(x, gain, shift)
    y = torch.empty_like(x)
    for heads, rows in _head_pieces(x):
        u = torch.addcmul(shift[heads, None], x[heads, rows].float(), gain[heads, None])
        _value(u, y[heads, rows])
    return y


def _simnorm(x: Tensor, group: int) -> Tensor:
    v = x.unflatten(-1, (-1, group))
    e = (v - v.amax(-1, keepdim=True)).exp_()
    return e.div_(e.sum(-1, keepdim=True)).flatten(-2)


class _SimNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: int) -> Tensor:
        y = _simnorm(x, group)
        ctx.group = group
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        y = y.unflatten(-1, (-1, ctx.group))
        g = grad_outputs[0].unflatten(-1, (-1, ctx.group))
        return (g - (y * g).sum(-1, keepdim=True)).mul_(y).flatten(-2), None


def simnorm(x: Tensor, group: int) -> Tensor:
    """Simplicial normalisation: softmax inside each group of `group` consecutive entries.

    x: (..., L) with L a multiple of `group`; returns the same shape, every group non-negative with sum 1.
    Written without the softmax kernel, which is an order of magnitude slower for rows of eight on a CPU.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return _SimNorm.apply(x, group)
    return _simnorm(x, group)


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|); any shape."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`: sign(x) (e^|x| - 1); any shape."""
    return x.sign() * x.abs().expm1()
