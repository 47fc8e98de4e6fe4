"""Imagined rollouts on the model's weights in fewer, larger operations; equals `ModelRollout` to rounding.

What is saved: first layers are split into a latent and an action part, so that all action parts are one
matrix product and the first step's latent part is computed once per robot; reward and termination of all
steps are evaluated together; only the two value heads in use are computed; activations work in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2_core.model.distributions import squashed_gaussian
from tdmpc2_core.model.functional import symexp
from tdmpc2_core.planning.rollout import Discount, discount_of, discount_table, discounted_return

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel

_LAYER_NORM_EPS = 1e-5
_SAFE_EXPONENT = 60.0  # e^+-60, summed over a group, stays a normal float32


class Layer(NamedTuple):
    """Linear map (in, out) with its bias; `gain` and `shift` of the LayerNorm that follows, or None."""

    weight: Tensor
    bias: Tensor
    gain: Tensor | None
    shift: Tensor | None


class Head(NamedTuple):
    """MLP whose first layer is split by input: latent (L, M), task embedding (D, M) and action (A, M)."""

    latent: Tensor
    task: Tensor
    action: Tensor
    layers: tuple[Layer, ...]  # the first one without its weight's use


class RolloutWeights:
    """The model's weights in the layout of the rollouts, packed again only when they changed.

    A change is seen by every in-place update (optimiser step, `load_state_dict`) and every move to a device.
    """

    def __init__(self, model: WorldModel) -> None:
        self._model = model
        self._parameters = [p for part in _parts(model) for p in part.parameters()]
        self._seen: tuple[int, ...] = ()
        self.refresh()

    def refresh(self) -> None:
        """Pack the weights if any of them changed since the last call."""
        seen = tuple(x for p in self._parameters for x in (p._version, p.data_ptr()))
        if seen == self._seen:
            return
        model, split = self._model, self._split
        self._seen = seen
        self.dynamics = split(model.dynamics.layers)
        self.reward = split(model.reward_head.layers)
        self.policy = split(model.policy_head.layers)
        self.value = [split(model.q_heads.layers, head) for head in range(model.config.num_q)]
        termination = model.termination_head
        self.termination = None if termination is None else split(termination.layers)
        gain, shift = self.dynamics.layers[-1].gain, self.dynamics.layers[-1].shift
        self.bounded = False
        if gain is not None and shift is not None and gain.device.type == "cpu":
            # elsewhere the softmax kernel is fast, and reading this bound would wait for the device
            self.bounded = bool(gain.abs().max() * gain.numel() ** 0.5 + shift.abs().max() < _SAFE_EXPONENT)

    def _split(self, layers: nn.ModuleList, head: int | None = None) -> Head:
        packed = tuple(_layer(layer, head) for layer in layers)
        config = self._model.config
        sizes = [
            config.latent_dim,
            config.task_dim,
            len(packed[0].weight) - config.latent_dim - config.task_dim,
        ]
        latent, task, action = packed[0].weight.split(sizes)
        return Head(latent, task, action, packed)


def _parts(model: WorldModel) -> list[nn.Module]:
    parts = [model.dynamics, model.reward_head, model.policy_head, model.q_heads, model.termination_head]
    return [part for part in parts if part is not None]


def _layer(layer: nn.Module, head: int | None) -> Layer:
    def pick(name: str) -> Tensor:
        tensor = layer.get_parameter(name).detach()
        return tensor if head is None else tensor[head]

    weight = pick("weight").t().contiguous()  # (in, out): several per cent faster for few rows
    if not hasattr(layer, "norm_weight"):
        return Layer(weight, pick("bias"), None, None)
    return Layer(weight, pick("bias"), pick("norm_weight"), pick("norm_bias"))


class FusedRollout:
    """`Rollout` for models with state latents; see the module's first lines."""

    def __init__(self, model: WorldModel, discount: Discount, soft_termination: bool = False) -> None:
        config = model.config
        self.model = model
        self.discount = discount_table(discount, model)
        self.soft_termination = soft_termination
        self.weights = RolloutWeights(model)
        self._group = config.simnorm_dim

    def encode(self, obs: Tensor, task: Tensor | None = None, shifts: Tensor | None = None) -> Tensor:
        """See `Rollout.encode`. Takes up changed weights: called once per plan, before the other methods."""
        self.weights.refresh()
        return self.model.encode(obs, task, shifts)

    def prior(self, latent: Tensor, noise: Tensor, task: Tensor | None = None) -> Tensor:
        """See `Rollout.prior`."""
        w = self.weights
        horizon, robots, count, size = noise.shape
        repeat = (robots, count, -1)
        embedding, mask = self._task(task, latent)
        output = self._tail(w.policy, _first(w.policy, latent, embedding))
        output = output.unsqueeze(1).expand(repeat)
        pre = _first(w.dynamics, latent, embedding).unsqueeze(1).expand(repeat)
        actions = noise.new_empty(noise.shape)
        for t in range(horizon):
            actions[t] = self._act(output, noise[t], mask)
            if t + 1 < horizon:
                hidden = (pre + actions[t] @ w.dynamics.action).view(robots * count, -1)
                z = self._next(hidden)
                context = _rows(embedding, count)
                output = self._tail(w.policy, _first(w.policy, z, context)).view(repeat)
                pre = _first(w.dynamics, z, context).view(repeat)
        return actions

    def returns(
        self,
        latent: Tensor,
        actions: Tensor,
        noise: Tensor,
        heads: tuple[int, ...],
        task: Tensor | None = None,
    ) -> Tensor:
        """See `Rollout.returns`."""
        w = self.weights
        horizon, robots, count, size = actions.shape
        rows = robots * count
        embedding, mask = self._task(task, latent)
        context = _rows(embedding, count)
        flat = actions.reshape(horizon * rows, size)
        dynamics = self._action_part(w.dynamics, latent, flat, context, actions.shape)
        reward = self._action_part(w.reward, latent, flat, context, actions.shape)

        z = latent.new_empty(horizon, rows, latent.shape[-1])  # latents after steps 0..H-1
        for t in range(horizon):
            hidden = dynamics[t] if t == 0 else dynamics[t].addmm_(z[t - 1], w.dynamics.latent)
            z[t] = self._next(hidden)
        if horizon > 1:
            reward[1:].view(-1, reward.shape[-1]).addmm_(z[:-1].view(-1, z.shape[-1]), w.reward.latent)
        rewards = self._decode(self._tail(w.reward, reward.view(horizon * rows, -1))).view(
            horizon, robots, count
        )

        output = self._tail(w.policy, _first(w.policy, z[-1], context))
        terminal = self._act(output.view(robots, count, -1), noise, mask).view(rows, size)
        value = torch.stack([self._value(w.value[head], z[-1], terminal, context) for head in heads]).mean(0)
        ended = None
        if w.termination is not None:
            logits = self._tail(w.termination, _first(w.termination, z.view(horizon * rows, -1), None))
            ended = logits.sigmoid().view(horizon, robots, count)
        discount = discount_of(self.discount, task)
        return discounted_return(rewards, value.view(robots, count), ended, discount, self.soft_termination)

    def _action_part(
        self, head: Head, latent: Tensor, flat: Tensor, context: Tensor | None, shape: torch.Size
    ) -> Tensor:
        """First layer before its LayerNorm (H, B*N, M): action part of all steps, latent part of step 0."""
        horizon, robots, count, _ = shape
        pre = torch.addmm(head.layers[0].bias, flat, head.action).view(horizon, robots, count, -1)
        pre[0] += (latent @ head.latent).unsqueeze(1)
        pre = pre.view(horizon, robots * count, -1)
        return pre if context is None else pre.add_(context @ head.task)

    def _next(self, hidden: Tensor) -> Tensor:
        """Latent (R, L) from the dynamics' first pre-activation (R, M), which is consumed."""
        x = self._tail(self.weights.dynamics, hidden)
        if not self.weights.bounded:
            return x.view(*x.shape[:-1], -1, self._group).softmax(-1).view(x.shape)
        x = x.exp_().view(*x.shape[:-1], -1, self._group)
        return x.div_(x.sum(-1, keepdim=True)).view(hidden.shape[0], -1)

    def _tail(self, head: Head, hidden: Tensor) -> Tensor:
        """Output (R, out) from the first pre-activation (R, M); without the last activation."""
        first, *others = head.layers
        x = _normed(hidden, first)
        for layer in others:
            x = torch.addmm(layer.bias, _mish_(x), layer.weight)
            x = x if layer.gain is None else _normed(x, layer)
        return x

    def _value(self, head: Head, z: Tensor, action: Tensor, context: Tensor | None) -> Tensor:
        return self._decode(self._tail(head, _first(head, z, context).addmm_(action, head.action)))

    def _decode(self, logits: Tensor) -> Tensor:
        """Expected value (R,) of two-hot logits (R, bins)."""
        return symexp(logits.softmax(-1) @ self.model.get_buffer("bins"))

    def _act(self, output: Tensor, noise: Tensor, mask: Tensor | None) -> Tensor:
        config = self.model.config
        mask = None if mask is None else mask.unsqueeze(1)
        return squashed_gaussian(output, noise, config.log_std_min, config.log_std_max, mask).action

    def _task(self, task: Tensor | None, latent: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Embedding (B, D) and action mask (B, A) of tasks (B,), or twice None."""
        if task is None:
            return None, None
        return self.model.embed(task, latent), self.model.action_mask(task)


def _first(head: Head, z: Tensor, context: Tensor | None) -> Tensor:
    """First layer's latent and task part, bias included, (R, M)."""
    pre = torch.addmm(head.layers[0].bias, z, head.latent)
    return pre if context is None else pre.addmm_(context, head.task)


def _rows(embedding: Tensor | None, count: int) -> Tensor | None:
    return None if embedding is None else embedding.repeat_interleave(count, 0)


def _normed(x: Tensor, layer: Layer) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), layer.gain, layer.shift, _LAYER_NORM_EPS)


def _mish_(x: Tensor) -> Tensor:
    """Mish in place, x tanh(softplus(x)) = x - 2x / ((1 + e^x)^2 + 1); right where e^x overflows too."""
    e = x.exp().add_(1.0)
    return x.addcdiv_(x, e.square_().add_(1.0), value=-2.0)
