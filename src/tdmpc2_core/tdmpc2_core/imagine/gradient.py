"""Imagined returns with their gradient for the actions, without the autograd machinery.

For few rows, recording and replaying a graph costs several times the arithmetic. Weights are read where the
model has them, so training, loading and moving the model need no notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2_core.imagine.rollout import Discount, discount_of, discount_table
from tdmpc2_core.model.distributions import log_std_of
from tdmpc2_core.model.functional import simnorm, simnorm_backward, symexp
from tdmpc2_core.model.kernels import EPS
from tdmpc2_core.model.layers import LayerWeights, layer_weights

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel

_INPUT_ONLY = [True, False, False]


class _Step(NamedTuple):
    """What the reverse pass of a normed layer needs: its LayerNorm's input, mean, 1 / std, and what follows
    it: the normed values before Mish, or SimNorm's output."""

    before: Tensor
    mean: Tensor
    inverse: Tensor
    kept: Tensor


class Tape(NamedTuple):
    """What the reverse pass of one call needs; see `ReversibleMLP`. residual: of what is added last."""

    layers: list[LayerWeights]
    steps: list[_Step | None]
    residual: Tape | None = None


class ReversibleMLP:
    """An `MLP`, or one head at a time of an `MLPEnsemble`, with a reverse pass for the input alone.

    residual: an `MLP` of the same input whose output is added before the SimNorm at the end.
    """

    def __init__(self, network: nn.Module, residual: nn.Module | None = None) -> None:
        self._layers = [layer_weights(layer) for layer in network.get_submodule("layers").children()]
        self._residual = None if residual is None else ReversibleMLP(residual)

    def forward(self, x: Tensor, head: int | None = None) -> tuple[Tensor, Tape]:
        """x (R, in) -> output (R, out), and the tape for `backward`; head: of an ensemble."""
        layers = self._layers if head is None else [_of_head(layer, head) for layer in self._layers]
        steps: list[_Step | None] = []
        added, residual = (None, None) if self._residual is None else self._residual.forward(x)
        for layer in layers:
            x = F.linear(x, layer.weight, layer.bias)
            if layer.gain is None:
                steps.append(None)
                continue
            normed, mean, inverse = torch.native_layer_norm(x, [x.shape[-1]], layer.gain, layer.shift, EPS)
            if layer.group is not None and added is not None:
                normed = normed + added
            y = F.mish(normed) if layer.group is None else simnorm(normed, layer.group)
            steps.append(_Step(x, mean, inverse, normed if layer.group is None else y))
            x = y
        return x, Tape(layers, steps, residual)

    @staticmethod
    def backward(grad: Tensor, tape: Tape) -> Tensor:
        """Gradient of the output (R, out) -> gradient of the input (R, in)."""
        through: Tensor | None = None
        for layer, step in zip(reversed(tape.layers), reversed(tape.steps), strict=True):
            if step is not None:
                if layer.group is None:
                    grad = torch.ops.aten.mish_backward(grad, step.kept)
                else:
                    grad = simnorm_backward(grad, step.kept, layer.group)
                    if tape.residual is not None:
                        through = ReversibleMLP.backward(grad, tape.residual)
                normed = [step.before.shape[-1]], step.mean, step.inverse, layer.gain, layer.shift
                grad = torch.ops.aten.native_layer_norm_backward(grad, step.before, *normed, _INPUT_ONLY)[0]
            grad = grad @ layer.weight
        return grad if through is None else grad + through


class _Decoded(NamedTuple):
    """A two-hot head's forward pass: its tape, bin probabilities (R, bins) and their centres, the expected
    value (R,) and its slope (R,) for the expected bin, which is another in symlog space."""

    tape: Tape
    share: Tensor
    bins: Tensor
    expected: Tensor
    value: Tensor
    slope: Tensor


class _Pass(NamedTuple):
    """Parts of a forward pass that its reverse pass needs. R = B * N rows, H steps."""

    latents: Tensor  # (H + 1, R, L)
    dynamics: list[Tape]
    reward: _Decoded
    termination: tuple[Tape, Tensor] | None  # tape, and (H, R) probability that step t ended the episode
    policy: Tape
    terminal: Tensor  # (R, A) policy action that is valued
    values: list[_Decoded]  # per head
    terms: Tensor  # (H + 1, R): what step t, and at last the value, add if the episode lasts until then
    alive: Tensor  # (H + 1, R) before step t
    powers: Tensor  # (H + 1, R or 1) discount^t
    mask: Tensor | None


