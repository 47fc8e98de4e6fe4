"""Imagined returns with their gradient for the actions; also the rollout of the depth-averaged score."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tdmpc2_core.model.functional import symexp
from tdmpc2_core.planning.fused import FusedRollout
from tdmpc2_core.planning.reverse import ReversibleMLP, Tape
from tdmpc2_core.planning.rollout import Chosen, Discount, discount_of, discount_table

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel


class _Pass(NamedTuple):
    """Parts of a forward pass that its reverse pass needs. R = B * N rows, H steps, D values."""

    latents: Tensor  # (H + 1, R, L)
    dynamics: list[Tape]
    reward: tuple[Tape, Tensor, Tensor]  # tape, bin probabilities, symlog reward
    termination: tuple[Tape, Tensor] | None  # tape, and (H, R) probability that step t ended the episode
    policy: Tape
    terminal: Tensor  # (D * R, A) policy actions that are valued
    values: list[tuple[Tape, Tensor, Tensor]]  # as `reward`, per head
    rewards: Tensor  # (H, R)
    value: Tensor  # (D, R) mean of the heads
    alive: Tensor  # (H + 1, R) before step t
    weights: tuple[Tensor, Tensor]  # of the rewards (H, R or 1) and of the values (D, R or 1)
    mask: Tensor | None


class GradientRollout:
    """`Rollout` whose returns come with their gradient; the model's weights are constants.

    depth_average: score by `depth_averaged_return` instead of `discounted_return`.
    """

    def __init__(
        self,
        model: WorldModel,
        discount: Discount,
        soft_termination: bool = False,
        depth_average: bool = False,
    ) -> None:
        self.model = model
        self.discount = discount_table(discount, model)
        self.soft_termination = soft_termination
        self.depth_average = depth_average
        fused = FusedRollout(model, discount, soft_termination)
        self.encode, self.prior = fused.encode, fused.prior
        self._dynamics = ReversibleMLP(model.dynamics.layers)
        self._reward = ReversibleMLP(model.reward_head.layers)
        self._policy = ReversibleMLP(model.policy_head.layers)
        self._q = ReversibleMLP(model.q_heads.layers, ensemble=True)
        head = model.termination_head
        self._termination = None if head is None else ReversibleMLP(head.layers)

    def returns(
        self,
        latent: Tensor,
        actions: Tensor,
        noise: Tensor,
        heads: Chosen,
        task: Tensor | None = None,
    ) -> Tensor:
        """See `Rollout.returns`; terminal noise serves every depth of a depth-averaged score."""
        with torch.no_grad():
            return self._total(self._forward(latent, actions, noise, heads, task)).view(actions.shape[1:3])

    def gradient(
        self, latent: Tensor, actions: Tensor, heads: Chosen, task: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns (B, N) of actions (H, B, N, A) from latents (B, L), and their gradient (H, B, N, A).

        The valued action is the policy's mode. A threshold termination (not soft) has no slope.
        """
        with torch.no_grad():
            made = self._forward(latent, actions, None, heads, task)
            total = self._total(made).view(actions.shape[1:3])
            return total, self._backward(made, actions.shape[-1]).view(actions.shape)

    # ---- forward ----

    def _forward(
        self,
        latent: Tensor,
        actions: Tensor,
        noise: Tensor | None,
        heads: Chosen,
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
        reward = self._decoded(*self._reward.forward(_join(before, _times(context, horizon), steps)))
        ended, termination = None, None
        if self._termination is not None:
            logits, tape = self._termination.forward(after)
            ended = logits.sigmoid().view(horizon, -1)
            termination = tape, ended
        depths = horizon if self.depth_average else 1
        valued = after if self.depth_average else stacked[-1]
        deep = _times(context, depths)
        output, policy = self._policy.forward(_join(valued, deep))
        terminal = self._mode_or_sample(output, noise, mask, depths)
        joined = _join(valued, deep, terminal)
        values = [self._decoded(*self._q.forward(joined, head)) for head in heads]
        value = torch.stack([symexp(found[2]) for found in values]).mean(0).view(depths, -1)
        alive = self._alive(ended, stacked)
        rewards = symexp(reward[2]).view(horizon, -1)
        parts = (stacked, dynamics, reward, termination, policy, terminal, values, rewards, value)
        return _Pass(*parts, alive, self._weights(horizon, depths, count, task, alive), mask)

    def _decoded(self, logits: Tensor, tape: Tape) -> tuple[Tape, Tensor, Tensor]:
        """Tape, bin probabilities (R, bins) and expected symlog value (R,) of two-hot logits."""
        share = logits.softmax(-1)
        return tape, share, share @ self.model.bins

    def _mode_or_sample(
        self, output: Tensor, noise: Tensor | None, mask: Tensor | None, depths: int
    ) -> Tensor:
        config = self.model.config
        mean, raw = output.chunk(2, -1)
        if noise is not None:
            log_std = config.log_std_min + 0.5 * (config.log_std_max - config.log_std_min) * (raw.tanh() + 1)
            mean = torch.addcmul(mean, noise.reshape(-1, mean.shape[-1]).repeat(depths, 1), log_std.exp())
        action = mean.tanh()
        return action if mask is None else action * mask.repeat(depths, 1)

    def _alive(self, ended: Tensor | None, latents: Tensor) -> Tensor:
        alive = latents.new_ones(latents.shape[:2])
        if ended is not None:
            survival = 1.0 - ended if self.soft_termination else (ended <= 0.5).to(ended.dtype)
            torch.cumprod(survival, 0, out=alive[1:])
        return alive

    def _weights(
        self, horizon: int, depths: int, count: int, task: Tensor | None, like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weights of the rewards r_0..r_(H-1) and of the D values, per row where discounts differ."""
        discount = discount_of(self.discount, task)
        steps = torch.arange(horizon + 1, device=like.device).unsqueeze(1)
        if isinstance(discount, Tensor):
            powers = discount.repeat_interleave(count, 0).squeeze(1) ** steps
        else:
            powers = like.new_tensor(discount) ** steps
        rewards = powers[:-1]
        if self.depth_average:  # r_t is part of the returns to the depths t + 1..H
            rewards = rewards * ((horizon - steps[:-1]) / horizon)
        return rewards.to(like.dtype), (powers[-depths:] / depths).to(like.dtype)

    def _total(self, made: _Pass) -> Tensor:
        return (self._terms(made) * made.alive).sum(0)

    def _terms(self, made: _Pass) -> Tensor:
        """(H + 1, R): what step t and the value of z_t add to the return if the episode lasts until then."""
        of_rewards, of_values = made.weights
        terms = torch.zeros_like(made.alive)
        terms[:-1] = made.rewards * of_rewards
        terms[-len(made.value) :] += made.value * of_values
        return terms

    # ---- reverse ----

    def _backward(self, made: _Pass, size: int) -> Tensor:
        """Gradient of the rows' returns for the actions (H, R, A)."""
        horizon, depths = len(made.rewards), len(made.value)
        width = made.latents.shape[-1]
        of_rewards, of_values = made.weights
        slope = made.alive[:-1] * of_rewards
        joined = self._decode_backward(self._reward, made.reward, slope).unflatten(0, (horizon, -1))
        actions = joined[..., -size:].clone()
        latents = torch.zeros_like(made.latents)
        latents[:-1] = joined[..., :width]
        if made.termination is not None and self._termination is not None and self.soft_termination:
            tape, ended = made.termination
            later = (self._terms(made) * made.alive)[1:].flip(0).cumsum(0).flip(0)
            logits = (-ended * later).view(-1, 1)
            latents[1:] += self._termination.backward(logits, tape).view(horizon, -1, width)
        slope = made.alive[-depths:] * of_values
        latents[-depths:] += self._value_backward(made, slope / len(made.values), size, width)
        for t in reversed(range(horizon)):
            joined_t = self._dynamics.backward(latents[t + 1], made.dynamics[t])
            latents[t] += joined_t[:, :width]
            actions[t] += joined_t[:, -size:]
        return actions

    def _value_backward(self, made: _Pass, slope: Tensor, size: int, width: int) -> Tensor:
        """Gradient for the valued latents (D, R, L), through the values and the policy's mode."""
        grads = [self._decode_backward(self._q, found, slope) for found in made.values]
        joined = grads[0] if len(grads) == 1 else torch.stack(grads).sum(0)
        mean = joined[:, -size:] * (1.0 - made.terminal.square())
        if made.mask is not None:
            mean = mean * made.mask.repeat(len(slope), 1)
        through = self._policy.backward(torch.cat([mean, torch.zeros_like(mean)], -1), made.policy)
        return (joined[:, :width] + through[:, :width]).view(*slope.shape, width)

    def _decode_backward(
        self, mlp: ReversibleMLP, found: tuple[Tape, Tensor, Tensor], slope: Tensor
    ) -> Tensor:
        """Gradient for an MLP's input, given that of its decoded scalar."""
        tape, share, symlog = found
        bins = self.model.bins
        factor = (slope.reshape(-1) * symlog.abs().exp()).unsqueeze(1)
        return mlp.backward(factor * share * (bins - symlog.unsqueeze(1)), tape)


def _times(context: Tensor | None, count: int) -> Tensor | None:
    return None if context is None else context.repeat(count, 1)


def _join(z: Tensor, context: Tensor | None, action: Tensor | None = None) -> Tensor:
    """Input rows of a head, [z | task | action]; actions (..., A) are flattened to the rows."""
    parts = [z] if context is None else [z, context]
    if action is not None:
        parts.append(action.reshape(-1, action.shape[-1]))
    return torch.cat(parts, -1) if len(parts) > 1 else z
