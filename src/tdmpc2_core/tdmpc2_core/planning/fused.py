"""Imagined rollouts on the model's weights in fewer, larger operations; equals `ModelRollout` to rounding.

What is saved: first layers are split into a latent and an action part, so that all action parts are one
matrix product and the first step's latent part is computed once per robot; reward and termination of all
steps are evaluated together; only the two value heads in use are computed; everything works in buffers that
are kept from plan to plan.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2_core.model.distributions import squashed_gaussian
from tdmpc2_core.model.functional import symexp
from tdmpc2_core.model.kernels import Kernels
from tdmpc2_core.planning.packed import Head, Layer, RolloutWeights, Workspace
from tdmpc2_core.planning.rollout import Chosen, Discount, discount_of, discount_table, discounted_return

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel

_LAYER_NORM_EPS = 1e-5
_SMALL = 65536  # elements; below, a call costs more than fresh memory
_ROWS = 2048  # candidates that are pushed through a layer's tail together: bounds the buffers of many robots


class FusedRollout:
    """`Rollout` without gradients; see the module's first lines."""

    def __init__(
        self,
        model: WorldModel,
        discount: Discount,
        soft_termination: bool = False,
        kernels: Kernels | None = None,
    ) -> None:
        config = model.config
        self.model = model
        self.discount = discount_table(discount, model)
        self.soft_termination = soft_termination
        self.weights = RolloutWeights(model)
        self._group = config.simnorm_dim
        self._space = Workspace()
        self._kernels = kernels

    def encode(self, obs: Tensor, task: Tensor | None = None, shifts: Tensor | None = None) -> Tensor:
        """See `Rollout.encode`. Takes up changed weights: called once per plan, before the other methods."""
        self.weights.refresh()
        return self.model.encode(obs, task, shifts)

    @torch.no_grad()
    def prior(self, latent: Tensor, noise: Tensor, task: Tensor | None = None) -> Tensor:
        """See `Rollout.prior`."""
        w = self.weights
        horizon, robots, count, size = noise.shape
        repeat = (robots, count, -1)
        embedding, mask = self._task(task, latent)
        output = self._tail(w.policy, self._first(w.policy, latent, embedding, "policy"))
        output = output.unsqueeze(1).expand(repeat)
        pre = self._first(w.dynamics, latent, embedding, "prior").unsqueeze(1).expand(repeat)
        z = self._space.take("z", latent, robots * count, latent.shape[-1])
        actions = noise.new_empty(noise.shape)
        for t in range(horizon):
            actions[t] = self._act(output, noise[t], mask)
            if t + 1 < horizon:
                hidden = (pre + actions[t] @ w.dynamics.action).view(robots * count, -1)
                self._next(hidden, z)
                context = _rows(embedding, count)
                output = self._tail(w.policy, self._first(w.policy, z, context, "policy")).view(repeat)
                pre = self._first(w.dynamics, z, context, "prior").view(repeat)
        return actions

    @torch.no_grad()
    def returns(
        self,
        latent: Tensor,
        actions: Tensor,
        noise: Tensor,
        heads: Chosen,
        task: Tensor | None = None,
    ) -> Tensor:
        """See `Rollout.returns`."""
        w = self.weights
        horizon, robots, count, size = actions.shape
        rows = robots * count
        embedding, mask = self._task(task, latent)
        context = _rows(embedding, count)
        flat = actions.reshape(horizon * rows, size)
        dynamics = self._action_part(w.dynamics, latent, flat, context, actions.shape, "dynamics")
        reward = self._action_part(w.reward, latent, flat, context, actions.shape, "reward")

        z = self._space.take("z", latent, horizon, rows, latent.shape[-1])  # latents after steps 0..H-1
        for t in range(horizon):
            self._next(dynamics[t] if t == 0 else dynamics[t].addmm_(z[t - 1], w.dynamics.latent), z[t])
        if horizon > 1:
            reward[1:].view(-1, reward.shape[-1]).addmm_(z[:-1].view(-1, z.shape[-1]), w.reward.latent)
        rewards = self._decode(self._tail(w.reward, reward.view(horizon * rows, -1)))

        output = self._tail(w.policy, self._first(w.policy, z[-1], context, "policy"))
        terminal = self._act(output.view(robots, count, -1), noise, mask).view(rows, size)
        values = [self._value(head, z[-1], terminal, context) for head in w.heads(heads)]
        value = torch.stack(values).mean(0)
        ended = None
        if w.termination is not None:
            hidden = self._first(w.termination, z.view(horizon * rows, -1), None, "reward")
            ended = self._tail(w.termination, hidden).sigmoid().view(horizon, robots, count)
        rewards = rewards.view(horizon, robots, count)
        discount = discount_of(self.discount, task)
        return discounted_return(rewards, value.view(robots, count), ended, discount, self.soft_termination)

    def _action_part(
        self, head: Head, latent: Tensor, flat: Tensor, context: Tensor | None, shape: torch.Size, name: str
    ) -> Tensor:
        """First layer before its LayerNorm (H, B*N, M): action part of all steps, latent part of step 0."""
        horizon, robots, count, _ = shape
        pre = self._space.take(name, flat, len(flat), head.action.shape[1])
        pre = self._linear(head.layers[0].bias, flat, head.action, pre).view(horizon, robots, count, -1)
        pre[0] += (latent @ head.latent).unsqueeze(1)
        pre = pre.view(horizon, robots * count, -1)
        return pre if context is None else pre.add_(context @ head.task)

    def _first(self, head: Head, z: Tensor, context: Tensor | None, name: str) -> Tensor:
        """First layer's latent and task part (R, M) in the buffer `name`."""
        pre = self._space.take(name, z, len(z), head.latent.shape[1])
        self._linear(head.layers[0].bias, z, head.latent, pre)
        return pre if context is None else pre.addmm_(context, head.task)

    def _linear(self, bias: Tensor, x: Tensor, weight: Tensor, out: Tensor) -> Tensor:
        """x W + b; without b where a compiled kernel adds it later, which saves a pass over `out`."""
        if self._compiled is None:
            return torch.addmm(bias, x, weight, out=out)
        return torch.mm(x, weight, out=out)

    @property
    def _compiled(self) -> Kernels | None:
        return self._kernels if self.weights.compilable else None

    def _next(self, hidden: Tensor, z: Tensor) -> None:
        """z (R, L) <- latent of the dynamics' first pre-activation (R, M), which is consumed."""
        self._tail(self.weights.dynamics, hidden, z)
        groups = z.view(len(z), -1, self._group)
        if self._compiled is not None:
            last = self.weights.dynamics.layers[-1]
            if self.weights.bounded:
                self._compiled.norm_simnorm(z, last, self._group)
                return
            z.copy_(self._normed(z.add_(last.bias), last))
        if not self.weights.bounded:
            torch.ops.aten._softmax.out(
                groups * math.log(2.0) if self.weights.folded else groups, -1, False, out=groups
            )
            return
        z.exp2_()
        total = self._space.take("groups", z, *groups.shape[:2], 1)
        groups.div_(torch.sum(groups, -1, keepdim=True, out=total))

    def _tail(self, head: Head, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """Output (R, out) from the first pre-activation (R, M), which is consumed; without last activation.

        It lies in `out`, or in a buffer that the next call overwrites.
        """
        first, *others = head.layers
        last = others[-1]
        if out is None:
            out = self._space.take("output", hidden, len(hidden), last.weight.shape[1])
        parts = (
            zip(hidden.split(_ROWS), out.split(_ROWS), strict=True) if len(out) > _ROWS else ((hidden, out),)
        )
        for x, result in parts:
            if self._compiled is not None:
                self._compiled_layers(self._compiled, head, x, result)
                continue
            x = self._normed(x, first)
            for layer in others:
                y = result if layer is last else self._space.take("hidden", x, len(x), layer.weight.shape[1])
                torch.addmm(layer.bias, self._mish(x), layer.weight, out=y)
                x = y if layer.gain is None else self._normed(y, layer)
            if x is not result:
                result.copy_(x)
        return out

    def _compiled_layers(self, kernels: Kernels, head: Head, x: Tensor, out: Tensor) -> None:
        """As `_tail`, `x` without bias; a last layer that is normed comes without bias and norm."""
        before, *others, last = head.layers
        for layer in others:
            kernels.norm_mish(x, before)
            x = torch.mm(x, layer.weight, out=self._space.take("hidden", x, len(x), layer.weight.shape[1]))
            before = layer
        kernels.norm_mish(x, before)
        if last.gain is None:
            torch.addmm(last.bias, x, last.weight, out=out)
        else:
            torch.mm(x, last.weight, out=out)

    def _normed(self, x: Tensor, layer: Layer) -> Tensor:
        """LayerNorm, in place where x is large: with folded weights its rows have mean zero already."""
        width = x.shape[-1]
        if not self.weights.folded or x.numel() < _SMALL or layer.gain is None or layer.shift is None:
            return F.layer_norm(x, (width,), layer.gain, layer.shift, _LAYER_NORM_EPS)
        length = self._space.take("length", x, len(x), 1)
        torch.linalg.vector_norm(x, dim=-1, keepdim=True, out=length)
        x.div_(length.square_().div_(width).add_(_LAYER_NORM_EPS).sqrt_())
        return torch.addcmul(layer.shift, x, layer.gain, out=x)

    def _mish(self, x: Tensor) -> Tensor:
        """Mish in place, x - x / (1 + e + e^2 / 2) with e = e^x; with folded weights of log2(e) times x.

        Right where e^x overflows, too.
        """
        if not self.weights.folded:
            return F.mish(x, inplace=True)
        if x.numel() < _SMALL:
            e = x.exp2()
            return x.addcdiv_(x, torch.addcmul(e, e, e, value=0.5).add_(1.0), value=-1.0)
        e, d = self._space.take("e", x, *x.shape), self._space.take("d", x, *x.shape)
        torch.exp2(x, out=e)
        torch.addcmul(e, e, e, value=0.5, out=d).add_(1.0)
        return x.addcdiv_(x, d, value=-1.0)

    def _value(self, head: Head, z: Tensor, action: Tensor, context: Tensor | None) -> Tensor:
        hidden = self._first(head, z, context, "policy").addmm_(action, head.action)
        return self._decode(self._tail(head, hidden))

    def _decode(self, logits: Tensor) -> Tensor:
        """Expected value (R,) of two-hot logits (R, bins), which are consumed."""
        if self._compiled is not None:
            return symexp(self._compiled.expected_bin(logits, self.model.get_buffer("bins")))
        torch.ops.aten._softmax.out(logits, -1, False, out=logits)
        return symexp(logits @ self.model.get_buffer("bins"))

    def _act(self, output: Tensor, noise: Tensor, mask: Tensor | None) -> Tensor:
        config = self.model.config
        mask = None if mask is None else mask.unsqueeze(1)
        return squashed_gaussian(output, noise, config.log_std_min, config.log_std_max, mask).action

    def _task(self, task: Tensor | None, latent: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Embedding (B, D) and action mask (B, A) of tasks (B,), or twice None."""
        if task is None:
            return None, None
        return self.model.embed(task, latent), self.model.action_mask(task)


def _rows(embedding: Tensor | None, count: int) -> Tensor | None:
    return None if embedding is None else embedding.repeat_interleave(count, 0)
