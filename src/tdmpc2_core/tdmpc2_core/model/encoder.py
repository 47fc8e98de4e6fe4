"""From observations to latents: running normalisation, an MLP for state vectors, convolutions for frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2_core.model.architecture import WorldModelConfig
from tdmpc2_core.model.functional import simnorm
from tdmpc2_core.model.layers import MLP


class ObservationNormaliser(nn.Module):
    """(x - mean) / std clipped to +-clip, per observation entry.

    The statistics are buffers: they are saved with the model, and they move with it. They change only in
    `update`, and only while the module is in training mode. Disabled, it is the identity and `update` does
    nothing.

    obs_dim: observation entries. clip: bound of the output (standard deviations). min_std: floor of the
    standard deviation (observation units), so that an entry that never moved is not amplified. max_count:
    observations after which old ones start to be forgotten, so that the statistics can follow a policy that
    changes. tasks: how many have statistics of their own, since entries of different robots have nothing in
    common; 0: there is one set.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(
        self,
        obs_dim: int,
        enabled: bool,
        clip: float = 10.0,
        min_std: float = 0.01,
        max_count: float = 1e6,
        tasks: int = 0,
    ) -> None:
        super().__init__()
        self.enabled = enabled
        self.clip = clip
        self.min_std = min_std
        self.max_count = max_count
        lead = (tasks,) if tasks else ()
        self.register_buffer("mean", torch.zeros(*lead, obs_dim if enabled else 0))
        self.register_buffer("variance", torch.ones(*lead, obs_dim if enabled else 0))
        self.register_buffer("count", torch.zeros(lead))

    def forward(self, obs: Tensor, task: Tensor | int | None = None) -> Tensor:
        """obs (..., O) -> normalised (..., O); task: an index that broadcasts to its leading dimensions."""
        if not self.enabled:
            return obs
        mean, std = self.mean, self.variance.sqrt().clamp_(min=self.min_std)
        if mean.ndim > 1:
            index = torch.as_tensor(task, device=mean.device).long()
            mean, std = mean[index], std[index]
        return ((obs - mean) / std).clamp_(-self.clip, self.clip)

    @torch.no_grad()
    def update(self, obs: Tensor, task: Tensor | None = None) -> None:
        """Merge observations (..., O) into the statistics (parallel-variance formula of Chan et al.).

        Feed every new observation once, as it comes from the environment. task (B,): of obs (..., B, O),
        where every task has its own statistics.
        """
        if not (self.enabled and self.training):
            return
        if self.mean.ndim == 1:
            self._merge(obs, self.mean, self.variance, self.count)
            return
        assert task is not None
        for index in task.unique().tolist():
            own = self.mean[index], self.variance[index], self.count[index]
            self._merge(obs[..., task == index, :], *own)

    def _merge(self, obs: Tensor, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Change mean (O,), variance (O,) and count () in place."""
        batch = obs.detach().to(mean).reshape(-1, mean.shape[0])
        size = batch.shape[0]
        new_variance, new_mean = torch.var_mean(batch, 0, correction=0)
        total = count + size
        share = size / total
        delta = new_mean - mean
        mean.add_(delta * share)
        variance.add_((new_variance - variance + delta.square() * (1.0 - share)) * share)
        count.copy_(total.clamp(max=self.max_count))


_SHIFT = 3
_SIDE = 64
_CONVOLUTIONS = ((7, 2), (5, 2), (3, 2), (3, 1))  # (kernel, stride)


def state_encoder(config: WorldModelConfig, generator: torch.Generator) -> MLP:
    """(..., O + task_dim) -> z (..., L): hidden NormedLinear layers, then linear, LayerNorm, SimNorm."""
    hidden = [config.enc_dim] * max(config.num_enc_layers - 1, 1)
    return MLP(config.obs_dim + config.task_dim, hidden, config.latent_dim, generator, config.simnorm_dim)


def draw_shifts(lead: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Random shifts (*lead, 2) int64 for images (*lead, C, 64, 64); (3, 3) leaves an image where it is."""
    return torch.randint(0, 2 * _SHIFT + 1, (*lead, 2), generator=generator, device=device)


def shift(images: Tensor, shifts: Tensor | None) -> Tensor:
    """Images (N, C, 64, 64) padded by 3 pixels of their edge, then cut out at `shifts` (N, 2) = (x, y), 0..6.

    None leaves the images as they are, the centre crop (DrQ-v2's augmentation switched off).
    """
    if shifts is None:
        return images
    count, channels = images.shape[:2]
    padded = F.pad(images, (_SHIFT,) * 4, mode="replicate")
    side = torch.arange(_SIDE, device=images.device)
    columns, rows = shifts[:, :1] + side, shifts[:, 1:] + side
    sample = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


class PixelEncoder(nn.Module):
    """Frames (..., C, 64, 64) with values 0..255 -> z (..., 16 * num_channels), group-normalised."""

    def __init__(self, config: WorldModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        channels = [config.obs_dim] + [config.num_channels] * len(_CONVOLUTIONS)
        self.simnorm_dim = config.simnorm_dim
        self.convolutions = nn.ModuleList()
        for a, b, (kernel, stride) in zip(channels[:-1], channels[1:], _CONVOLUTIONS, strict=True):
            layer = nn.utils.skip_init(nn.Conv2d, a, b, kernel, stride=stride)
            bound = (a * kernel**2) ** -0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
            self.convolutions.append(layer)

    def forward(self, frames: Tensor, shifts: Tensor | None = None) -> Tensor:
        """shifts (..., 2): where every image is cut out (training); None leaves the images as they are."""
        lead = frames.shape[:-3]
        shifts = None if shifts is None else shifts.reshape(-1, 2)
        x = shift(frames.reshape(-1, *frames.shape[-3:]).float(), shifts) / 255.0 - 0.5
        for i, layer in enumerate(self.convolutions):
            x = layer(x)
            x = x.relu() if i + 1 < len(self.convolutions) else x
        return simnorm(x.float().reshape(*lead, -1), self.simnorm_dim)
