"""Losses of the world model: consistency, reward, value and termination over an open-loop latent rollout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2_core.learning.batch import Batch
from tdmpc2_core.model import WorldModel


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
    bootstrap. n_step = 1 is the target of the paper. Where a reward is unknown, NaN, its sums are.
    """
    inside = valid.cumprod(0)
    total, alive = reward[:horizon], 1.0 - terminated[:horizon]
    reward = torch.where(valid > 0, reward, 0.0)
    factor = discount.expand_as(total)
    steps = torch.ones_like(total)
    for k in range(1, n_step):
        used = alive * inside[k : k + horizon]
        total = total + factor * used * reward[k : k + horizon]
        factor = torch.where(used > 0, factor * discount, factor)
        steps = steps + used
        alive = alive * (1.0 - used * terminated[k : k + horizon])
    return NStepReturn(total, factor * alive, steps.long())


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms: total = sum of weight * term. imitation_tolerance: see `imitation_error`."""

    consistency: float
    reward: float
    value: float
    termination: float
    imitation: float = 0.0
    imitation_tolerance: float = 0.05


@dataclass(frozen=True)
class WorldModelLosses:
    """Unweighted terms (), their weighted total (), and the predicted latents zs (H + 1, B, L).

    termination_logits (H, B, 1) of zs[1:], None for a model without termination head.
    """

    consistency: Tensor
    reward: Tensor
    value: Tensor
    termination: Tensor
    imitation: Tensor
    total: Tensor
    zs: Tensor
    termination_logits: Tensor | None


def time_weights(rho: float, steps: int, device: torch.device) -> Tensor:
    """rho^t for t = 0..steps - 1, shape (steps, 1, 1)."""
    return torch.pow(rho, torch.arange(steps, device=device, dtype=torch.float32))[:, None, None]


def masked_mean(value: Tensor, weight: Tensor) -> Tensor:
    """Mean of value * weight over all entries.

    Entries that do not count are zero but stay in the denominator: every real transition weighs the same in
    every batch, and a mask of ones gives the plain mean.
    """
    return (value * weight).mean()


def _known(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values with zeros in place of NaN, which stands for unknown, and ones where they are known."""
    return values.nan_to_num(0.0), (~values.isnan()).to(values.dtype)


def rollout(model: WorldModel, z: Tensor, action: Tensor, task: Tensor | None) -> Tensor:
    """Open-loop latents: z (B, L), action (H, B, A) -> (H + 1, B, L), gradients through time."""
    zs = [z]
    for step in action:
        zs.append(model.next(zs[-1], step, task))
    return torch.stack(zs)


def world_model_losses(
    model: WorldModel,
    batch: Batch,
    next_z: Tensor,
    target: Tensor,
    rho_weights: Tensor,
    weights: LossWeights,
    generator: torch.Generator | None,
    shifts: Tensor | None = None,
) -> WorldModelLosses:
    """Losses of one batch (TD-MPC2 paper, eq. 3), H = target.shape[0].

    next_z (H, B, L): encoded observations 1..H. target (H, B, 1): value targets. rho_weights (H, 1, 1):
    rho^t. generator: draws the dropout of the value heads. shifts (B, 2): image shifts of observation 0, or
    None. Steps with batch.valid = 0 do not contribute, nor do unknown (NaN) rewards and targets.
    """
    horizon = target.shape[0]
    action, valid = batch.action[:horizon], batch.valid[:horizon]
    zs = rollout(model, model.encode(batch.obs[0], batch.task, shifts), action, batch.task)
    weighted = rho_weights * valid
    consistency = masked_mean((zs[1:] - next_z).square().mean(-1, keepdim=True), weighted)
    reward_logits = model.reward_logits(zs[:-1], action, batch.task)
    rewards, told = _known(batch.reward[:horizon])
    reward = masked_mean(model.reward_two_hot.cross_entropy(reward_logits, rewards), weighted * told)
    q_logits = model.q_logits(zs[:-1], action, batch.task, dropout_generator=generator)
    target, told = _known(target)
    value = masked_mean(model.value_two_hot.cross_entropy(q_logits, target), weighted * told)
    termination, logits = torch.zeros_like(value), None
    if model.termination_head is not None:
        logits = model.termination_logits(zs[1:])
        error = F.binary_cross_entropy_with_logits(logits, batch.terminated[:horizon], reduction="none")
        termination = masked_mean(error, valid)
    imitation = torch.zeros_like(value)
    if weights.imitation > 0.0:
        imitation = imitation_error(model, zs[:-1], batch, weighted, weights.imitation_tolerance)
    total = (
        weights.consistency * consistency
        + weights.reward * reward
        + weights.termination * termination
        + weights.value * value
        + weights.imitation * imitation
    )
    return WorldModelLosses(consistency, reward, value, termination, imitation, total, zs, logits)


def imitation_error(model: WorldModel, zs: Tensor, batch: Batch, weight: Tensor, tolerance: float) -> Tensor:
    """c^2 log(1 + d^2 / c^2) -> (); d: RMS distance of the policy's mean from the stored plan, c: tolerance.

    zs (H, B, L): latents with gradient. weight (H, B, 1). Steps without a stored plan do not contribute. With
    it the encoder keeps what the labels depend on, as behaviour cloning through the encoder does in MoDem
    (arXiv 2212.05698). The logarithm is a Student t's: a teacher's desperate moves before a fall would
    otherwise be most of the loss. Raises ValueError when the batch has no plan fields.
    """
    if batch.plan_mean is None or batch.has_plan is None:
        raise ValueError("imitation_coef needs plan_mean and has_plan in the batch")
    held = batch.has_plan[: zs.shape[0]]
    wanted = torch.where(held > 0, batch.plan_mean[: zs.shape[0]], 0.0)
    square = (model.policy(zs, batch.task).mean - wanted).square().mean(-1, keepdim=True)
    error = tolerance**2 * torch.log1p(square / tolerance**2)
    return masked_mean(error, weight * held)


def termination_metrics(logits: Tensor, terminated: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """Share of terminal steps and F1 score of the prediction (threshold 0.5); all inputs (H, B, 1).

    Both are taken at the last step of the rollout, the hardest one to predict, as the official code does.
    """
    predicted, actual = (logits[-1] > 0).to(valid.dtype) * valid[-1], terminated[-1] * valid[-1]
    hits = (predicted * actual).sum()
    return {
        "termination_rate": actual.mean(),
        "termination_f1": 2.0 * hits / (predicted.sum() + actual.sum()).clamp(min=1.0),
    }
