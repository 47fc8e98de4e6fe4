"""Refuses inputs of a wrong length with a sentence that names the right one; no data is read, only shapes."""

from __future__ import annotations

from torch import Tensor

from tdmpc2_core.errors import UserError
from tdmpc2_core.model.config import WorldModelConfig

IMAGE_SIDE = 64


def check_observation_shape(obs: Tensor, config: WorldModelConfig) -> None:
    """Raises UserError unless obs is (..., O), or (..., C, 64, 64) for a model of pixels."""
    pixels = config.obs_kind == "pixels"
    right = (config.obs_dim, IMAGE_SIDE, IMAGE_SIDE) if pixels else (config.obs_dim,)
    if tuple(obs.shape[-len(right) :]) != right:
        wanted = ", ".join(map(str, right))
        raise UserError(f"world model: obs has shape {tuple(obs.shape)}, must be (..., {wanted})")


def check_last(name: str, x: Tensor, length: int) -> None:
    """Raises UserError unless the last dimension of `x` has `length` entries."""
    if x.ndim == 0 or x.shape[-1] != length:
        raise UserError(f"world model: {name} has shape {tuple(x.shape)}, must be (..., {length})")
