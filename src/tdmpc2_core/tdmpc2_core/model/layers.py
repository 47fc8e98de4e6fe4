"""Layers of TD-MPC2: NormedLinear, the MLP built from it, and a stacked ensemble of such MLPs.

Weights are drawn from a truncated normal (std 0.02), biases are zero, LayerNorm starts at (1, 0). Every draw
uses the generator that is passed in; the global random state is neither read nor advanced.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2_core.model.functional import simnorm
from tdmpc2_core.model.hidden import EPS, composed, hidden, uses_hidden

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

    x (..., in) -> (..., out).
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

    def forward(self, *parts: Tensor) -> Tensor:
        """Parts (..., in_k) of the input, side by side -> (..., out)."""
        if self.simnorm_dim is None:
            flat = [part.reshape(1, -1, part.shape[-1]) for part in parts]
            layer = hidden if uses_hidden(parts[0]) else composed
            y = layer(flat, self.weight[None], self.bias[None], self.norm_weight[None], self.norm_bias[None])
            return y.view(*parts[0].shape[:-1], -1)
        x = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        y = F.linear(x, self.weight, self.bias).float()
        y = F.layer_norm(y, (y.shape[-1],), self.norm_weight, self.norm_bias, EPS)
        return simnorm(y, self.simnorm_dim)


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

    def forward(self, *parts: Tensor) -> Tensor:
        """Parts (..., in_k) of the input, side by side -> (..., out_dim)."""
        first, *others = self.layers
        x = first(*parts)
        for layer in others:
            x = layer(x)
        return x


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
