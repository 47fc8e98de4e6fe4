"""A policy prior improved by what comes of its actions, the encoder frozen (PPO, arXiv 1707.06347).

The prior acts on latents, as on the robot; its critic reads what only a simulator knows (asymmetric
actor-critic, arXiv 1710.06542). A divergence from the prior as it was keeps it near.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from tdmpc2_core.config import check_fields, setting
from tdmpc2_core.learning.expert import minibatches
from tdmpc2_core.model import WorldModel


@dataclass(frozen=True)
class PriorConfig:
    """How the prior learns from rollouts of its own. Field metadata: unit and reason."""

    std: float = setting(
        0.15, above=0, unit="normalised action", why="exploration, held: it starts from what is good already"
    )
    epochs: int = setting(4, low=1, why="passes over a rollout")
    minibatches: int = setting(4, low=1, why="gradient steps per pass")
    clip: float = setting(0.2, above=0, unit="ratio", why="how far a rollout may move the prior")
    lr: float = setting(5e-5, above=0, unit="per update", why="Adam step at the start; follows desired_kl")
    lr_range: tuple[float, float] = setting(
        (2e-6, 1e-3), above=0, unit="per update", why="that the step stays in"
    )
    desired_kl: float = setting(0.02, above=0, unit="nat", why="change per rollout that lr aims at")
    anchor: float = setting(
        1e-4, low=0, unit="reward spread/nat", why="weight of the divergence from the prior as it was"
    )
    grad_clip_norm: float = setting(1.0, above=0, unit="gradient norm", why="as the expert's")

    def __post_init__(self) -> None:
        check_fields(self)


class PriorLearner:
    """Improves the policy head of a world model in place; all else of the model stays.

    Args:
        model: that acts; its head is trained, its encoder only read.
        generator: of exploration and minibatches.
    """

    def __init__(self, model: WorldModel, config: PriorConfig, generator: torch.Generator) -> None:
        self.model, self.config, self.generator, self.lr = model, config, generator, config.lr
        self._first = deepcopy(model.policy_head).requires_grad_(False)
        self._params = list(model.policy_head.requires_grad_(True).parameters())
        self.optimiser = torch.optim.Adam(self._params, lr=self.lr, fused=True)

    def explore(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Around the prior's means (N, A): actions, not clipped, and log densities (N,) less a constant."""
        noise = torch.randn(mean.shape, generator=self.generator)
        return mean + self.config.std * noise, -0.5 * noise.square().sum(-1)

    def update(self, z: Tensor, action: Tensor, log_prob: Tensor, advantage: Tensor) -> dict[str, float]:
        """Epochs over one rollout, of M decisions, all (M, ...); means over its steps."""
        config = self.config
        gain = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        with torch.no_grad():
            before = self.model.policy(z).mean
            first = self._first(z)
        sums, steps = torch.zeros(2), 0
        for index in minibatches(len(z), config.epochs, config.minibatches, self.generator):
            output = self.model.policy_head(z[index])
            mean = output.chunk(2, -1)[0].tanh()
            density = -0.5 * ((action[index] - mean) / config.std).square().sum(-1)
            ratio = (density - log_prob[index]).exp()
            clipped = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
            surrogate = torch.minimum(ratio * gain[index], clipped * gain[index]).mean()
            apart = self._apart(output, first[index])
            loss = config.anchor * apart - surrogate
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self._params, config.grad_clip_norm)
            self.optimiser.step()
            increment_version(
                self._params
            )  # planners see new weights by it; the fused kernel leaves it alone
            self._follow((mean.detach() - before[index]) / config.std)
            sums += torch.stack([surrogate.detach(), apart.detach()])
            steps += 1
        surrogate, apart = (sums / steps).tolist()
        return {"surrogate": surrogate, "divergence": apart, "prior lr": self.lr}

    def _apart(self, output: Tensor, first: Tensor) -> Tensor:
        """Divergence () from the prior as it was, nats; the spread of its output is to stay, too."""
        mean, spread = output.chunk(2, -1)
        old, old_spread = first.chunk(2, -1)
        moved = (mean.tanh() - old.tanh()) / self.config.std
        return 0.5 * (moved.square() + (spread - old_spread).square()).sum(-1).mean()

    def _follow(self, moved: Tensor) -> None:
        """Adapt the step length to the divergence from the prior that made the rollout."""
        divergence = 0.5 * float(moved.square().sum(-1).mean())
        low, high = self.config.lr_range
        if divergence > 2.0 * self.config.desired_kl:
            self.lr = max(low, self.lr / 1.5)
        elif divergence < 0.5 * self.config.desired_kl:
            self.lr = min(high, self.lr * 1.5)
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the model and what its prior was at first."""
        return {"optimiser": self.optimiser.state_dict(), "lr": self.lr}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.lr = float(state["lr"])
