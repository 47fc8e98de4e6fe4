"""Imagined returns with a gradient for the actions, on the weights of `fused.py`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2_core.model.functional import mish, simnorm
from tdmpc2_core.planning.fused import FusedRollout, Head, _first, _normed, _rows
from tdmpc2_core.planning.rollout import discounted_return

_SMALL = 8192  # elements up to which the library's activations, one kernel each way, are the faster ones


class GradientRollout(FusedRollout):
    """`Rollout` whose returns can be differentiated by the actions wherever gradients are enabled.

    The packed weights are constants of the backward pass, so only the actions' gradient is computed. Without
    gradients everything is as in `FusedRollout`. Latents and weights that `encode` prepares inside inference
    mode can take part in a later backward pass.
    """

    def encode(self, obs: Tensor, task: Tensor | None = None) -> Tensor:
        """See `Rollout.encode`."""
        with torch.inference_mode(False), torch.no_grad():
            return super().encode(obs, task)

    def returns(
        self,
        latent: Tensor,
        actions: Tensor,
        noise: Tensor,
        heads: tuple[int, ...],
        task: Tensor | None = None,
    ) -> Tensor:
        """See `Rollout.returns`; differentiable by `actions` where gradients are enabled."""
        if not torch.is_grad_enabled():
            return super().returns(latent, actions, noise, heads, task)
        w = self.weights
        horizon, robots, count, size = actions.shape
        rows = robots * count
        with torch.no_grad():
            embedding, mask = self._task(task, latent)
            context = _rows(embedding, count)
            latents = [latent.repeat_interleave(count, 0)]  # before step 0, then after each step
        steps = actions.reshape(horizon, rows, size)
        for step in steps:
            hidden = torch.addmm(_first(w.dynamics, latents[-1], context), step, w.dynamics.action)
            latents.append(self._next(hidden))

        before, z = torch.cat(latents[:-1]), latents[-1]
        repeated = None if context is None else context.repeat(horizon, 1)
        hidden = torch.addmm(_first(w.reward, before, repeated), steps.flatten(0, 1), w.reward.action)
        rewards = self._decode(self._tail(w.reward, hidden)).view(horizon, robots, count)

        output = self._tail(w.policy, _first(w.policy, z, context))
        terminal = self._act(output.view(robots, count, -1), noise, mask).view(rows, size)
        value = torch.stack([self._value(w.value[head], z, terminal, context) for head in heads]).mean(0)
        ended = None
        if w.termination is not None:
            logits = self._tail(w.termination, _first(w.termination, torch.cat(latents[1:]), None))
            ended = logits.sigmoid().view(horizon, robots, count)
        return discounted_return(
            rewards, value.view(robots, count), ended, self.discount, self.soft_termination
        )

    def _next(self, hidden: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super()._next(hidden)
        x = self._tail(self.weights.dynamics, hidden)
        if x.numel() > _SMALL:
            return simnorm(x, self._group)
        return x.unflatten(-1, (-1, self._group)).softmax(-1).flatten(-2)

    def _tail(self, head: Head, hidden: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super()._tail(head, hidden)
        first, *others = head.layers
        x = _normed(hidden, first)
        for layer in others:
            x = torch.addmm(layer.bias, F.mish(x) if x.numel() <= _SMALL else mish(x), layer.weight)
            x = x if layer.gain is None else _normed(x, layer)
        return x
