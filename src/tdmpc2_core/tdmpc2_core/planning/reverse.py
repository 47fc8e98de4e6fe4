"""MLPs of the world model with a reverse pass for the input alone, without the autograd machinery.

For few rows, recording and replaying a graph costs several times the arithmetic. Weights are read where the
model has them, so training, loading and moving the model need no notice.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2_core.model.functional import simnorm

_LAYER_NORM_EPS = 1e-5
_INPUT_ONLY = [True, False, False]


class _Layer(NamedTuple):
    """One layer's parameters; of all heads, with a leading dimension, in an ensemble."""

    weight: Tensor
    bias: Tensor
    gain: Tensor | None
    shift: Tensor | None
    group: int | None  # of SimNorm; None where Mish follows the LayerNorm


class Tape(NamedTuple):
    """What the reverse pass of one call needs; see `ReversibleMLP.__call__`."""

    head: int | Tensor
    parts: list[tuple[Tensor, ...]]


class ReversibleMLP:
    """An `MLP`, or one head at a time of an `MLPEnsemble`, as `forward` and `backward`.

    layers: the module's `layers`. ensemble: whether their parameters have a leading head dimension.
    """

    def __init__(self, layers: nn.ModuleList, ensemble: bool = False) -> None:
        self._ensemble = ensemble
        self._layers = [_packed(layer) for layer in layers]

    def forward(self, x: Tensor, head: int | Tensor = 0) -> tuple[Tensor, Tape]:
        """x (R, in) -> output (R, out), and the tape for `backward`; head: an index, or a tensor () of it."""
        tape: list[tuple[Tensor, ...]] = []
        for layer in self._layers:
            weight, bias, gain, shift = self._pick(layer, head)
            x = F.linear(x, weight, bias)
            if gain is None:
                tape.append(())
                continue
            normed, mean, rstd = torch.native_layer_norm(x, [x.shape[-1]], gain, shift, _LAYER_NORM_EPS)
            y = F.mish(normed) if layer.group is None else simnorm(normed, layer.group)
            tape.append((x, mean, rstd, normed if layer.group is None else y))
            x = y
        return x, Tape(head, tape)

    def backward(self, grad: Tensor, tape: Tape) -> Tensor:
        """Gradient of the output (R, out) -> gradient of the input (R, in)."""
        for layer, part in zip(reversed(self._layers), reversed(tape.parts), strict=True):
            weight, _, gain, shift = self._pick(layer, tape.head)
            if part:
                x, mean, rstd, kept = part
                grad = (
                    torch.ops.aten.mish_backward(grad, kept)
                    if layer.group is None
                    else _simnorm_backward(grad, kept, layer.group)
                )
                grad = torch.ops.aten.native_layer_norm_backward(
                    grad, x, [x.shape[-1]], mean, rstd, gain, shift, _INPUT_ONLY
                )[0]
            grad = grad @ weight
        return grad

    def _pick(self, layer: _Layer, head: int | Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        if not self._ensemble:
            return layer[:4]
        gain, shift = layer.gain, layer.shift
        return (
            layer.weight[head],
            layer.bias[head],
            None if gain is None else gain[head],
            None if shift is None else shift[head],
        )


def _packed(layer: nn.Module) -> _Layer:
    names = dict(layer.named_parameters())
    group = getattr(layer, "simnorm_dim", None)
    return _Layer(names["weight"], names["bias"], names.get("norm_weight"), names.get("norm_bias"), group)


def _simnorm_backward(grad: Tensor, y: Tensor, group: int) -> Tensor:
    y = y.unflatten(-1, (-1, group))
    g = grad.unflatten(-1, (-1, group))
    return (g - (y * g).sum(-1, keepdim=True)).mul_(y).flatten(-2)
