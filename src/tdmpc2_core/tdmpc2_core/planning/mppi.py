"""Model predictive path integral planning in latent space (TD-MPC2, section 3), for B robots at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tdmpc2_core.imagine.compiled import CompiledRollout
from tdmpc2_core.imagine.rollout import Discount, ModelRollout, Rollout
from tdmpc2_core.model.encoder import draw_shifts
from tdmpc2_core.model.kernels import kernels
from tdmpc2_core.planning.clock import IterationClock
from tdmpc2_core.planning.protocol import PlanBatch, PlanDraws, Planner, PlanRequest, ahead

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel
    from tdmpc2_core.planning.planners import PlannerConfig

_FEWEST_SAMPLES = 32


class Search(NamedTuple):
    """Where a search for B robots ended: K elites, N candidates, H steps.

    Attributes:
        latent: (B, L) present latents.
        elites: (H, B, K, A) best candidates of the last iteration, best first; None without an iteration.
        weight: (B, K) their weights; None without an iteration.
        mean, std: (H, B, A) the last Gaussian.
        value: (B,) its predicted return, NaN without an iteration.
        ended_by: converged | budget | deadline.
        trace: values (B, N) of every iteration's candidates.
    """

    latent: Tensor
    elites: Tensor | None
    weight: Tensor | None
    mean: Tensor
    std: Tensor
    value: Tensor
    ended_by: str
    trace: tuple[Tensor, ...]


class MPPI(Planner):
    """Sampling planner, warm-started per robot with the previous mean plan. Arguments as for `Planner`.

    Value heads are drawn on the host from a second generator with the same seed, so that no call waits for
    the device.
    """

    summary = "searches by sampling around the previous plan and the policy prior"

    def __init__(
        self, model: WorldModel, config: PlannerConfig, discount: Discount, generator: torch.Generator
    ) -> None:
        super().__init__(model, config, discount, generator)
        compiled = kernels(config.kernels)
        end = config.soft_termination, config.trust_region.disagreement_cost
        self._model_rollout = (
            ModelRollout(model, discount, *end)
            if compiled is None
            else CompiledRollout(model, discount, *end, compiled)
        )
        self.rollout: Rollout = self._model_rollout
        self._host_generator = torch.Generator().manual_seed(generator.initial_seed())
        self._mean: Tensor | None = None  # (H, B, A), the previous plan
        self._clock = IterationClock()

    @classmethod
    def budget(cls, config: PlannerConfig) -> str:
        """See `Planner.budget`."""
        return f"mppi {config.num_samples} samples x {config.iterations}"

    @classmethod
    def cheaper(cls, config: PlannerConfig) -> PlannerConfig | None:
        """A quarter fewer samples down to 32, then an iteration less."""
        samples = max(config.num_samples * 3 // 4 // 4 * 4, _FEWEST_SAMPLES)
        if samples < config.num_samples:
            share = samples / config.num_samples
            elites, prior = max(1, round(share * config.num_elites)), round(share * config.num_pi_trajs)
            kept = max(prior, min(config.num_pi_trajs, 2))
            return replace(config, num_samples=samples, num_elites=elites, num_pi_trajs=kept)
        return replace(config, iterations=config.iterations - 1) if config.iterations > 1 else None

    def set_costs(self, costs: Callable[[Tensor, Tensor], Tensor] | None) -> None:
        """See `Planner.set_costs`."""
        self._model_rollout.costs = costs

    def reset(self) -> None:
        """Forget the previous plans of all robots."""
        self._mean = None

    def _plan(self, request: PlanRequest) -> PlanBatch:
        """A deadline that leaves no time for an iteration gives the mean of the policy trajectories
        (iterations 0, value NaN).
        """
        found = self._search(request)
        mean, std = found.mean, found.std
        action = self._choose(mean, std, found.elites, found.weight, request)
        self._mean = mean
        batch_first = (mean.transpose(0, 1), std.transpose(0, 1))
        return PlanBatch(action, *batch_first, found.value, len(found.trace), found.ended_by, found.trace)

    def _search(self, request: PlanRequest) -> Search:
        cfg, obs, task, draws = self.config, request.obs, request.task, request.draws
        self._clock.start(request.deadline, len(obs))
        latent = ahead(self.model, self.rollout.encode(obs, task, self._shifts(obs, draws)), request)
        prior = self._prior(latent, task, draws)
        mode = prior[:, :, 0] if cfg.trust_region.needs_mode else None
        mean, std = self._initial(latent, request.first, prior)
        mask = self._action_mask(task)
        heads = self._heads(0, draws)
        trace: list[Tensor] = []
        value = latent.new_full((len(latent),), torch.nan)
        elites = weight = prior_values = None
        ended_by = "budget"

        for i in range(cfg.iterations):
            if not self._clock.fits(mean):
                ended_by = "deadline"
                break
            samples = self._sample(mean, std, mask, i, draws)
            noise = self._terminal_noise(samples, i, draws)
            if not cfg.reuse_prior_values:
                heads = self._heads(i, draws)
            values, prior_values = self._values(latent, prior, samples, noise, heads, prior_values, task)
            trace.append(values)
            previous, candidates = mean, torch.cat([prior, samples], dim=2)
            elites, weight, mean, std, value = self._refit(candidates, values, mask)
            if cfg.tolerance > 0 and float((mean[0] - previous[0]).abs().max()) < cfg.tolerance:
                ended_by = "converged"
                break

        if mode is not None and elites is not None and cfg.trust_region.gate > 0.0:
            mean, value = self._gated(latent, mode, mean, value, heads, task)
        self._clock.end(mean)
        if elites is None and cfg.num_pi_trajs > 0:
            mean, std = prior.mean(2), prior.std(2, correction=0).clamp(cfg.min_std, cfg.max_std)
        return Search(latent, elites, weight, mean, std, value, ended_by, tuple(trace))

    def _shifts(self, obs: Tensor, draws: PlanDraws | None) -> Tensor | None:
        """Image shifts (B, 2) when the settings ask for them, as the official code does; else None."""
        if not self.config.augment_pixels or self.model.config.obs_kind != "pixels":
            return None
        return draw_shifts(obs.shape[:1], self.generator, obs.device) if draws is None else draws.shifts

    def _prior(self, latent: Tensor, task: Tensor | None, draws: PlanDraws | None) -> Tensor:
        """Policy trajectories (H, B, P, A)."""
        cfg = self.config
        shape = (cfg.horizon, len(latent), cfg.num_pi_trajs, self.model.config.action_dim)
        if cfg.num_pi_trajs == 0:
            return latent.new_empty(shape)
        noise = self._normal(latent, shape) if draws is None else draws.prior
        if cfg.trust_region.needs_mode:
            noise = noise.clone()
            noise[:, :, 0] = 0.0  # the first trajectory is the mode
        return self.rollout.prior(latent, noise, task)

    def _initial(self, latent: Tensor, first: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """First Gaussian, mean and std (H, B, A): previous mean shifted one step, widest spread."""
        cfg, robots = self.config, len(latent)
        mean = latent.new_zeros(cfg.horizon, robots, self.model.config.action_dim)
        if self._mean is not None and self._mean.shape == mean.shape:
            mean[:-1] = self._mean[1:]
            mean.masked_fill_(first.view(1, robots, 1), 0.0)
        std = torch.full_like(mean, cfg.max_std)
        if cfg.prior_weight > 0:
            mean = torch.lerp(mean, prior.mean(2), cfg.prior_weight)
            std = torch.lerp(std, prior.std(2), cfg.prior_weight).clamp_(cfg.min_std, cfg.max_std)
        return mean, std

    def _sample(
        self, mean: Tensor, std: Tensor, mask: Tensor | None, i: int, draws: PlanDraws | None
    ) -> Tensor:
        """Candidates (H, B, N-P, A) of iteration `i`."""
        horizon, robots, size = mean.shape
        shape = (horizon, robots, self.config.num_samples - self.config.num_pi_trajs, size)
        noise = self._normal(mean, shape) if draws is None else draws.samples[i]
        if (kept := self.config.noise_correlation) > 0.0:
            noise = noise.clone()
            for t in range(1, horizon):
                noise[t].mul_((1.0 - kept**2) ** 0.5).add_(noise[t - 1], alpha=kept)
        samples = torch.addcmul(mean.unsqueeze(2), std.unsqueeze(2), noise).clamp_(-1.0, 1.0)
        return samples if mask is None else samples * mask.unsqueeze(1)

    def _terminal_noise(self, samples: Tensor, i: int, draws: PlanDraws | None) -> Tensor:
        """Policy noise (B, N, A) of the terminal action in iteration `i`."""
        shape = (samples.shape[1], self.config.num_samples, samples.shape[3])
        if self.config.trust_region.valued_mode:
            return samples.new_zeros(shape)
        return self._normal(samples, shape) if draws is None else draws.terminal[i]

    def _values(
        self,
        latent: Tensor,
        prior: Tensor,
        samples: Tensor,
        noise: Tensor,
        heads: Sequence[int],
        prior_values: Tensor | None,
        task: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Values (B, N) of all candidates, and (B, P) of the policy trajectories; NaN counts as 0."""
        count = prior.shape[2]
        if prior_values is not None and self.config.reuse_prior_values:
            fresh = self.score(latent, samples, noise[:, count:], heads, task, prior)
            return torch.cat([prior_values, fresh.nan_to_num_(nan=0.0)], dim=1), prior_values
        values = self.score(latent, torch.cat([prior, samples], dim=2), noise, heads, task, prior)
        values.nan_to_num_(nan=0.0)
        return values, values[:, :count]

    def score(
        self,
        latent: Tensor,
        actions: Tensor,
        noise: Tensor,
        heads: Sequence[int],
        task: Tensor | None,
        prior: Tensor,
    ) -> Tensor:
        """What candidates (H, B, N, A) are chosen by (B, N): predicted returns less the trust region's costs.

        Arguments as of `Rollout.returns`, and the policy trajectories (H, B, P, A), the mode first.
        """
        values = self.rollout.returns(latent, actions, noise, heads, task)
        trust = self.config.trust_region
        return values if trust.distance_cost == 0.0 else values - trust.distance(actions, prior[:, :, 0])

    def _gated(
        self,
        latent: Tensor,
        mode: Tensor,
        mean: Tensor,
        value: Tensor,
        heads: Sequence[int],
        task: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The plan (H, B, A) and its value (B,), or those of the mode where it promises too little more."""
        both = torch.stack([mode, mean], 2)
        noise = both.new_zeros(both.shape[1:])
        before, after = self.rollout.returns(latent, both, noise, heads, task).unbind(1)
        better = after - before > self.config.trust_region.gate
        return torch.where(better[:, None], mean, mode), torch.where(better, value, before)

    def _refit(
        self, candidates: Tensor, values: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Elites (H, B, K, A), their weights (B, K), new mean and std (H, B, A), the plan's value (B,)."""
        cfg = self.config
        best, order = values.topk(cfg.num_elites, dim=1)
        robots = torch.arange(len(values), device=values.device).unsqueeze(1)
        elites = candidates[:, robots, order]
        weight = torch.softmax(cfg.temperature * best, dim=1)
        score = weight.view(1, *weight.shape, 1)
        mean = (score * elites).sum(2)
        std = (score * (elites - mean.unsqueeze(2)).square_()).sum(2).sqrt_().clamp_(cfg.min_std, cfg.max_std)
        if mask is not None:
            mean, std = mean * mask, std * mask
        return elites, weight, mean, std, (weight * best).sum(1)

    def _choose(
        self,
        mean: Tensor,
        std: Tensor,
        elites: Tensor | None,
        weight: Tensor | None,
        request: PlanRequest,
    ) -> Tensor:
        """Action (B, A): an elite drawn by weight, or the mean; plus exploration noise in training."""
        action, evaluate, draws = mean[0], request.evaluate, request.draws
        if elites is not None and weight is not None and not (evaluate and self.config.evaluation == "mean"):
            if draws is not None and draws.elite is not None:
                exponential = draws.elite
            else:
                exponential = torch.empty_like(weight).exponential_(generator=self.generator)
            chosen = (weight.log() - exponential.log()).argmax(1)  # Gumbel-max draw
            action = elites[0].take_along_dim(chosen.view(-1, 1, 1), dim=1).squeeze(1)
        if not evaluate:
            recorded = None if draws is None else draws.final
            action = action + std[0] * (self._normal(mean, action.shape) if recorded is None else recorded)
        return action.clamp(-1.0, 1.0)

    def _normal(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=like.device, dtype=like.dtype)

    def _heads(self, i: int, draws: PlanDraws | None) -> tuple[int, ...]:
        """Two distinct value heads (all, where there are fewer)."""
        if draws is not None:
            return tuple(draws.heads[i].tolist())
        count = self.model.config.num_q
        if count <= 2:
            return tuple(range(count))
        return tuple(torch.randperm(count, generator=self._host_generator)[:2].tolist())

    def _action_mask(self, task: Tensor | None) -> Tensor | None:
        """(B, A) ones for real actions, or None with a single task."""
        return None if task is None else self.model.action_mask(task)
