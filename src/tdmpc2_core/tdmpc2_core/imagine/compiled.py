"""The world model's networks packed for `model/networks.c`, one call each, and the rollout made of them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from tdmpc2_core.imagine.rollout import Discount, ModelRollout, discount_of, discounted_return
from tdmpc2_core.model.architecture import check_observation_shape
from tdmpc2_core.model.distributions import PolicySample, squashed_gaussian
from tdmpc2_core.model.kernels import EPS, KernelChoice, Kernels, kernels, threads_for
from tdmpc2_core.model.layers import MLP, LayerWeights, layer_weights

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel


class Workspace:
    """Buffers by name that are kept from call to call. One planner's thread at a time may use it."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._views: dict[tuple[str | int, ...], Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """The buffer `name` with this shape and what it held before; float32 on the CPU."""
        view = self._views.get((name, *shape))
        if view is not None:
            return view
        count, held = math.prod(shape), self._buffers.get(name)
        with torch.inference_mode(False):
            if held is None or held.numel() < count:
                held = self._buffers[name] = torch.empty(count)
                self._views = {key: old for key, old in self._views.items() if key[0] != name}
            view = self._views[(name, *shape)] = held[:count].view(shape)
        return view


class _Layer(ctypes.Structure):
    """`layer` of networks.c."""

    _fields_ = [  # noqa: RUF012  # ctypes reads a list
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "gain", "shift")),
        *((name, ctypes.c_int64) for name in ("inputs", "outputs")),
    ]


class Bins(NamedTuple):
    """Bin centres (num_bins,) of a two-hot head, in symlog space or ``linear``."""

    centres: Tensor
    linear: bool


class Network:
    """One network. Its first layer is split by input: what comes with every robot, and the action.

    layers: of an MLP. action_dim: how many inputs, the last ones, are the action's.
    """

    def __init__(
        self, layers: Sequence[LayerWeights], action_dim: int, library: Kernels, space: Workspace
    ) -> None:
        self._library, self._space = library, space
        first = layers[0].weight.t()
        context, action = first.split([len(first) - action_dim, action_dim])
        self._action_panels = library.panels(action)
        self._kept: list[list[Tensor | None]] = []  # the addresses below are theirs
        self._layers = (_Layer * len(layers))()
        for index, (place, layer) in enumerate(zip(self._layers, layers, strict=True)):
            weight = context if index == 0 else layer.weight.t()
            norm = [None if t is None else t.contiguous() for t in (layer.gain, layer.shift)]
            kept = [library.panels(weight), layer.bias.contiguous(), *norm]
            self._kept.append(kept)
            place.weight, place.bias, place.gain, place.shift = (
                None if t is None else t.data_ptr() for t in kept
            )
            place.inputs, place.outputs = weight.shape
        self._group = layers[-1].group or 0
        self.outputs = int(self._layers[len(layers) - 1].outputs)
        self._widest = max(int(layer.outputs) for layer in self._layers)

    def __call__(
        self,
        z: Tensor,
        action: Tensor | None = None,
        repeat: int = 1,
        out: Tensor | None = None,
        added: Tensor | None = None,
    ) -> Tensor:
        """Output (rows, outputs) of z (rows / repeat, L) and action (rows, A), new or in `out`.

        added (rows, outputs): goes into the SimNorm at the end.
        """
        rows = len(z) * repeat
        out = z.new_empty(rows, self.outputs) if out is None else out
        scratch = self._space.take("scratch", 2 * rows * self._widest)
        acted: tuple[int | None, int | None, int] = (None, None, 0)
        if action is not None:
            acted = (action.data_ptr(), self._action_panels.data_ptr(), action.shape[-1])
        self._library.library.network(
            self._layers, len(self._layers), z.data_ptr(), repeat, *acted,
            None if added is None else added.data_ptr(), rows, self._group, EPS, scratch.data_ptr(),
            out.data_ptr(), threads_for(rows * self._widest),
        )  # fmt: skip
        return out

    def value(
        self, bins: Bins, z: Tensor, action: Tensor, repeat: int = 1, out: Tensor | None = None
    ) -> Tensor:
        """Decoded two-hot output (rows,)."""
        logits = self(z, action, repeat, self._space.take("logits", len(action), self.outputs))
        out = z.new_empty(len(action)) if out is None else out
        pointers = (logits.data_ptr(), bins.centres.data_ptr(), out.data_ptr())
        library = self._library.library
        decode = library.expected_bin if bins.linear else library.decode
        decode(*pointers, *logits.shape, threads_for(logits.numel()))
        return out


