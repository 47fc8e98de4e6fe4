"""Layers of TD-MPC2: NormedLinear, the MLP built from it, and a stacked ensemble of such MLPs.

Weights are drawn from a truncated normal (std 0.02), biases are zero, LayerNorm starts at (1, 0). Every draw
uses the generator that is passed in; the global random state is neither read nor advanced.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2_core.model.functional import affine_mish, mish, simnorm

_INIT_STD = 0.02
_LAYER_NORM_EPS = 1e-5

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

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        y = F.linear(x, self.weight, self.bias)
        y = y if self.simnorm_dim is None else y.float()
        y = F.layer_norm(y, (y.shape[-1],), self.norm_weight, self.norm_bias, _LAYER_NORM_EPS)
        return mish(y) if self.simnorm_dim is None else simnorm(y, self.simnorm_dim)


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

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_dim) -> (..., out_dim)."""
        for layer in self.layers:
            x = layer(x)
        return x


def _dropout(x: Tensor, p: float, generator: torch.Generator) -> Tensor:
    keep = torch.empty_like(x, requires_grad=False).bernoulli_(1.0 - p, generator=generator)
    return x * keep.div_(1.0 - p)


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
        self, x: Tensor, heads: Tensor | None, frozen: bool, dropout: float, generator: torch.Generator | None
    ) -> Tensor:
        """x (heads or 1, N, in) -> (heads, N, out). frozen: weights are constants of the backward pass."""

        def pick(parameter: Tensor) -> Tensor:
            parameter = parameter.detach() if frozen else parameter
            return parameter if heads is None else parameter.index_select(0, heads)

        weight = pick(self.weight).transpose(1, 2)
        y = torch.baddbmm(pick(self.bias).unsqueeze(1), x.expand(weight.shape[0], -1, -1), weight)
        if not self.normed:
            return y.float()
        if generator is not None and dropout > 0.0:
            y = _dropout(y, dropout, generator)
        y = F.layer_norm(y, (y.shape[-1],), eps=_LAYER_NORM_EPS)
        return affine_mish(y, pick(self.norm_weight), pick(self.norm_bias))


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
        x: Tensor,
        heads: Heads = None,
        frozen: bool = False,
        dropout_generator: torch.Generator | None = None,
    ) -> Tensor:
        """x (..., in_dim) -> (heads, ..., out_dim) in the order of `heads`.

        Only the requested heads are computed. frozen: treat the weights as constants, so that a backward pass
        computes no gradient for them. dropout_generator: draws the dropout mask of the first layer; None
        means no dropout.
        """
        index = None if heads is None else torch.as_tensor(heads, dtype=torch.long, device=x.device)
        y = x.reshape(1, -1, x.shape[-1])
        for i, layer in enumerate(self.layers):
            y = layer(y, index, frozen, self.dropout if i == 0 else 0.0, dropout_generator)
        return y.view(y.shape[0], *x.shape[:-1], y.shape[-1])

    @torch.no_grad()
    def zero_output_weight(self) -> None:
        """Set the weights of the last layer to zero: every head then predicts a uniform distribution."""
        nn.init.zeros_(self.get_parameter(f"layers.{len(self.layers) - 1}.weight"))