class GradientRollout:
    """`returns` as `Rollout` has it, and with `gradient`; the model's weights are constants."""

    def __init__(self, model: WorldModel, discount: Discount, soft_termination: bool = False) -> None:
        self.model = model
        self.discount = discount_table(discount, model)
        self.soft_termination = soft_termination
        self._dynamics = ReversibleMLP(model.dynamics, model.residual_head)
        self._reward = ReversibleMLP(model.reward_head)
        self._policy = ReversibleMLP(model.policy_head)
        self._q = ReversibleMLP(model.q_heads)
        ended = model.termination_head
        self._termination = None if ended is None else ReversibleMLP(ended)

    @torch.no_grad()
    def returns(
        self,
        latent: Tensor,
        actions: Tensor,
        noise: Tensor,
        heads: Sequence[int],
        task: Tensor | None = None,
    ) -> Tensor:
        """See `Rollout.returns`."""
        made = self._forward(latent, actions, noise, heads, task)
        return (made.terms * made.alive).sum(0).view(actions.shape[1:3])

    @torch.no_grad()
    def gradient(
        self, latent: Tensor, actions: Tensor, heads: Sequence[int], task: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns (B, N) of actions (H, B, N, A) from latents (B, L), and their gradient (H, B, N, A).

        The valued action is the policy's mode. A threshold termination (not soft) has no slope.
        """
        made = self._forward(latent, actions, None, heads, task)
        total = (made.terms * made.alive).sum(0).view(actions.shape[1:3])
        return total, self._backward(made, actions.shape[-1]).view(actions.shape)

    # ---- forward ----

    def _forward(
        self,
        latent: Tensor,
        actions: Tensor,
        noise: Tensor | None,
        heads: Sequence[int],
        task: Tensor | None,
    ) -> _Pass:
        horizon, robots, count, size = actions.shape
        steps = actions.reshape(horizon, robots * count, size)
        context, mask = None, None
        if task is not None:
            context = self.model.embed(task, latent).repeat_interleave(count, 0)
            real = self.model.action_mask(task)
            mask = None if real is None else real.repeat_interleave(count, 0)
        latents, dynamics = [latent.repeat_interleave(count, 0)], []
        for step in steps:
            z, tape = self._dynamics.forward(_join(latents[-1], context, step))
            latents.append(z)
            dynamics.append(tape)
        stacked = torch.stack(latents)
        before, after = stacked[:-1].flatten(0, 1), stacked[1:].flatten(0, 1)
        repeated = None if context is None else context.repeat(horizon, 1)
        reward = self._reward_of(*self._reward.forward(_join(before, repeated, steps)))
        ended, termination = None, None
        if self._termination is not None:
            logits, tape = self._termination.forward(after)
            ended = logits.sigmoid().view(horizon, -1)
            termination = tape, ended
        output, policy = self._policy.forward(_join(stacked[-1], context))
        terminal = self._mode_or_sample(output, noise, mask)
        joined = _join(stacked[-1], context, terminal)
        values = [self._value_of(*self._q.forward(joined, head)) for head in heads]
        powers = self._powers(horizon, count, task, stacked)
        terms = torch.empty_like(stacked[..., 0])
        terms[:-1] = reward.value.view(horizon, -1)
        terms[-1] = torch.stack([found.value for found in values]).mean(0)
        return _Pass(
            latents=stacked,
            dynamics=dynamics,
            reward=reward,
            termination=termination,
            policy=policy,
            terminal=terminal,
            values=values,
            terms=terms.mul_(powers),
            alive=self._alive(ended, stacked),
            powers=powers,
            mask=mask,
        )

    def _reward_of(self, logits: Tensor, tape: Tape) -> _Decoded:
        return _decoded(logits, tape, self.model.reward_bins, self.model.reward_two_hot.linear)

    def _value_of(self, logits: Tensor, tape: Tape) -> _Decoded:
        return _decoded(logits, tape, self.model.value_bins, self.model.value_two_hot.linear)

    def _mode_or_sample(self, output: Tensor, noise: Tensor | None, mask: Tensor | None) -> Tensor:
        config = self.model.config
        mean, raw = output.chunk(2, -1)
        if noise is not None:
            std = log_std_of(raw, config.log_std_min, config.log_std_max).exp()
            mean = torch.addcmul(mean, noise.reshape(mean.shape), std)
        action = mean.tanh()
        return action if mask is None else action * mask

    def _alive(self, ended: Tensor | None, latents: Tensor) -> Tensor:
        alive = latents.new_ones(latents.shape[:2])
        if ended is not None:
            survival = 1.0 - ended if self.soft_termination else (ended <= 0.5).to(ended.dtype)
            torch.cumprod(survival, 0, out=alive[1:])
        return alive

    def _powers(self, horizon: int, count: int, task: Tensor | None, like: Tensor) -> Tensor:
        """discount^t of the steps 0..H, per row where discounts differ."""
        discount = discount_of(self.discount, task)
        steps = torch.arange(horizon + 1, device=like.device).unsqueeze(1)
        if isinstance(discount, Tensor):
            return (discount.repeat_interleave(count, 0).squeeze(1) ** steps).to(like.dtype)
        return like.new_tensor(discount) ** steps

    # ---- reverse ----

    def _backward(self, made: _Pass, size: int) -> Tensor:
        """Gradient of the rows' returns for the actions (H, R, A)."""
        horizon, width = len(made.dynamics), made.latents.shape[-1]
        slope = made.alive * made.powers
        joined = self._decode_backward(made.reward, slope[:-1]).unflatten(0, (horizon, -1))
        actions = joined[..., -size:].clone()
        latents = torch.zeros_like(made.latents)
        latents[:-1] = joined[..., :width]
        if made.termination is not None and self.soft_termination:
            tape, ended = made.termination
            later = (made.terms * made.alive)[1:].flip(0).cumsum(0).flip(0)
            logits = (-ended * later).view(-1, 1)
            latents[1:] += ReversibleMLP.backward(logits, tape).view(horizon, -1, width)
        latents[-1] += self._value_backward(made, slope[-1] / len(made.values), size, width)
        for t in reversed(range(horizon)):
            joined_t = ReversibleMLP.backward(latents[t + 1], made.dynamics[t])
            latents[t] += joined_t[:, :width]
            actions[t] += joined_t[:, -size:]
        return actions

    def _value_backward(self, made: _Pass, slope: Tensor, size: int, width: int) -> Tensor:
        """Gradient for the last latents (R, L), through the values and the policy's mode."""
        grads = [self._decode_backward(found, slope) for found in made.values]
        joined = grads[0] if len(grads) == 1 else torch.stack(grads).sum(0)
        mean = joined[:, -size:] * (1.0 - made.terminal.square())
        if made.mask is not None:
            mean = mean * made.mask
        through = ReversibleMLP.backward(torch.cat([mean, torch.zeros_like(mean)], -1), made.policy)
        return joined[:, :width] + through[:, :width]

    def _decode_backward(self, found: _Decoded, slope: Tensor) -> Tensor:
        """Gradient for an MLP's input, given that of its decoded scalar."""
        factor = (slope.reshape(-1) * found.slope).unsqueeze(1)
        away = found.bins - found.expected.unsqueeze(1)
        return ReversibleMLP.backward(factor * found.share * away, found.tape)


def _decoded(logits: Tensor, tape: Tape, bins: Tensor, linear: bool) -> _Decoded:
    share = logits.softmax(-1)
    expected = share @ bins
    if linear:
        return _Decoded(tape, share, bins, expected, expected, torch.ones_like(expected))
    return _Decoded(tape, share, bins, expected, symexp(expected), expected.abs().exp())


def _of_head(layer: LayerWeights, head: int) -> LayerWeights:
    weight, bias, gain, shift, group = layer
    if gain is None or shift is None:
        return LayerWeights(weight[head], bias[head], None, None, None)
    return LayerWeights(weight[head], bias[head], gain[head], shift[head], group)


def _join(z: Tensor, context: Tensor | None, action: Tensor | None = None) -> Tensor:
    """Input rows of a head, [z | task | action]; actions (..., A) are flattened to the rows."""
    parts = [z] if context is None else [z, context]
    if action is not None:
        parts.append(action.reshape(-1, action.shape[-1]))
    return torch.cat(parts, -1) if len(parts) > 1 else z
