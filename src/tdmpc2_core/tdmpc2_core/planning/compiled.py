"""The world model's networks packed for `model/networks.c`: one call each, on one thread of a CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tdmpc2_core.model.checks import check_observation_shape
from tdmpc2_core.model.distributions import PolicySample, squashed_gaussian
from tdmpc2_core.model.kernels import EPS, KernelChoice, Kernels, kernels
from tdmpc2_core.planning.packed import Head, Layer, RolloutWeights, Workspace

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel

_PANEL = 16  # outputs per panel of weights, as in networks.c
_LARGEST = 10_000_000  # parameters; larger models wait for their products, not between them


class _Layer(ctypes.Structure):
    """`layer` of networks.c."""

    _fields_ = [  # noqa: RUF012  # ctypes reads a list
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "gain", "shift")),
        *((name, ctypes.c_int64) for name in ("inputs", "outputs")),
    ]


def _panels(weight: Tensor) -> Tensor:
    """Weights (in, out) as (ceil(out / 16), in, 16), zeros at the end."""
    rows, columns = weight.shape
    count = -(-columns // _PANEL)
    wide = weight.new_zeros(rows, count * _PANEL)
    wide[:, :columns] = weight
    return wide.view(rows, count, _PANEL).permute(1, 0, 2).contiguous()


class Network:
    """One network; tensors are float32, contiguous, on the CPU."""

    def __init__(self, head: Head, kernels: Kernels, group: int, space: Workspace) -> None:
        self._call, self._decode = kernels.library.network, kernels.library.decode
        self._group, self._space = group, space
        first = head.layers[0]._replace(weight=head.latent)
        layers = [_tidy(layer) for layer in (first, *head.layers[1:])]
        self._kept, self._action_panels = layers, _panels(head.action)  # the addresses below are theirs
        self._layers = (_Layer * len(layers))()
        for place, layer, origin in zip(self._layers, layers, (first, *head.layers[1:]), strict=True):
            addresses = [None if t is None else t.data_ptr() for t in layer]
            place.weight, place.bias, place.gain, place.shift = addresses
            place.inputs, place.outputs = origin.weight.shape
        self._action = self._action_panels.data_ptr()
        self.outputs = self._layers[len(layers) - 1].outputs
        self._widest = max(layer.outputs for layer in self._layers)

    def __call__(
        self, z: Tensor, action: Tensor | None = None, repeat: int = 1, out: Tensor | None = None
    ) -> Tensor:
        """Output (rows, outputs) of z (rows / repeat, L) and action (rows, A), new or in `out`."""
        rows = len(z) * repeat
        out = z.new_empty(rows, self.outputs) if out is None else out
        scratch = self._space.take("scratch", z, 2 * rows * self._widest)
        acted = (None, None, 0) if action is None else (action.data_ptr(), self._action, action.shape[-1])
        self._call(
            self._layers, len(self._layers), z.data_ptr(), repeat, *acted, rows, self._group, EPS,
            scratch.data_ptr(), out.data_ptr(),
        )  # fmt: skip
        return out

    def value(
        self, bins: Tensor, z: Tensor, action: Tensor, repeat: int = 1, out: Tensor | None = None
    ) -> Tensor:
        """Decoded two-hot output (rows,)."""
        logits = self(z, action, repeat, self._space.take("logits", z, len(action), self.outputs))
        out = z.new_empty(len(action)) if out is None else out
        self._decode(logits.data_ptr(), bins.data_ptr(), out.data_ptr(), *logits.shape)
        return out


def _tidy(layer: Layer) -> Layer:
    bias, gain, shift = layer.bias.contiguous(), layer.gain, layer.shift
    if gain is None or shift is None:
        return Layer(_panels(layer.weight), bias, None, None)
    return Layer(_panels(layer.weight), bias, gain.contiguous(), shift.contiguous())


class CompiledModel:
    """A single-task model of state observations through `Network`s, packed once its weights rest.

    Call `refresh` before every plan; while it says False, call no other method.
    """

    def __init__(self, model: WorldModel, weights: RolloutWeights, kernels: Kernels) -> None:
        self._model, self._weights, self._kernels = model, weights, kernels
        self._space = Workspace()
        self._small = model.num_parameters <= _LARGEST
        self._usable = False
        self._seen: tuple[int, ...] = ()
        self._packed: tuple[int, ...] = ()  # of the weights in the networks

    def refresh(self) -> bool:
        """Take up changed weights, once two plans in a row found the same; True: the networks are ready.

        Packing costs more than it saves while every plan has new weights, as in training.
        """
        if not self._small or torch.get_num_threads() > 1:
            return False
        weights, seen, before = self._weights, self._weights.state, self._seen
        self._seen = seen
        if seen == self._packed:
            return self._usable
        if seen != before:
            return False
        weights.refresh()
        self._usable = weights.encoder is not None and weights.compilable and weights.bounded
        if self._usable:
            self._pack()
        self._packed = seen
        return self._usable

    def _pack(self) -> None:
        model, weights = self._model, self._weights

        def network(head: Head) -> Network:
            return Network(head, self._kernels, model.config.simnorm_dim, self._space)

        self.dynamics, self.reward_head = network(weights.dynamics), network(weights.reward)
        self.policy_head, self.value_heads = network(weights.policy), [network(h) for h in weights.value]
        self.termination_head = None if weights.termination is None else network(weights.termination)
        assert weights.encoder is not None
        self._encoder = network(weights.encoder)
        self.bins = model.get_buffer("bins").contiguous()

    def encode(self, obs: Tensor, task: Tensor | None = None) -> Tensor:
        """Latents (B, L) of observations (B, O). Here and below `task` is None, as for `WorldModel`."""
        check_observation_shape(obs, self._model.config)
        return self._encoder(self._model.normaliser(obs).contiguous())

    def next(self, z: Tensor, action: Tensor, task: Tensor | None = None) -> Tensor:
        """Latents (B, L) after actions (B, A) at z (B, L)."""
        return self.dynamics(z, action.contiguous())

    def policy(self, z: Tensor, task: Tensor | None = None, noise: Tensor | None = None) -> PolicySample:
        """The policy's distribution at z (B, L) and its sample with noise (B, A)."""
        config = self._model.config
        return squashed_gaussian(self.policy_head(z), noise, config.log_std_min, config.log_std_max)

    def q_values(self, z: Tensor, action: Tensor, task: Tensor | None = None) -> Tensor:
        """Values (heads, B, 1) of all heads at z (B, L) and action (B, A)."""
        action = action.contiguous()
        found = [head.value(self.bins, z, action) for head in self.value_heads]
        return torch.stack(found).unsqueeze(-1)

    def act(self, z: Tensor, noise: Tensor, repeat: int = 1) -> Tensor:
        """The policy's actions (rows, A) at z (rows / repeat, L) with noise (rows, A)."""
        config, output = self._model.config, self.policy_head(z)
        output = output.repeat_interleave(repeat, 0) if repeat > 1 else output
        action = torch.empty_like(noise)
        pointers = (output.data_ptr(), noise.data_ptr(), action.data_ptr())
        self._kernels.library.squash(*pointers, *noise.shape, config.log_std_min, config.log_std_max)
        return action

    def values(self, z: Tensor, action: Tensor, heads: Sequence[int]) -> Tensor:
        """Mean (rows,) of these value heads at z (rows, L) and action (rows, A)."""
        found = [self.value_heads[head].value(self.bins, z, action) for head in heads]
        return found[0] if len(found) == 1 else torch.stack(found).mean(0)


def compiled_model(model: WorldModel, choice: KernelChoice) -> CompiledModel | None:
    """`CompiledModel` with weights of its own, or None where the model is not one for it."""
    library = kernels(choice)
    if library is None or model.num_parameters > _LARGEST:
        return None
    return CompiledModel(model, RolloutWeights(model), library)
