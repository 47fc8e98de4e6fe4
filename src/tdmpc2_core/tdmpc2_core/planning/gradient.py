"""Planners that improve action sequences by gradient ascent through the latent model.

The efficiency argument for planning in a learned latent space: where a differentiable model gives the
gradient of the return, a handful of candidates replaces the hundreds that a sampling search compares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from tdmpc2_core.config import check_fields, setting
from tdmpc2_core.imagine.gradient import GradientRollout
from tdmpc2_core.imagine.rollout import Discount
from tdmpc2_core.planning.clock import IterationClock
from tdmpc2_core.planning.mppi import MPPI
from tdmpc2_core.planning.protocol import PlanBatch, Planner, PlanRequest, ahead

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel
    from tdmpc2_core.planning.planners import PlannerConfig


@dataclass(frozen=True)
class GradientConfig:
    """Gradient ascent on the predicted return; the planned length is `PlannerConfig.horizon`.

    Raises:
        ValueError: a value outside its range; the sentence names the field.
    """

    seeds: int = setting(
        1,
        unit="candidates",
        low=1,
        high=1024,
        why="policy-prior sequences that `gradient` starts from, its mode first",
    )
    elites: int = setting(
        4, unit="candidates", low=1, high=1024, why="best samples that `mppi+gradient` refines"
    )
    iterations: int = setting(
        3, unit="iterations", low=1, high=1000, why="steps; each costs a rollout and its reverse pass"
    )
    step: float = setting(
        0.05,
        unit="normalised action",
        above=0.0,
        high=1.0,
        why="largest change per entry in the first step, falling linearly; limits trust in the model",
    )

    anchor: float = setting(
        10.0,
        unit="return / action^2",
        low=0.0,
        why="price of the squared distance to the policy's mode, or to the search's mean; limits trust too",
    )

    def __post_init__(self) -> None:
        check_fields(self)


_BETA_MEAN, _BETA_SQUARE = 0.9, 0.99  # Adam's decays; the second is short, as few iterations are
_EPS = 1e-8  # return per normalised action, added to the root of Adam's second moment


class Slope(Protocol):
    """Predicted returns and their gradient, as `imagine.gradient` computes them."""

    def returns(
        self, latent: Tensor, actions: Tensor, noise: Tensor, heads: Sequence[int], task: Tensor | None
    ) -> Tensor:
        """See `Rollout.returns`."""
        ...

    def gradient(
        self, latent: Tensor, actions: Tensor, heads: Sequence[int], task: Tensor | None
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
    heads: Sequence[int],
    task: Tensor | None,
    mask: Tensor | None,
    settings: GradientConfig,
    tolerance: float,
    clock: IterationClock,
) -> Ascent:
    """Gradient ascent on the predicted return from `starts` (H, B, N, A), all candidates side by side.

    The return is reduced by `settings.anchor` times the squared distance to the sequence `anchor`. One
    iteration is a rollout, its reverse pass and an Adam step (Kingma and Ba, 2015) of falling length, clamped
    to [-1, 1]; what the last one reached is evaluated too. The valued action is the policy's mode.

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


_WORST = -1e30  # stands for -inf in the weights, so that they are numbers where no value is


