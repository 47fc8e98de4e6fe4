"""Elementwise functions of the model, with hand-written gradients where eager PyTorch is slow on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_EXP_LIMIT = 20.0  # e^20 squared still fits float32, and mish(x) equals x there to the last bit
_CHUNK = 65536  # elements


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Flat views of contiguous tensors of one shape, in pieces whose temporaries stay in a core's cache."""
    flat = [tensor.view(-1) for tensor in tensors]
    count = flat[0].shape[0]
    size = _CHUNK if flat[0].device.type == "cpu" and count > 2 * _CHUNK else max(count, 1)
    return zip(*(tensor.split(size) for tensor in flat), strict=True)


def _mish(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    for x_part, y_part in _chunks(x, y):
        e = x_part.clamp(max=_EXP_LIMIT).exp_()
        m = torch.addcmul(e, e, e, value=0.5)
        torch.add(m, 1.0, out=e)
        torch.div(m.mul_(x_part), e, out=y_part)
    return y


class _Mish(torch.autograd.Function):
    """With e = exp(x), m = e + e^2 / 2, q = 1 / (m + 1): y = x t, t = m q, dy/dx = t + x e q (e q + q).

    The slope is computed in the forward pass, while its parts are in the cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y, slope = torch.empty_like(x), torch.empty_like(x)
        for x_part, t, e in _chunks(x, y, slope):
            torch.clamp(x_part, max=_EXP_LIMIT, out=e).exp_()
            torch.addcmul(e, e, e, value=0.5, out=t)
            q = (t + 1.0).reciprocal_()
            t.mul_(q)
            e.mul_(q)
            q.add_(e).mul_(e)
            torch.addcmul(t, x_part, q, out=e)
            t.mul_(x_part)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return grad_outputs[0] * slope


def mish(x: Tensor) -> Tensor:
    """Mish, x tanh(softplus(x)), through the identity x n / (n + 2), n = e^x (e^x + 2); any shape, float32.

    Exact up to rounding. Several times faster than the library kernel on a CPU, forward and backward.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return _Mish.apply(x)
    return _mish(x.contiguous())


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
