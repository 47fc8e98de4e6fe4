"""Planners that improve action sequences by gradient ascent through the latent model.

The efficiency argument for planning in a learned latent space: where a differentiable model gives the
gradient of the return, a handful of candidates replaces the hundreds that a sampling search compares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tdmpc2_core.planning.ascent import Ascent, ascend
from tdmpc2_core.planning.clock import IterationClock
from tdmpc2_core.planning.config import PlannerConfig
from tdmpc2_core.planning.gradient_rollout import GradientRollout
from tdmpc2_core.planning.mppi import MPPI
from tdmpc2_core.planning.protocol import PlanBatch, PlanDraws
from tdmpc2_core.planning.rollout import Discount

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel

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

    def __init__(
        self, model: WorldModel, config: PlannerConfig, discount: Discount, generator: torch.Generator
    ) -> None:
        super().__init__(model, config, discount, generator)
        averaged = config.score == "depth_average"
        self._slope = GradientRollout(model, discount, config.soft_termination, averaged)
        self._ascent_clock = IterationClock()

    @torch.inference_mode()
    def plan(
        self,
        obs: Tensor,
        first: Tensor,
        evaluate: bool,
        task: Tensor | None = None,
        deadline: float | None = None,
        draws: PlanDraws | None = None,
    ) -> PlanBatch:
        """Plan for obs (B, O); see `Planner.plan`.

        A deadline that leaves no time to evaluate the starts gives the policy's mode (iterations 0, value
        NaN).
        """
        self._ascent_clock.start(deadline, len(obs))
        latent = self.rollout.encode(obs, task, self._shifts(obs, draws))
        starts = self._starts(latent, first, task, draws)
        ascent = self._ascend(latent, starts, starts[:, :, 0], task, draws)
        mean, value = _best(ascent)
        weight = torch.softmax(self.config.temperature * ascent.scores.clamp_min(_WORST), dim=1)
        deviation = weight.view(1, *weight.shape, 1) * (ascent.actions - mean.unsqueeze(2)).square()
        std = deviation.sum(2).sqrt_().clamp_(self.config.min_std, self.config.max_std)
        mask = self._action_mask(task)
        std = std if mask is None else std * mask
        return self._result(
            mean, std, value, evaluate, draws, ascent.iterations, ascent.ended_by, ascent.trace
        )

    def _starts(self, latent: Tensor, first: Tensor, task: Tensor | None, draws: PlanDraws | None) -> Tensor:
        """Sequences (H, B, N, A) to improve: policy trajectories, then the previous plan where there is one.

        Its last row is the mode's; a robot without a previous plan gets the mode a second time.
        """
        shape = (
            self.config.horizon,
            len(latent),
            self.config.gradient.seeds,
            self.model.config.action_dim,
        )
        if draws is None:
            noise = self._normal(latent, shape)
            noise[:, :, 0] = 0.0
        else:
            noise = draws.prior
        prior = self.rollout.prior(latent, noise, task)
        previous, mode = self._mean, prior[:, :, 0]
        if previous is None or previous.shape != mode.shape:
            return prior
        moved = torch.cat([previous[1:], mode[-1:]])
        moved = torch.where(first.view(1, -1, 1), mode, moved)
        return torch.cat([prior, moved.unsqueeze(2)], dim=2)

    def _ascend(
        self,
        latent: Tensor,
        starts: Tensor,
        anchor: Tensor,
        task: Tensor | None,
        draws: PlanDraws | None,
    ) -> Ascent:
        cfg, mask, heads = self.config, self._action_mask(task), self._heads(0, draws)
        ascent = ascend(
            self._slope,
            latent,
            starts,
            anchor,
            heads,
            task,
            mask,
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
        evaluate: bool,
        draws: PlanDraws | None,
        iterations: int,
        ended_by: str,
        trace: tuple[Tensor, ...],
    ) -> PlanBatch:
        """Result of mean and std (H, B, A); keeps the mean for the next call, adds exploration to act."""
        self._mean = mean
        action = self._choose(mean, std, None, None, evaluate, draws)
        return PlanBatch(
            action, mean.transpose(0, 1), std.transpose(0, 1), value, iterations, ended_by, trace
        )


class MPPIGradient(GradientPlanner):
    """`mppi+gradient`: a small MPPI search, then ascent from its mean and its best elites.

    The plan is the best improved sequence, its spread that of the search. When the deadline ends the search,
    its plan is the result. The number of iterations and the trace are those of both parts, one after the
    other. Arguments and draws as for `MPPI`; the ascent uses the first row of `heads`.
    """

    @torch.inference_mode()
    def plan(
        self,
        obs: Tensor,
        first: Tensor,
        evaluate: bool,
        task: Tensor | None = None,
        deadline: float | None = None,
        draws: PlanDraws | None = None,
    ) -> PlanBatch:
        """Plan for obs (B, O); see `Planner.plan`.

        A deadline that leaves no time for an iteration gives the mean of the policy trajectories (iterations
        0, value NaN).
        """
        found = self._search(obs, first, task, deadline, draws)
        mean, value, ended_by = found.mean, found.value, found.ended_by
        iterations, trace = len(found.trace), found.trace
        if found.elites is not None and ended_by != "deadline":
            elites = found.elites[:, :, : self.config.gradient.elites]
            starts = torch.cat([mean.unsqueeze(2), elites], dim=2)
            self._ascent_clock.start(deadline, len(obs))
            ascent = self._ascend(found.latent, starts, mean, task, draws)
            if ascent.trace:
                mean, value = _best(ascent)
            iterations, trace = iterations + ascent.iterations, trace + ascent.trace
            ended_by = ascent.ended_by
        return self._result(mean, found.std, value, evaluate, draws, iterations, ended_by, trace)


def _best(ascent: Ascent) -> tuple[Tensor, Tensor]:
    """Best sequence (H, B, A) of every robot and its value (B,), NaN where none was finite."""
    score, chosen = ascent.scores.max(1)
    robots = torch.arange(len(score), device=score.device)
    value = torch.where(score.isfinite(), ascent.values[robots, chosen], torch.nan)
    return ascent.actions[:, robots, chosen], value
