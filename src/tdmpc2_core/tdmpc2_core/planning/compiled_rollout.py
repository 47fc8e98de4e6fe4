"""Imagined rollouts whose networks are compiled calls; equals `FusedRollout` to rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tdmpc2_core.model.kernels import Kernels
from tdmpc2_core.planning.compiled import CompiledModel
from tdmpc2_core.planning.fused import FusedRollout
from tdmpc2_core.planning.rollout import Discount, discounted_return

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel


class CompiledRollout(FusedRollout):
    """For plans on one thread of a CPU. Leaves to `FusedRollout` what `CompiledModel` does not take: several
    tasks, pixels, large models, weights that change with every plan, several threads.
    """

    def __init__(
        self, model: WorldModel, discount: Discount, soft_termination: bool, kernels: Kernels
    ) -> None:
        super().__init__(model, discount, soft_termination, kernels)
        self._networks = CompiledModel(model, self.weights, kernels)
        self._ready = False

    def encode(self, obs: Tensor, task: Tensor | None = None, shifts: Tensor | None = None) -> Tensor:
        """See `Rollout.encode`; decides whether this plan is compiled."""
        self._ready = self._networks.refresh()
        return self._networks.encode(obs) if self._ready else super().encode(obs, task, shifts)

    @torch.no_grad()
    def prior(self, latent: Tensor, noise: Tensor, task: Tensor | None = None) -> Tensor:
        """See `Rollout.prior`."""
        if not self._ready:
            return super().prior(latent, noise, task)
        net, (horizon, robots, count, size) = self._networks, noise.shape
        flat = noise.reshape(horizon, robots * count, size)
        actions = torch.empty_like(flat)
        z, repeat = latent, count
        for t in range(horizon):
            actions[t] = net.act(z, flat[t], repeat)
            if t + 1 < horizon:
                z, repeat = net.dynamics(z, actions[t], repeat), 1
        return actions.view(noise.shape)

    @torch.no_grad()
    def returns(
        self,
        latent: Tensor,
        actions: Tensor,
        noise: Tensor,
        heads: tuple[int, ...] | Tensor,
        task: Tensor | None = None,
    ) -> Tensor:
        """See `Rollout.returns`."""
        if not self._ready or isinstance(heads, Tensor):
            return super().returns(latent, actions, noise, heads, task)
        net, (horizon, robots, count, size) = self._networks, actions.shape
        rows = robots * count
        flat = actions.reshape(horizon, rows, size)
        z = self._space.take("z", latent, horizon, rows, latent.shape[-1])  # latents after steps 0..H-1
        net.dynamics(latent, flat[0], count, z[0])
        for t in range(1, horizon):
            net.dynamics(z[t - 1], flat[t], 1, z[t])
        rewards = latent.new_empty(horizon, rows)
        net.reward_head.value(net.bins, latent, flat[0], count, rewards[0])
        if horizon > 1:
            before, later = z[:-1].view(-1, z.shape[-1]), flat[1:].reshape(-1, size)
            net.reward_head.value(net.bins, before, later, 1, rewards[1:].view(-1))
        value = net.values(z[-1], net.act(z[-1], noise.reshape(rows, size)), heads)
        ended = None
        if net.termination_head is not None:
            logits = net.termination_head(z.view(horizon * rows, -1))
            ended = logits.sigmoid_().view(horizon, robots, count)
        rewards, value = rewards.view(horizon, robots, count), value.view(robots, count)
        assert isinstance(self.discount, float)
        return discounted_return(rewards, value, ended, self.discount, self.soft_termination)
