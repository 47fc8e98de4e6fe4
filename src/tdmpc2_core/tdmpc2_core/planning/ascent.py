"""`ascend`: action sequences improved by Adam on their predicted return, as long as time allows."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tdmpc2_core.planning.gradient_config import GradientConfig
from tdmpc2_core.planning.rollout import Rollout

_BETA_MEAN, _BETA_SQUARE = (
    0.9,
    0.99,
)  # Adam's decays per iteration; the second is short, as few iterations are
_EPS = 1e-8  # return per normalised action, added to the root of Adam's second moment


class Clock(Protocol):
    """Tells when to stop."""

    def out_of_time(self, pending: Tensor) -> bool:
        """True when no further iteration should start; waits for the device that computes `pending`."""
        ...


class Ascent(NamedTuple):
    """Result of `ascend` for B robots with N candidates of H steps.

    Attributes:
        actions: (H, B, N, A) best sequence met from each start, in [-1, 1].
        values: (B, N) their predicted returns, reward units; -inf where none was finite or time was over.
        iterations: improvements whose return was evaluated.
        ended_by: converged | budget | deadline.
        trace: values (B, N) of the starts and after each improvement.
    """

    actions: Tensor
    values: Tensor
    iterations: int
    ended_by: str
    trace: tuple[Tensor, ...]


def ascend(
    rollout: Rollout,
    latent: Tensor,
    starts: Tensor,
    heads: tuple[int, ...],
    task: Tensor | None,
    mask: Tensor | None,
    settings: GradientConfig,
    tolerance: float,
    clock: Clock,
) -> Ascent:
    """Gradient ascent on `rollout.returns` from `starts` (H, B, N, A), all candidates side by side.

    One iteration is a rollout, its gradient and an Adam step (Kingma and Ba, 2015) that is clamped to
    [-1, 1]; the step length falls linearly, and the last iteration only evaluates. The terminal action is
    the policy's mode, so that iterations are comparable. Call it outside inference mode.

    Args:
        rollout: differentiable by the actions, as `GradientRollout` and `ModelRollout` are.
        latent: (B, L) present latents; no inference tensor.
        heads: value heads whose mean is the terminal value.
        task: (B,) task indices, or None.
        mask: (B, A) ones for real actions, or None; the starts respect it.
        settings: iterations and step length.
        tolerance: ends the ascent when no first action moves further (normalised action); 0 never does.
        clock: asked before every iteration.
    """
    actions = starts.clone().requires_grad_()
    best = starts.clone()
    best_values = torch.full(starts.shape[1:3], -torch.inf, device=starts.device, dtype=starts.dtype)
    noise = torch.zeros_like(starts[0])
    moment, square, scratch = (torch.zeros_like(starts) for _ in range(3))
    real = None if mask is None else mask.unsqueeze(1)
    trace: list[Tensor] = []
    ended_by = "budget"
    for i in range(settings.iterations + 1):
        if clock.out_of_time(best_values):
            ended_by = "deadline"
            break
        last = i == settings.iterations
        with torch.set_grad_enabled(not last):
            values = rollout.returns(latent, actions, noise, heads, task)
        found = values.detach()
        found = torch.where(found.isfinite(), found, -torch.inf)
        trace.append(found)
        better = (found > best_values).unsqueeze(-1)
        torch.where(better, actions.detach(), best, out=best)
        torch.maximum(best_values, found, out=best_values)
        if last:
            break
        (gradient,) = torch.autograd.grad(values.sum(), actions)
        gradient.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        if real is not None:
            gradient.mul_(real)
        moment.lerp_(gradient, 1.0 - _BETA_MEAN)
        square.mul_(_BETA_SQUARE).addcmul_(gradient, gradient, value=1.0 - _BETA_SQUARE)
        torch.div(square, 1.0 - _BETA_SQUARE ** (i + 1), out=scratch).sqrt_().add_(_EPS)
        length = settings.step * (1.0 - i / settings.iterations) / (1.0 - _BETA_MEAN ** (i + 1))
        with torch.no_grad():
            previous = actions[0].clone() if tolerance > 0 else None
            actions.addcdiv_(moment, scratch, value=length).clamp_(-1.0, 1.0)
            if previous is not None and float((actions[0] - previous).abs().max()) < tolerance:
                ended_by = "converged"
                break
    return Ascent(best, best_values, max(len(trace) - 1, 0), ended_by, tuple(trace))
