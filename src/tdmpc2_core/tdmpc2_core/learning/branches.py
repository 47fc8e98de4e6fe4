"""Branches from one state: action sequences and what they were worth, so that a model learns which is better.

Values and transitions teach what a state is worth; the differences between plans from one state are small
beside that, and a model may be good at the former and blind to the latter. Here it learns the differences.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2_core.model import WorldModel

_SMALLEST_SPREAD = 0.1  # return, of a group's worths: below it, noise would count most


class Branches(NamedTuple):
    """G states with K sequences of H decisions each.

    Attributes:
        obs: (G, O) observations of the states.
        action: (G, K, H, A) what was done.
        worth: (G, K) discounted reward of it, and the value of where it led.
    """

    obs: Tensor
    action: Tensor
    worth: Tensor


class BranchBuffer:
    """A ring of the newest `capacity` states with their branches; `generator` draws from it."""

    def __init__(
        self, capacity: int, shape: tuple[int, int, int], observation_dim: int, generator: torch.Generator
    ) -> None:
        self._kept = Branches(
            torch.zeros(capacity, observation_dim),
            torch.zeros(capacity, *shape),
            torch.zeros(capacity, shape[0]),
        )
        self._generator, self._written = generator, 0

    def __len__(self) -> int:
        return min(self._written, len(self._kept.obs))

    def add(self, branches: Branches) -> None:
        """Insert G states."""
        rows = (self._written + torch.arange(len(branches.obs))) % len(self._kept.obs)
        for kept, new in zip(self._kept, branches, strict=True):
            kept[rows] = new
        self._written += len(rows)

    def sample(self, count: int) -> Branches:
        """`count` states, drawn with equal weight."""
        rows = torch.randint(len(self), (count,), generator=self._generator)
        return Branches(*(kept[rows] for kept in self._kept))


def predicted_worth(model: WorldModel, obs: Tensor, action: Tensor, discount: float) -> Tensor:
    """What a planner would say (G, K) of sequences (G, K, H, A) from observations (G, O), valued at the
    policy's mode, with gradient."""
    z = model.encode(obs).unsqueeze(1).expand(-1, action.shape[1], -1)
    total, weight = torch.zeros_like(z[..., 0]), torch.ones_like(z[..., 0])
    for step in action.unbind(2):
        total = total + weight * model.reward(z, step).squeeze(-1)
        z = model.next(z, step)
        weight = discount * weight
        if model.config.episodic:
            weight = weight * (1.0 - model.termination(z).squeeze(-1))
    onward = model.policy(z).mean.detach()
    return total + weight * model.q_values(z, onward).mean(0).squeeze(-1)


def branch_error(model: WorldModel, branches: Branches, discount: float) -> Tensor:
    """Error () of predicted differences between the branches of a state, in spreads of their worths.

    What all branches of a state share is left out: values learn it elsewhere. The error is Huber's, as a
    fall is worth more than all else together.
    """
    found = predicted_worth(model, branches.obs, branches.action, discount)
    apart = branches.worth - branches.worth.mean(1, keepdim=True)
    scale = apart.std(1, keepdim=True).clamp(min=_SMALLEST_SPREAD)
    return F.huber_loss((found - found.mean(1, keepdim=True)) / scale, apart / scale)