class GradientPlanner(MPPI):
    """`gradient`: ascent from policy trajectories and from the previous plan; the best sequence is the plan.

    Candidates per robot are `config.gradient.seeds` policy trajectories, the first one the policy's mode, and
    the previous plan moved on by one decision. They are compared and improved on the discounted predicted
    rewards plus the mean terminal value of two heads drawn once per call. The plan's spread is the weighted
    deviation of the improved candidates from it, within min_std and max_std.

    Arguments as for `MPPI`. Of `PlanDraws` it reads `prior` (H, B, seeds, A), the first row of `heads`
    and `final`. The trace holds iterations + 1 entries, the first one the values of the starts.
    """

    summary = "ascends the predicted return from policy trajectories and the previous plan"

    def __init__(
        self, model: WorldModel, config: PlannerConfig, discount: Discount, generator: torch.Generator
    ) -> None:
        super().__init__(model, config, discount, generator)
        self._slope = GradientRollout(model, discount, config.soft_termination)
        self._ascent_clock = IterationClock()

    @classmethod
    def budget(cls, config: PlannerConfig) -> str:
        """See `Planner.budget`."""
        ascent = config.gradient
        return f"gradient {ascent.seeds} seeds x {ascent.iterations}, horizon {config.horizon}"

    @classmethod
    def cheaper(cls, config: PlannerConfig) -> PlannerConfig | None:
        """A step less, then half the seeds."""
        ascent = config.gradient
        if ascent.iterations > 1:
            return replace(config, gradient=replace(ascent, iterations=ascent.iterations - 1))
        return (
            replace(config, gradient=replace(ascent, seeds=ascent.seeds // 2)) if ascent.seeds > 1 else None
        )

    def set_costs(self, costs: Callable[[Tensor, Tensor], Tensor] | None) -> None:
        """See `Planner.set_costs`: the ascent has no slope of costs."""
        Planner.set_costs(self, costs)

    def _plan(self, request: PlanRequest) -> PlanBatch:
        """A deadline that leaves no time to evaluate the starts gives the policy's mode (iterations 0, value
        NaN).
        """
        obs, task = request.obs, request.task
        self._ascent_clock.start(request.deadline, len(obs))
        latent = self.rollout.encode(obs, task, self._shifts(obs, request.draws))
        latent = ahead(self.model, latent, request)
        starts = self._starts(latent, request)
        ascent = self._ascend(latent, starts, starts[:, :, 0], request)
        mean, value = _best(ascent)
        weight = torch.softmax(self.config.temperature * ascent.scores.clamp_min(_WORST), dim=1)
        deviation = weight.view(1, *weight.shape, 1) * (ascent.actions - mean.unsqueeze(2)).square()
        std = deviation.sum(2).sqrt_().clamp_(self.config.min_std, self.config.max_std)
        mask = self._action_mask(task)
        std = std if mask is None else std * mask
        return self._result(mean, std, value, request, ascent.iterations, ascent.ended_by, ascent.trace)

    def _starts(self, latent: Tensor, request: PlanRequest) -> Tensor:
        """Sequences (H, B, N, A) to improve: policy trajectories, then the previous plan where there is one.

        Its last row is the mode's; a robot without a previous plan gets the mode a second time.
        """
        seeds, size = self.config.gradient.seeds, self.model.config.action_dim
        if request.draws is None:
            noise = self._normal(latent, (self.config.horizon, len(latent), seeds, size))
            noise[:, :, 0] = 0.0
        else:
            noise = request.draws.prior
        prior = self.rollout.prior(latent, noise, request.task)
        previous, mode = self._mean, prior[:, :, 0]
        if previous is None or previous.shape != mode.shape:
            return prior
        moved = torch.cat([previous[1:], mode[-1:]])
        moved = torch.where(request.first.view(1, -1, 1), mode, moved)
        return torch.cat([prior, moved.unsqueeze(2)], dim=2)

    def _ascend(self, latent: Tensor, starts: Tensor, anchor: Tensor, request: PlanRequest) -> Ascent:
        cfg, task, heads = self.config, request.task, self._heads(0, request.draws)
        ascent = ascend(
            self._slope,
            latent,
            starts,
            anchor,
            heads,
            task,
            self._action_mask(task),
            cfg.gradient,
            cfg.tolerance,
            self._ascent_clock,
        )
        self._ascent_clock.end(ascent.values)
        return ascent

    def _result(
        self,
        mean: Tensor,
        std: Tensor,
        value: Tensor,
        request: PlanRequest,
        iterations: int,
        ended_by: str,
        trace: tuple[Tensor, ...],
    ) -> PlanBatch:
        """Result of mean and std (H, B, A); keeps the mean for the next call, adds exploration to act."""
        self._mean = mean
        action = self._choose(mean, std, None, None, request)
        return PlanBatch(
            action, mean.transpose(0, 1), std.transpose(0, 1), value, iterations, ended_by, trace
        )


class MPPIGradient(GradientPlanner):
    """`mppi+gradient`: a small MPPI search, then ascent from its mean and its best elites.

    The plan is the best improved sequence, its spread that of the search. When the deadline ends the search,
    its plan is the result. The number of iterations and the trace are those of both parts, one after the
    other. Arguments and draws as for `MPPI`; the ascent uses the first row of `heads`.
    """

    summary = "ascends from the mean and the elites of a small search"

    @classmethod
    def budget(cls, config: PlannerConfig) -> str:
        """See `Planner.budget`."""
        ascent = config.gradient
        return f"{MPPI.budget(config)} + gradient {ascent.elites} elites x {ascent.iterations}"

    @classmethod
    def cheaper(cls, config: PlannerConfig) -> PlannerConfig | None:
        """A step less, then a cheaper search."""
        ascent = config.gradient
        if ascent.iterations > 1:
            return replace(config, gradient=replace(ascent, iterations=ascent.iterations - 1))
        return MPPI.cheaper(config)

    def _plan(self, request: PlanRequest) -> PlanBatch:
        """A deadline that leaves no time for an iteration gives the mean of the policy trajectories
        (iterations 0, value NaN).
        """
        found = self._search(request)
        mean, value, ended_by = found.mean, found.value, found.ended_by
        iterations, trace = len(found.trace), found.trace
        if found.elites is not None and ended_by != "deadline":
            elites = found.elites[:, :, : self.config.gradient.elites]
            starts = torch.cat([mean.unsqueeze(2), elites], dim=2)
            self._ascent_clock.start(request.deadline, len(request.obs))
            ascent = self._ascend(found.latent, starts, mean, request)
            if ascent.trace:
                mean, value = _best(ascent)
            iterations, trace = iterations + ascent.iterations, trace + ascent.trace
            ended_by = ascent.ended_by
        return self._result(mean, found.std, value, request, iterations, ended_by, trace)


def _best(ascent: Ascent) -> tuple[Tensor, Tensor]:
    """Best sequence (H, B, A) of every robot and its value (B,), NaN where none was finite."""
    score, chosen = ascent.scores.max(1)
    robots = torch.arange(len(score), device=score.device)
    value = torch.where(score.isfinite(), ascent.values[robots, chosen], torch.nan)
    return ascent.actions[:, robots, chosen], value
