"""What `fused.py` works with: the model's weights in its layout, and buffers that are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from tdmpc2_core.model.layers import MLP

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
        config = model.config
        single = config.obs_kind == "state" and not config.num_tasks
        self._encoder: MLP | None = model.encoder if single and isinstance(model.encoder, MLP) else None
        self._parameters = [p for part in (*_parts(model), self._encoder) if part for p in part.parameters()]
        self._seen: tuple[int, ...] = ()
        self._heads: list[Head] = []
        self.keep_storage = False  # True: new weights go where the old ones lay, as a captured graph needs
        self.refresh()

    @property
    def state(self) -> tuple[int, ...]:
        """Versions and places of the model's weights; another one after every change."""
        return tuple(x for p in self._parameters for x in (p._version, p.data_ptr()))

    def refresh(self) -> None:
        """Pack the weights if any of them changed since the last call."""
        seen = self.state
        if seen == self._seen:
            return
        model, split = self._model, self._split
        self._seen = seen
        self.folded = self._parameters[0].device.type == "cpu"
        self.compilable = self.folded and self._parameters[0].dtype == torch.float32
        termination = model.termination_head
        heads = [split(part.layers) for part in (model.dynamics, model.reward_head, model.policy_head)]
        heads += [split(model.q_heads.layers, head) for head in range(model.config.num_q)]
        heads += [] if termination is None else [split(termination.layers)]
        heads += [] if self._encoder is None else [self._whole(self._encoder.layers)]
        if self.keep_storage and self._heads:
            _copy(heads, self._heads)
        else:
            self._heads = heads
        self.dynamics, self.reward, self.policy, *others = self._heads
        self.value = others[: model.config.num_q]
        self.termination = None if termination is None else others[model.config.num_q]
        self.encoder = None if self._encoder is None else others[-1]
        self.bounded = False
        # elsewhere the softmax kernel is fast, and reading this bound would wait for the device
        if self.folded:
            ends = [part.layers[-1] for part in (model.dynamics, self._encoder) if part is not None]
            self.bounded = all(_bounded(layer) for layer in ends)

    def heads(self, chosen: Sequence[int] | Tensor) -> list[Head]:
        """Value heads; a tensor of indices (k,) is not read on the host."""
        if not isinstance(chosen, Tensor):
            return [self.value[index] for index in chosen]
        return [self._by_input(_gathered(self.value, index)) for index in chosen.split(1)]

    def _split(self, layers: nn.ModuleList, head: int | None = None) -> Head:
        return self._by_input(self._packed(layers, head))

    def _whole(self, layers: nn.ModuleList) -> Head:
        """A network with one input, in the place of the latent."""
        packed = self._packed(layers)
        nothing = packed[0].weight[:0]
        return Head(packed[0].weight, nothing, nothing, packed)

    def _packed(self, layers: nn.ModuleList, head: int | None = None) -> tuple[Layer, ...]:
        packed = [_layer(layer, head) for layer in layers]
        return tuple(_folded(layer, i > 0) if self.folded else layer for i, layer in enumerate(packed))

    def _by_input(self, layers: tuple[Layer, ...]) -> Head:
        config, weight = self._model.config, layers[0].weight
        sizes = [config.latent_dim, config.task_dim, len(weight) - config.latent_dim - config.task_dim]
        latent, task, action = weight.split(sizes)
        return Head(latent, task, action, layers)


def _copy(source: Sequence[Head], target: Sequence[Head]) -> None:
    for new, old in zip(source, target, strict=True):
        for layer, place in zip(new.layers, old.layers, strict=True):
            for tensor, kept in zip(layer, place, strict=True):
                if tensor is not None and kept is not None and tensor.data_ptr() != kept.data_ptr():
                    kept.copy_(tensor)


def _gathered(heads: Sequence[Head], index: Tensor) -> tuple[Layer, ...]:
    """Layers of the head at `index` (1,)."""

    def pick(tensors: list[Tensor]) -> Tensor:
        return torch.stack(tensors).index_select(0, index)[0]

    def pick_any(tensors: list[Tensor | None]) -> Tensor | None:
        present = [t for t in tensors if t is not None]
        return pick(present) if present else None

    return tuple(
        Layer(
            pick([layer.weight for layer in same]),
            pick([layer.bias for layer in same]),
            pick_any([layer.gain for layer in same]),
            pick_any([layer.shift for layer in same]),
        )
        for same in zip(*(head.layers for head in heads), strict=True)
    )


def _bounded(layer: nn.Module) -> bool:
    """Whether no argument of 2^x in this layer's SimNorm can leave float32's range."""
    gain, shift = (layer.get_parameter(f"norm_{name}").detach() for name in ("weight", "bias"))
    return bool(gain.abs().max() * gain.numel() ** 0.5 + shift.abs().max() < _SAFE_EXPONENT)


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
