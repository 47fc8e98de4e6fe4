"""Running mean and standard deviation of observations, stored inside the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ObservationNormaliser(nn.Module):
    """(x - mean) / std clipped to +-clip, per observation entry.

    The statistics are buffers: they are saved with the model, and they move with it. They change only in
    `update`, and only while the module is in training mode. Disabled, it is the identity and `update` does
    nothing.

    obs_dim: observation entries. clip: bound of the output (standard deviations). min_std: floor of the
    standard deviation (observation units), so that an entry that never moved is not amplified. max_count:
    observations after which old ones start to be forgotten, so that the statistics can follow a policy that
    changes.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(
        self, obs_dim: int, enabled: bool, clip: float = 10.0, min_std: float = 0.01, max_count: float = 1e6
    ) -> None:
        super().__init__()
        self.enabled = enabled
        self.clip = clip
        self.min_std = min_std
        self.max_count = max_count
        self.register_buffer("mean", torch.zeros(obs_dim if enabled else 0))
        self.register_buffer("variance", torch.ones(obs_dim if enabled else 0))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, obs: Tensor) -> Tensor:
        """obs (..., O) -> normalised (..., O)."""
        if not self.enabled:
            return obs
        std = self.variance.sqrt().clamp_(min=self.min_std)
        return ((obs - self.mean) / std).clamp_(-self.clip, self.clip)

    @torch.no_grad()
    def update(self, obs: Tensor) -> None:
        """Merge observations (..., O) into the statistics (parallel-variance formula of Chan et al.).

        Feed every new observation once, as it comes from the environment.
        """
        if not (self.enabled and self.training):
            return
        batch = obs.detach().to(self.mean).reshape(-1, self.mean.shape[0])
        size = batch.shape[0]
        variance, mean = torch.var_mean(batch, 0, correction=0)
        total = self.count + size
        share = size / total
        delta = mean - self.mean
        self.mean.add_(delta * share)
        spread = variance - self.variance + delta.square() * (1.0 - share)
        self.variance.add_(spread * share)
        self.count.copy_(total.clamp(max=self.max_count))
