"""The MPPI planner in two functions without state or random numbers, which a compiler can take as they are.

`Start` runs once per plan (encoder, policy trajectories, first Gaussian), `Iterate` once per iteration
(candidates, their returns, next Gaussian). Between the two a caller can stop at any deadline.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tdmpc2_core.errors import UserError
from tdmpc2_core.model.world_model import WorldModel
from tdmpc2_core.planning.config import PlannerConfig
from tdmpc2_core.planning.mppi import MPPI
from tdmpc2_core.planning.protocol import PlanDraws
from tdmpc2_core.planning.rollout import Discount


class _Part(nn.Module):
    """Holds the model and an MPPI planner whose functions are traced."""

    def __init__(self, model: WorldModel, config: PlannerConfig, discount: Discount) -> None:
        super().__init__()
        self.model = model
        self.planner = MPPI(model, config, discount, torch.Generator(), fused=False)

    @property
    def _reuse(self) -> bool:
        return self.planner.config.reuse_prior_values


class Start(_Part):
    """One call per plan. B robots, H steps, P policy trajectories, A actions."""

    def forward(
        self,
        obs: Tensor,
        first: Tensor,
        previous: Tensor,
        noise: Tensor,
        terminal: Tensor,
        heads: Tensor,
        task: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Latents (B, L), policy trajectories (H, B, P, A), mean and std (H, B, A), their values (B, P).

        obs (B, O); first (B,) bool, True where an episode starts; previous (H, B, A) mean of the last plan.
        noise (H, B, P, A), terminal (B, P, A): standard normal, for the trajectories and the action after
        them. heads (2,) int64: value heads. task (B,) int64 of a multi-task model. The values are zero
        unless the settings reuse them.
        """
        planner = self.planner
        latent = planner.rollout.encode(obs, task, None)
        prior = planner.rollout.prior(latent, noise, task)
        planner._mean = previous
        mean, std = planner._initial(latent, first, prior)
        planner._mean = None
        values = prior.new_zeros(prior.shape[1:3])
        if self._reuse:
            values = planner.rollout.returns(latent, prior, terminal, heads, task).nan_to_num(nan=0.0)
        return latent, prior, mean, std, values


class Iterate(_Part):
    """One call per iteration. N candidates, of which P are the policy's; K elites."""

    def forward(
        self,
        latent: Tensor,
        prior: Tensor,
        prior_values: Tensor,
        mean: Tensor,
        std: Tensor,
        noise: Tensor,
        terminal: Tensor,
        heads: Tensor,
        task: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Next mean and std (H, B, A), the plan's value (B,), all values (B, N), the elites' first actions
        (B, K, A) and weights (B, K).

        noise (H, B, N - P, A), terminal (B, N, A): standard normal. Others as `Start` gives and takes them.
        """
        planner = self.planner
        mask = planner._action_mask(task)
        draws = PlanDraws(noise, noise.unsqueeze(0), terminal, heads)
        samples = planner._sample(mean, std, mask, 0, draws)
        known = prior_values if self._reuse else None
        values, _ = planner._values(latent, prior, samples, terminal, heads, known, task)
        candidates = torch.cat([prior, samples], dim=2)
        elites, weight, mean, std, value = planner._refit(candidates, values, mask)
        return mean, std, value, values, elites[0], weight


def example_inputs(
    model: WorldModel, config: PlannerConfig, robots: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs of `Start` and `Iterate` on the model's device, with the right shapes and types."""
    c, device = model.config, next(model.parameters()).device
    horizon, count, own = config.horizon, config.num_samples, config.num_pi_trajs
    size = c.action_dim

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(*shape, device=device)

    obs = (robots, c.obs_dim) if c.obs_kind == "state" else (robots, c.obs_dim, 64, 64)
    heads = torch.arange(2, device=device) % c.num_q
    task = (torch.zeros(robots, dtype=torch.long, device=device),) if c.num_tasks else ()
    gaussian = (zeros(horizon, robots, size), zeros(horizon, robots, size) + config.max_std)
    first = torch.zeros(robots, dtype=torch.bool, device=device)
    trajectories = zeros(horizon, robots, own, size)
    start = (zeros(*obs), first, gaussian[0], trajectories, zeros(robots, own, size), heads, *task)
    latent = zeros(robots, c.latent_dim) + 1.0 / c.simnorm_dim
    noise, terminal = zeros(horizon, robots, count - own, size), zeros(robots, count, size)
    iterate = (latent, trajectories, zeros(robots, own), *gaussian, noise, terminal, heads, *task)
    return start, iterate


def check_exportable(config: PlannerConfig) -> None:
    """Raises UserError when the settings need something that the two parts do not have."""
    if config.method != "mppi":
        raise UserError(f"export: the compiled planner is mppi, the bundle plans with {config.method!r}")
    if config.num_pi_trajs < 1:
        raise UserError("export: the compiled planner needs num_pi_trajs of at least 1, got 0")
    if config.augment_pixels:
        raise UserError("export: augment_pixels must be false for a compiled planner")