class CompiledModel:
    """A model in float32 on a CPU through `Network`s, packed when its weights changed.

    Call `refresh` before every plan; where it says False, call no other method. Tasks (B,) go with the rows
    of what they are given with; images are encoded by the model itself.
    """

    def __init__(self, model: WorldModel, library: Kernels) -> None:
        self._model, self._library = model, library
        self.space = Workspace()
        parts: list[nn.Module] = [model.dynamics, model.reward_head, model.policy_head, model.q_heads]
        parts += [head for head in (model.termination_head, model.residual_head) if head is not None]
        parts += [model.encoder] if isinstance(model.encoder, MLP) else []
        self._weights = [p for part in parts for p in part.parameters()]
        self._packed: tuple[int, ...] = ()  # of the weights in the networks

    def refresh(self) -> bool:
        """Take up changed weights; False: the model is on another device or in another precision."""
        first = self._weights[0]
        if first.device.type != "cpu" or first.dtype != torch.float32:
            return False
        seen = tuple(x for p in self._weights for x in (p._version, p.data_ptr()))
        if seen != self._packed:
            self._pack()
            self._packed = seen
        return True

    @torch.no_grad()
    def _pack(self) -> None:
        model, actions = self._model, self._model.config.action_dim

        def network(part: nn.Module, action_dim: int, head: int | None = None) -> Network:
            layers = [layer_weights(layer, head) for layer in part.get_submodule("layers").children()]
            return Network(layers, action_dim, self._library, self.space)

        self._dynamics, self._reward = network(model.dynamics, actions), network(model.reward_head, actions)
        self._policy = network(model.policy_head, 0)
        self._values = [network(model.q_heads, actions, head) for head in range(model.config.num_q)]
        ended, residual = model.termination_head, model.residual_head
        self._termination = None if ended is None else network(ended, 0)
        self._residual = None if residual is None else network(residual, actions)
        self._encoder = network(model.encoder, 0) if isinstance(model.encoder, MLP) else None
        self._reward_bins = Bins(model.reward_bins.contiguous(), model.reward_two_hot.linear)
        self._value_bins = Bins(model.value_bins.contiguous(), model.value_two_hot.linear)

    def _joined(self, x: Tensor, task: Tensor | None) -> Tensor:
        """What a network takes beside the action: x (rows, L), and the embedding of its tasks (rows,)."""
        if task is None:
            return x
        return torch.cat([x, self._model.embed(task, x)], -1)

    def encode(self, obs: Tensor, task: Tensor | None = None, shifts: Tensor | None = None) -> Tensor:
        """Latents (B, L) of observations (B, O)."""
        if self._encoder is None:
            return self._model.encode(obs, task, shifts)
        check_observation_shape(obs, self._model.config)
        return self._encoder(self._joined(self._model.normaliser(obs, task).contiguous(), task))

    def next(
        self,
        z: Tensor,
        action: Tensor,
        task: Tensor | None = None,
        repeat: int = 1,
        out: Tensor | None = None,
    ) -> Tensor:
        """Latents (rows, L) after actions (rows, A) at z (rows / repeat, L); here and below tasks as z."""
        joined, action, added = self._joined(z, task), action.contiguous(), None
        if self._residual is not None:
            room = self.space.take("residual", len(action), self._residual.outputs)
            added = self._residual(joined, action, repeat, room)
        return self._dynamics(joined, action, repeat, out, added)

    def reward(
        self,
        z: Tensor,
        action: Tensor,
        task: Tensor | None = None,
        repeat: int = 1,
        out: Tensor | None = None,
    ) -> Tensor:
        """Rewards (rows,) of actions (rows, A) at z (rows / repeat, L)."""
        return self._reward.value(self._reward_bins, self._joined(z, task), action.contiguous(), repeat, out)

    def policy(self, z: Tensor, task: Tensor | None = None, noise: Tensor | None = None) -> PolicySample:
        """The policy's distribution at z (B, L) and its sample with noise (B, A)."""
        model, output = self._model, self._policy(self._joined(z, task))
        bounds = model.config.log_std_min, model.config.log_std_max
        return squashed_gaussian(output, noise, *bounds, None if task is None else model.action_mask(task))

    def act(self, z: Tensor, noise: Tensor, task: Tensor | None = None, repeat: int = 1) -> Tensor:
        """The policy's actions (rows, A) at z (rows / repeat, L) with noise (rows, A)."""
        model, output = self._model, self._policy(self._joined(z, task))
        mask = None if task is None else model.action_mask(task)
        if repeat > 1:
            output = output.repeat_interleave(repeat, 0)
            mask = None if mask is None else mask.repeat_interleave(repeat, 0)
        action = torch.empty_like(noise)
        pointers = (output.data_ptr(), noise.data_ptr(), action.data_ptr())
        bounds = model.config.log_std_min, model.config.log_std_max
        self._library.library.squash(*pointers, *noise.shape, *bounds)
        return action if mask is None else action.mul_(mask)

    def q_values(self, z: Tensor, action: Tensor, task: Tensor | None = None) -> Tensor:
        """Values (heads, B, 1) of all heads at z (B, L) and action (B, A)."""
        joined, action = self._joined(z, task), action.contiguous()
        found = [head.value(self._value_bins, joined, action) for head in self._values]
        return torch.stack(found).unsqueeze(-1)

    def values(self, z: Tensor, action: Tensor, heads: Sequence[int], task: Tensor | None = None) -> Tensor:
        """These value heads (heads, rows) at z (rows, L) and action (rows, A)."""
        joined = self._joined(z, task)
        found = [self._values[head].value(self._value_bins, joined, action) for head in heads]
        return found[0].unsqueeze(0) if len(found) == 1 else torch.stack(found)

    def termination(self, z: Tensor) -> Tensor | None:
        """Probability (rows,) that z (rows, L) is terminal; None for a model without that head."""
        return None if self._termination is None else self._termination(z).sigmoid_().squeeze(-1)


