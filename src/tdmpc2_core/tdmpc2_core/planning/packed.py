"""What `fused.py` works with: the model's weights in its layout, and buffers that are kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel

_SAFE_EXPONENT = 60.0  # e^+-60, summed over a group, stays a normal float32
_LOG2_E = 1.0 / math.log(2.0)


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

    On a CPU (`folded`) they also take over what is linear in the functions between them: the mean over the
    outputs that LayerNorm subtracts, and the logarithms of two that turn e^x into 2^x.
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
        self.folded = self._parameters[0].device.type == "cpu"
        self.dynamics = split(model.dynamics.layers)
        self.reward = split(model.reward_head.layers)
        self.policy = split(model.policy_head.layers)
        self.value = [split(model.q_heads.layers, head) for head in range(model.config.num_q)]
        termination = model.termination_head
        self.termination = None if termination is None else split(termination.layers)
        self.bounded = False
        if (
            self.folded
        ):  # elsewhere the softmax kernel is fast, and reading this bound would wait for the device
            last = model.dynamics.layers[-1]
            gain, shift = (last.get_parameter(f"norm_{name}").detach() for name in ("weight", "bias"))
            self.bounded = bool(gain.abs().max() * gain.numel() ** 0.5 + shift.abs().max() < _SAFE_EXPONENT)

    def _split(self, layers: nn.ModuleList, head: int | None = None) -> Head:
        packed = [_layer(layer, head) for layer in layers]
        if self.folded:
            packed = [_folded(layer, i > 0) for i, layer in enumerate(packed)]
        config = self._model.config
        sizes = [
            config.latent_dim,
            config.task_dim,
            len(packed[0].weight) - config.latent_dim - config.task_dim,
        ]
        latent, task, action = packed[0].weight.split(sizes)
        return Head(latent, task, action, tuple(packed))


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


def _folded(layer: Layer, after_mish: bool) -> Layer:
    """See `RolloutWeights`; `after_mish`: the input is log2(e) times a Mish."""
    weight, bias, gain, shift = layer
    if after_mish:
        weight = weight / _LOG2_E
    if gain is None or shift is None:
        return Layer(weight, bias, gain, shift)
    weight, bias = weight - weight.mean(1, keepdim=True), bias - bias.mean()
    return Layer(weight, bias, gain * _LOG2_E, shift * _LOG2_E)


class Workspace:
    """Buffers by name that are kept from call to call. One planner's thread at a time may use it."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._views: dict[tuple[str | int, ...], Tensor] = {}

    def take(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """The buffer `name` with this shape and what it held before; device and precision of `like`."""
        view = self._views.get((name, *shape))
        if view is not None and view.dtype == like.dtype and view.device == like.device:
            return view
        count, held = math.prod(shape), self._buffers.get(name)
        with torch.inference_mode(False):
            if held is None or held.numel() < count or held.dtype != like.dtype or held.device != like.device:
                held = self._buffers[name] = torch.empty(count, dtype=like.dtype, device=like.device)
                self._views = {key: old for key, old in self._views.items() if key[0] != name}
            view = self._views[(name, *shape)] = held[:count].view(shape)
        return view
