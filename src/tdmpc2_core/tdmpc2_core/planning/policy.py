"""`PolicyPlanner`: the policy prior alone behind the planner protocol, rolled out by the model, no search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tdmpc2_core.imagine.compiled import compiled_model
from tdmpc2_core.imagine.rollout import Discount
from tdmpc2_core.planning.protocol import PlanBatch, Planner, PlanRequest, ahead

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel
    from tdmpc2_core.planning.planners import PlannerConfig


class PolicyPlanner(Planner):
    """Acts with the policy prior: a sample in training, the mode tanh(mean) in evaluation.

    Rows after the first follow the policy's mode through the latent dynamics; `std` is the policy's spread
    carried through tanh to first order; `value` averages all value heads at the mode.
    """

    summary = "acts with the policy prior alone, in the least time"

    def __init__(
        self, model: WorldModel, config: PlannerConfig, discount: Discount, generator: torch.Generator
    ) -> None:
        super().__init__(model, config, discount, generator)
        self._compiled = compiled_model(model, config.kernels)

    @classmethod
    def budget(cls, config: PlannerConfig) -> str:
        """See `Planner.budget`."""
        return "policy prior"

    @classmethod
    def cheaper(cls, config: PlannerConfig) -> PlannerConfig | None:
        """Nothing is cheaper."""
        return None

    def _plan(self, request: PlanRequest) -> PlanBatch:
        """One pass, so that the deadline is ignored."""
        obs, task, compiled = request.obs, request.task, self._compiled
        model = self.model if compiled is None or not compiled.refresh() else compiled
        z = ahead(model, model.encode(obs, task), request)
        shape = (len(obs), self.model.config.action_dim)
        noise = torch.randn(shape, generator=self.generator, device=z.device, dtype=z.dtype)
        means, stds = [], []
        for t in range(self.config.horizon):
            sample = model.policy(z, task, noise=noise)
            means.append(sample.mean)
            stds.append((1.0 - sample.mean.square()) * sample.log_std.exp())
            if t == 0:
                action = sample.mean if request.evaluate else sample.action
                value = model.q_values(z, sample.mean, task).mean(0).squeeze(-1)
            if t + 1 < self.config.horizon:
                z = model.next(z, sample.mean, task)
        mean, std = torch.stack(means, dim=1), torch.stack(stds, dim=1)
        return PlanBatch(action, mean, std, value, iterations=0, ended_by="policy")
