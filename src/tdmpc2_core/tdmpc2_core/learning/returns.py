"""Discount heuristic and n-step returns that end with the episode."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def discount_for(episode_length: int, denom: float = 5.0, low: float = 0.95, high: float = 0.995) -> float:
    """Discount of the paper: clip((f - 1) / f, low, high), f = episode_length (decisions) / denom."""
    fraction = episode_length / denom
    return min(max((fraction - 1.0) / fraction, low), high)


class NStepReturn(NamedTuple):
    """Target = reward + bootstrap * value(obs[t + steps]), for t = 0..horizon - 1.

    reward (H, B, 1): discounted sum of the rewards used. bootstrap (H, B, 1): discount^steps, 0 after a
    terminal state. steps (H, B, 1) int64: steps used, 1..n_step.
    """

    reward: Tensor
    bootstrap: Tensor
    steps: Tensor


def n_step_returns(
    reward: Tensor, terminated: Tensor, valid: Tensor, discount: Tensor, horizon: int, n_step: int
) -> NStepReturn:
    """Sum up to n_step rewards per start, fewer where the episode ends earlier.

    reward, terminated, valid (horizon + n_step - 1, B, 1); discount () or (B, 1), per decision. A time limit
    shortens the sum and bootstraps from the last true observation; a terminal state ends it without a
    bootstrap. n_step = 1 is the target of the paper.
    """
    inside = valid.cumprod(0)
    total, alive = reward[:horizon], 1.0 - terminated[:horizon]
    factor = discount.expand_as(total)
    steps = torch.ones_like(total)
    for k in range(1, n_step):
        used = alive * inside[k : k + horizon]
        total = total + factor * used * reward[k : k + horizon]
        factor = torch.where(used > 0, factor * discount, factor)
        steps = steps + used
        alive = alive * (1.0 - used * terminated[k : k + horizon])
    return NStepReturn(total, factor * alive, steps.long())