def compiled_model(model: WorldModel, choice: KernelChoice) -> CompiledModel | None:
    """`CompiledModel`, or None where there are no compiled kernels."""
    library = kernels(choice)
    return None if library is None else CompiledModel(model, library)


class CompiledRollout(ModelRollout):
    """`ModelRollout` through compiled networks, equal to rounding; plain where there are none."""

    def __init__(
        self,
        model: WorldModel,
        discount: Discount,
        soft_termination: bool,
        disagreement_cost: float,
        library: Kernels,
    ) -> None:
        super().__init__(model, discount, soft_termination, disagreement_cost)
        self._networks = CompiledModel(model, library)
        self.ready = False

    def encode(self, obs: Tensor, task: Tensor | None = None, shifts: Tensor | None = None) -> Tensor:
        """See `Rollout.encode`; decides whether this plan is compiled."""
        self.ready = self._networks.refresh()
        return self._networks.encode(obs, task, shifts) if self.ready else super().encode(obs, task, shifts)

    @torch.no_grad()
    def prior(self, latent: Tensor, noise: Tensor, task: Tensor | None = None) -> Tensor:
        """See `Rollout.prior`."""
        if not self.ready:
            return super().prior(latent, noise, task)
        net, (horizon, robots, count, size) = self._networks, noise.shape
        flat = noise.reshape(horizon, robots * count, size)
        actions = torch.empty_like(flat)
        z, tasks, repeat = latent, task, count
        for t in range(horizon):
            actions[t] = net.act(z, flat[t], tasks, repeat)
            if t + 1 < horizon:
                z, repeat = net.next(z, actions[t], tasks, repeat), 1
                tasks = None if task is None else task.repeat_interleave(count)
        return actions.view(noise.shape)

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
        if not self.ready:
            return super().returns(latent, actions, noise, heads, task)
        net, (horizon, robots, count, size) = self._networks, actions.shape
        rows = robots * count
        flat = actions.reshape(horizon, rows, size)
        each = None if task is None else task.repeat_interleave(count)
        z = net.space.take("z", horizon, rows, latent.shape[-1])  # latents after steps 0..H-1
        net.next(latent, flat[0], task, count, z[0])
        for t in range(1, horizon):
            net.next(z[t - 1], flat[t], each, 1, z[t])
        rewards = latent.new_empty(horizon, rows)
        net.reward(latent, flat[0], task, count, rewards[0])
        if horizon > 1:
            before, later = z[:-1].view(-1, z.shape[-1]), flat[1:].reshape(-1, size)
            tasks = None if each is None else each.repeat(horizon - 1)
            net.reward(before, later, tasks, 1, rewards[1:].view(-1))
        onward = net.act(z[-1], noise.reshape(rows, size), each)
        value = self._one_value(net.values(z[-1], onward, heads, each))
        ended = net.termination(z.view(horizon * rows, -1))
        shape = (horizon, robots, count)
        total = discounted_return(
            rewards.view(shape),
            value.view(shape[1:]),
            None if ended is None else ended.view(shape),
            discount_of(self.discount, task),
            self.soft_termination,
        )
        return total if self.costs is None else total - self.costs(z, flat).view_as(total)
