"""Two-hot regression in symlog space and the squashed Gaussian policy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tdmpc2_core.model.functional import symexp, symlog

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class TwoHot:
    """Discrete regression on `num_bins` equal steps of [vmin, vmax], in symlog space or ``linear``."""

    num_bins: int
    vmin: float
    vmax: float
    linear: bool = False

    @property
    def bin_size(self) -> float:
        """Distance of two neighbouring bins (symlog units, or those of the value)."""
        return (self.vmax - self.vmin) / (self.num_bins - 1)

    def bins(self, like: Tensor) -> Tensor:
        """Bin centres (num_bins,) on the device and with the dtype of `like`."""
        return torch.linspace(self.vmin, self.vmax, self.num_bins, device=like.device, dtype=like.dtype)

    def place(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """value (..., 1) -> (lower bin index (..., 1) int64, weight of the bin above it (..., 1)).

        Values saturate at the outermost bins. The bin above the last one wraps to index 0 with weight 0.
        """
        scaled = value if self.linear else symlog(value)
        position = (scaled.clamp(self.vmin, self.vmax) - self.vmin) / self.bin_size
        lower = position.floor()
        return lower.long(), position - lower

    def encode(self, value: Tensor) -> Tensor:
        """value (..., 1) -> probabilities (..., num_bins), two neighbours; their mean is the value."""
        lower, above = self.place(value)
        target = torch.zeros(*value.shape[:-1], self.num_bins, device=value.device, dtype=value.dtype)
        target.scatter_(-1, lower, 1.0 - above)
        return target.scatter_add_(-1, (lower + 1) % self.num_bins, above)

    def decode(self, logits: Tensor, bins: Tensor | None = None) -> Tensor:
        """logits (..., num_bins) -> expected value (..., 1), original units. bins: cached bin centres."""
        bins = self.bins(logits) if bins is None else bins
        expected = (logits.softmax(-1) * bins).sum(-1, keepdim=True)
        return expected if self.linear else symexp(expected)

    def cross_entropy(self, logits: Tensor, value: Tensor) -> Tensor:
        """logits (..., num_bins), value (..., 1) that broadcasts to them -> cross entropy (..., 1), nats."""
        lower, above = self.place(value)
        shape = (*logits.shape[:-1], 1)
        index = torch.cat([lower, (lower + 1) % self.num_bins], -1).expand(*shape[:-1], 2)
        log_prob = logits.log_softmax(-1).gather(-1, index)
        return -(log_prob[..., :1] * (1.0 - above) + log_prob[..., 1:] * above)


@dataclass(frozen=True)
class PolicySample:
    """Action of the squashed Gaussian policy and what is needed to score it. A = action dimension.

    action (..., A): tanh(u), u = mean before squashing + noise * exp(log_std).
    mean (..., A): tanh of the Gaussian mean, the deterministic action.
    log_std (..., A): bounded log standard deviation before squashing.
    noise (..., A): the standard normal draw (zero for a deterministic sample).
    action_dims: number of real action dimensions, a number or (..., 1) per task.
    Masked action dimensions have action, mean, log_std and noise 0. Densities are computed when asked for.
    Unpacks as ``action, mean, log_std = sample``.
    """

    action: Tensor
    mean: Tensor
    log_std: Tensor
    noise: Tensor
    action_dims: Tensor | int

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.action, self.mean, self.log_std))

    @property
    def gaussian_log_prob(self) -> Tensor:
        """Log density of u before squashing (..., 1), nats; masked entries count a constant -0.919 each."""
        return (-0.5 * self.noise.square() - self.log_std - _HALF_LOG_TWO_PI).sum(-1, keepdim=True)

    @property
    def log_prob(self) -> Tensor:
        """Log density of the squashed action (..., 1), nats."""
        return self.gaussian_log_prob - ((1.0 - self.action.square()).relu() + 1e-6).log().sum(
            -1, keepdim=True
        )

    @property
    def entropy(self) -> Tensor:
        """One-sample entropy of the squashed action (..., 1), nats: -log_prob."""
        return -self.log_prob

    @property
    def scaled_entropy(self) -> Tensor:
        """Entropy bonus of the official code (..., 1): the Gaussian log density times -action_dims.

        The official scaling divides the tanh correction out again; the term is kept as written there, with
        its 1e-8.
        """
        log_prob = self.log_prob
        return -log_prob * (self.action_dims * self.gaussian_log_prob / (log_prob + 1e-8))


def log_std_of(raw: Tensor, low: float, high: float) -> Tensor:
    """Log standard deviation of a policy's output `raw` (..., A), which enters [low, high] by a tanh."""
    return low + 0.5 * (high - low) * (raw.tanh() + 1.0)


def squashed_gaussian(
    output: Tensor,
    noise: Tensor | None,
    log_std_min: float,
    log_std_max: float,
    mask: Tensor | None = None,
) -> PolicySample:
    """Network output (..., 2 A) -> sample.

    noise (..., A): standard normal, None for the mean action. mask (..., A): ones and zeros, or None.
    """
    mean, raw = output.chunk(2, -1)
    log_std = log_std_of(raw, log_std_min, log_std_max)
    deterministic = noise is None
    noise = torch.zeros_like(mean) if noise is None else noise
    action_dims: Tensor | int = mean.shape[-1]
    if mask is not None:
        mean, log_std, noise = mean * mask, log_std * mask, noise * mask
        action_dims = mask.sum(-1, keepdim=True)
    squashed = mean.tanh()
    action = squashed if deterministic else torch.addcmul(mean, noise, log_std.exp()).tanh()
    return PolicySample(action, squashed, log_std, noise, action_dims)


def gaussian_log_density(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log density of a diagonal Gaussian summed over the last dimension: (..., A) -> (..., 1), nats."""
    return (-0.5 * ((x - mean) / std).square() - std.log() - _HALF_LOG_TWO_PI).sum(-1, keepdim=True)


def gaussian_kl(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """KL(N(mean, std) || N(other_mean, other_std)) of diagonal Gaussians: (..., A) -> (..., 1), nats."""
    ratio = (std / other_std).square()
    shift = ((mean - other_mean) / other_std).square()
    return 0.5 * (ratio + shift - 1.0 - ratio.log()).sum(-1, keepdim=True)


def student_log_density(x: Tensor, mean: Tensor, scale: Tensor, freedom: float) -> Tensor:
    """Log density of a multivariate Student t with a diagonal scale: (..., A) -> (..., 1), nats.

    freedom: degrees of freedom, above 0; towards infinity it is a Gaussian of standard deviation ``scale``.
    """
    size = x.shape[-1]
    constant = math.lgamma(0.5 * (freedom + size)) - math.lgamma(0.5 * freedom)
    constant -= 0.5 * size * math.log(freedom * math.pi)
    distance = ((x - mean) / scale).square().sum(-1, keepdim=True)
    tail = 0.5 * (freedom + size) * torch.log1p(distance / freedom)
    return constant - scale.log().sum(-1, keepdim=True) - tail
