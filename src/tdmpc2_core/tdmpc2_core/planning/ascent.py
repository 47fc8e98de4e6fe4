"""`ascend`: action sequences improved by Adam on their predicted return, as long as time allows."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tdmpc2_core.planning.clock import IterationClock
from tdmpc2_core.planning.gradient_config import GradientConfig
from tdmpc2_core.planning.rollout import Chosen

_BETA_MEAN, _BETA_SQUARE = 0.9, 0.99  # Adam's decays; the second is short, as few iterations are
_EPS = 1e-8  # return per normalised action, added to the root of Adam's second moment


class Slope(Protocol):
    """Predicted returns and their gradient, as `GradientRollout` computes them."""

    def returns(
        self, latent: Tensor, actions: Tensor, noise: Tensor, heads: Chosen, task: Tensor | None
    ) -> Tensor:
        """See `Rollout.returns`."""
        ...

    def gradient(
        self, latent: Tensor, actions: Tensor, heads: Chosen, task: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """See `GradientRollout.gradient`."""
        ...


class Ascent(NamedTuple):
    """Result of `ascend` for B robots with N candidates of H steps.

    Attributes:
        actions: (H, B, N, A) best sequence met from each start, in [-1, 1].
        scores: (B, N) their predicted returns less the price of their distance to the anchor; -inf where none
            was finite or time was over.
        values: (B, N) their predicted returns, reward units; likewise.
        iterations: improvements whose return was evaluated.
        ended_by: converged | budget | deadline.
        trace: scores (B, N) of the starts and after each improvement.
    """

    actions: Tensor
    scores: Tensor
    values: Tensor
    iterations: int
    ended_by: str
    trace: tuple[Tensor, ...]


def ascend(
    rollout: Slope,
    latent: Tensor,
    starts: Tensor,
    anchor: Tensor,
    heads: Chosen,
    task: Tensor | None,
    mask: Tensor | None,
    settings: GradientConfig,
    tolerance: float,
    clock: IterationClock,
) -> Ascent:
    """Gradient ascent on the predicted return from `starts` (H, B, N, A), all candidates side by side.

    The return is reduced by `settings.anchor` times the squared distance to the sequence `anchor`.
    One iteration is a rollout, its reverse pass and an Adam step (Kingma and Ba, 2015), clamped to [-1, 1];
    the step length falls linearly. What the last step reached is evaluated too. The valued action is the
    policy's mode, so that iterations are comparable.

    Args:
        rollout: returns and their gradient.
        latent: (B, L) present latents.
        anchor: (H, B, A) sequence to stay near.
        heads: value heads whose mean is the terminal value.
        task: (B,) task indices, or None.
        mask: (B, A) ones for real actions, or None; the starts respect it.
        settings: iterations and step length.
        tolerance: ends the ascent when no first action moves further (normalised action); 0 never does.
        clock: a plan has been started on it; asked before every iteration.
    """
    actions, best = starts.clone(), starts.clone()
    best_values = torch.full(starts.shape[1:3], -torch.inf, device=starts.device, dtype=starts.dtype)
    best_scores = best_values.clone()
    moment, square = torch.zeros_like(starts), torch.zeros_like(starts)
    trace: list[Tensor] = []
    ended_by, moving = "budget", True
    for i in range(settings.iterations + 1):
        if not clock.fits(best_scores):
            ended_by = "deadline"
            break
        if i < settings.iterations and moving:
            found, gradient = rollout.gradient(latent, actions, heads, task)
        else:
            found, gradient = rollout.returns(latent, actions, torch.zeros_like(starts[0]), heads, task), None
        away = actions - anchor.unsqueeze(2)
        scores = found - settings.anchor * away.square().sum((0, 3))
        scores = torch.where(scores.isfinite(), scores, -torch.inf)
        trace.append(scores)
        better = scores > best_scores
        best = torch.where(better.unsqueeze(-1), actions, best)
        best_values = torch.where(better, found, best_values)
        best_scores = torch.maximum(best_scores, scores)
        if gradient is None:
            break
        gradient = gradient.sub_(away, alpha=2.0 * settings.anchor)
        previous = actions
        length = settings.step * (1.0 - i / settings.iterations)
        actions = _adam(actions, gradient, moment, square, i, length, mask)
        moving = not tolerance or float((actions[0] - previous[0]).abs().max()) >= tolerance
        ended_by = "budget" if moving else "converged"
    return Ascent(best, best_scores, best_values, max(len(trace) - 1, 0), ended_by, tuple(trace))


def _adam(
    actions: Tensor,
    gradient: Tensor,
    moment: Tensor,
    square: Tensor,
    i: int,
    length: float,
    mask: Tensor | None,
) -> Tensor:
    """Actions after step `i` of the given length; updates both moments in place."""
    gradient = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    if mask is not None:
        gradient = gradient * mask.unsqueeze(1)
    moment.lerp_(gradient, 1.0 - _BETA_MEAN)
    square.mul_(_BETA_SQUARE).addcmul_(gradient, gradient, value=1.0 - _BETA_SQUARE)
    root = (square / (1.0 - _BETA_SQUARE ** (i + 1))).sqrt_().add_(_EPS)
    return torch.addcdiv(actions, moment, root, value=length / (1.0 - _BETA_MEAN ** (i + 1))).clamp_(-1, 1)
