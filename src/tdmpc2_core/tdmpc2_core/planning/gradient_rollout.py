"""Imagined returns with a gradient for the actions, on the weights of `fused.py`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2_core.model.functional import mish, simnorm
from tdmpc2_core.planning.fused import FusedRollout, Head, Layer
from tdmpc2_core.planning.rollout import discounted_return

_LAYER_NORM_EPS = 1e-5
_SMALL = 8192  # elements below which the library's activations, one call each way, are the faster ones


class GradientRollout(FusedRollout):
    """`Rollout` whose returns can be differentiated by the actions wherever gradients are enabled.

    The packed weights are constants of the backward pass, so only the actions' gradient is computed. Without
    gradients the returns are those of `FusedRollout`. Call the methods outside inference mode, or `encode`
    inside it: what `encode` keeps and returns can take part in a backward pass either way.
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
            context = None if embedding is None else embedding.repeat_interleave(count, 0)
            z = latent.repeat_interleave(count, 0)
        steps = actions.reshape(horizon, rows, size)
        latents = [z]
        for t in range(horizon):
            hidden = _first(w.dynamics, z, context) + steps[t] @ w.dynamics.action
            z = self._smooth_simnorm(_smooth_tail(w.dynamics, hidden))
            latents.append(z)

        before = torch.cat(latents[:-1])
        repeated = None if context is None else context.repeat(horizon, 1)
        hidden = torch.addmm(
            _first(w.reward, before, repeated), steps.reshape(horizon * rows, size), w.reward.action
        )
        rewards = self._decode(_smooth_tail(w.reward, hidden)).view(horizon, robots, count)

        output = _smooth_tail(w.policy, _first(w.policy, z, context))
        terminal = self._act(output.view(robots, count, -1), noise, mask).view(rows, size)
        values = [self._smooth_value(w.value[head], z, terminal, context) for head in heads]
        value = torch.stack(values).mean(0).view(robots, count)
        ended = None
        if w.termination is not None:
            after = torch.cat(latents[1:])
            logits = _smooth_tail(w.termination, _first(w.termination, after, None))
            ended = logits.sigmoid().view(horizon, robots, count)
        return discounted_return(rewards, value, ended, self.discount, self.soft_termination)

    def _smooth_value(self, head: Head, z: Tensor, action: Tensor, context: Tensor | None) -> Tensor:
        hidden = torch.addmm(_first(head, z, context), action, head.action)
        return self._decode(_smooth_tail(head, hidden))

    def _smooth_simnorm(self, x: Tensor) -> Tensor:
        if x.numel() > _SMALL:
            return simnorm(x, self._group)
        return x.unflatten(-1, (-1, self._group)).softmax(-1).flatten(-2)


def _first(head: Head, z: Tensor, context: Tensor | None) -> Tensor:
    """First layer's latent and task part, bias included, (R, M)."""
    pre = torch.addmm(head.layers[0].bias, z, head.latent)
    return pre if context is None else torch.addmm(pre, context, head.task)


def _smooth_tail(head: Head, hidden: Tensor) -> Tensor:
    """Output (R, out) from the first pre-activation (R, M); without the last activation."""
    first, *others = head.layers
    x = _normed(hidden, first)
    for layer in others:
        x = torch.addmm(layer.bias, F.mish(x) if x.numel() <= _SMALL else mish(x), layer.weight)
        x = x if layer.gain is None else _normed(x, layer)
    return x


def _normed(x: Tensor, layer: Layer) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), layer.gain, layer.shift, _LAYER_NORM_EPS)
