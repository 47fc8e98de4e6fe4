"""Small models with weights that are not trivial, for planner, agent and bundle tests."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from tdmpc2_core.model.architecture import WorldModelConfig
from tdmpc2_core.model.world_model import WorldModel


def small_model(obs_dim: int = 9, action_dim: int = 4, seed: int = 0, **changes: Any) -> WorldModel:
    """World model of about 10 000 weights, all perturbed, so that reward and value are not constant."""
    values = {"latent_dim": 16, "enc_dim": 24, "mlp_dim": 32, "num_q": 2, "dropout": 0.0, **changes}
    model = WorldModel(WorldModelConfig(obs_dim, action_dim, **values))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def generator(seed: int = 0) -> torch.Generator:
    """Random numbers for one test."""
    return torch.Generator().manual_seed(seed)


class Hill:
    """Returns -20 |a - goal|^2, with its slope; each call takes `seconds`."""

    def __init__(self, horizon: int, robots: int, seconds: float = 0.0) -> None:
        self.goal = torch.rand(horizon, robots, 1, 4, generator=generator(9)) * 1.2 - 0.6
        self.seconds = seconds

    def encode(self, obs: Tensor, task: Tensor | None, shifts: Tensor | None = None) -> Tensor:
        return obs

    def prior(self, latent: Tensor, noise: Tensor, task: Tensor | None) -> Tensor:
        return noise.tanh()

    def returns(self, latent: Tensor, actions: Tensor, *rest: Any) -> Tensor:
        time.sleep(self.seconds)
        return -20.0 * (actions - self.goal).square().sum((0, 3))

    def gradient(self, latent: Tensor, actions: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        return self.returns(latent, actions), -40.0 * (actions - self.goal)
