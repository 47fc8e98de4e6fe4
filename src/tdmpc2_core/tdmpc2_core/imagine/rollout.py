"""Imagined rollouts, written directly on the world model (TD-MPC2 paper, eq. 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel


Discount = float | Sequence[float]
"""Per-decision discount of predicted returns: one number, or one per task of a multi-task model."""


class Rollout(Protocol):
    """What MPPI needs of a world model: B robots, N candidates each, H steps; actions are (H, B, N, A)."""

    def encode(self, obs: Tensor, task: Tensor | None, shifts: Tensor | None = None) -> Tensor:
        """Latents (B, L) of observations (B, O); shifts (B, 2): see `WorldModel.encode`."""
        ...

    def prior(self, latent: Tensor, noise: Tensor, task: Tensor | None) -> Tensor:
        """Policy trajectories (H, B, P, A) from latents (B, L) with policy noise (H, B, P, A)."""
        ...

    def returns(
        self, latent: Tensor, actions: Tensor, noise: Tensor, heads: Sequence[int], task: Tensor | None
    ) -> Tensor:
        """Predicted returns (B, N) of actions (H, B, N, A) from latents (B, L); terminal noise (B, N, A).

        heads: value heads whose mean is the value of the last latent.
        """
        ...


def discounted_return(
    rewards: Tensor, terminal_value: Tensor, termination: Tensor | None, discount: float | Tensor, soft: bool
) -> Tensor:
    """Sum over t of discount^t alive_t r_t, plus discount^H alive_H times the terminal value (paper eq. 3).

    Args:
        rewards: (H, ...) rewards of the steps.
        terminal_value: (...) value of the last latent.
        termination: (H, ...) probability that step t ended the episode, or None without a termination head.
        discount: per-decision discount, a number or a tensor that broadcasts to (...).
        soft: True weighs by the probability of being alive, False ends at the first probability above 0.5.
    """
    horizon = rewards.shape[0]
    gammas = [discount**t for t in range(horizon + 1)]
    if termination is None:
        total = terminal_value * gammas[horizon]
        for t in range(horizon):
            total = total + gammas[t] * rewards[t]
        return total
    survival = 1.0 - termination if soft else (termination <= 0.5).to(rewards.dtype)
    alive = survival.cumprod(0)  # after step t
    total = rewards[0] + gammas[horizon] * alive[-1] * terminal_value
    for t in range(1, horizon):
        total = total + gammas[t] * alive[t - 1] * rewards[t]
    return total


def discount_table(discount: Discount, model: WorldModel) -> float | Tensor:
    """The number, or the discounts of the tasks as a tensor (tasks,) on the model's device.

    Raises ValueError unless there is one per task.
    """
    if isinstance(discount, float | int):
        return float(discount)
    if len(discount) != model.config.num_tasks:
        raise ValueError(f"{len(discount)} discounts for {model.config.num_tasks} tasks; give one per task")
    return torch.tensor(discount, device=next(model.parameters()).device)


def discount_of(table: float | Tensor, task: Tensor | None) -> float | Tensor:
    """Discounts (B, 1) of tasks (B,) from `discount_table`, or the number for all."""
    return table if isinstance(table, float) or task is None else table[task].unsqueeze(1)


class ModelRollout:
    """`Rollout` through the public API of `WorldModel`, one call per head and step; any device and model.

    Attributes:
        costs: taken off the returns: (R,) of latents (H, R, L) after each decision, and actions (H, R, A).
    """

    def __init__(
        self,
        model: WorldModel,
        discount: Discount,
        soft_termination: bool = False,
        disagreement_cost: float = 0.0,
    ) -> None:
        self.model = model
        self.discount = discount_table(discount, model)
        self.soft_termination = soft_termination
        self.disagreement_cost = disagreement_cost
        self.costs: Callable[[Tensor, Tensor], Tensor] | None = None

    def encode(self, obs: Tensor, task: Tensor | None = None, shifts: Tensor | None = None) -> Tensor:
        """See `Rollout.encode`."""
        return self.model.encode(obs, task, shifts)

    def prior(self, latent: Tensor, noise: Tensor, task: Tensor | None = None) -> Tensor:
        """See `Rollout.prior`."""
        z, tasks = _per_candidate(latent, task, noise.shape[2])
        actions = []
        for t, eps in enumerate(noise):
            actions.append(self.model.policy(z, tasks, noise=eps).action)
            if t + 1 < len(noise):
                z = self.model.next(z, actions[-1], tasks)
        return torch.stack(actions)

    def returns(
        self,
        latent: Tensor,
        actions: Tensor,
        noise: Tensor,
        heads: Sequence[int],
        task: Tensor | None = None,
    ) -> Tensor:
        """See `Rollout.returns`."""
        model = self.model
        z, tasks = _per_candidate(latent, task, actions.shape[2])
        rewards, termination, latents = [], [], []
        for action in actions:
            rewards.append(model.reward(z, action, tasks).squeeze(-1))
            z = model.next(z, action, tasks)
            latents.append(z)
            if model.config.episodic:
                termination.append(model.termination(z, tasks).squeeze(-1))
        onward = model.policy(z, tasks, noise=noise).action
        value = self._one_value(model.q_values(z, onward, tasks, heads=heads).squeeze(-1))
        ended = torch.stack(termination) if termination else None
        discount = discount_of(self.discount, task)
        total = discounted_return(torch.stack(rewards), value, ended, discount, self.soft_termination)
        if self.costs is None:
            return total
        return total - self.costs(torch.stack(latents).flatten(1, 2), actions.flatten(1, 2)).view_as(total)

    def _one_value(self, values: Tensor) -> Tensor:
        """Of several heads (heads, ...): their mean less the cost of their disagreement (...)."""
        mean = values.mean(0)
        if self.disagreement_cost == 0.0 or len(values) == 1:
            return mean
        return mean - self.disagreement_cost * values.std(0, correction=0)


def _per_candidate(latent: Tensor, task: Tensor | None, count: int) -> tuple[Tensor, Tensor | None]:
    """Latents (B, L) and tasks (B,) repeated to (B, count, L) and (B, count)."""
    tasks = None if task is None else task.unsqueeze(1).expand(-1, count)
    return latent.unsqueeze(1).expand(-1, count, -1), tasks
