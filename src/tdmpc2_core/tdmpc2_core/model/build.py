"""A world model from its configuration and weights, every shape checked before memory is taken."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tdmpc2_core.errors import UserError
from tdmpc2_core.model.config import WorldModelConfig
from tdmpc2_core.model.normalisation import ObservationNormaliser
from tdmpc2_core.model.world_model import WorldModel, action_mask_table


def build_model(config: WorldModelConfig, weights: Mapping[str, Tensor], where: str) -> WorldModel:
    """World model on the CPU with copies of `weights` (names of its state dict), in evaluation mode.

    Buffers that `weights` leaves out (observation statistics, action masks) have their initial values.
    where: begins the sentence of an error.

    Raises:
        UserError: a weight is missing, unknown, of the wrong shape or kind, or not finite; the first such
            weight is named.
    """
    if config.num_enc_layers > len(weights):  # before thousands of layers are made for nothing
        raise UserError(f"{where}: {config.num_enc_layers} encoder layers but {len(weights)} weights")
    try:
        with torch.device("meta"):
            model = WorldModel(config)
    except (ValueError, RuntimeError, TypeError) as error:
        raise UserError(f"{where}: the model configuration cannot be built: {error}") from None
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    state = {**_initial_buffers(config, weights), **weights}
    for name in [*expected, *state]:
        _check(name, expected.get(name), state.get(name), where)
    copies = {name: value.detach().to("cpu", torch.float32, copy=True) for name, value in state.items()}
    model.load_state_dict(copies, assign=True)
    model.bins = model.two_hot.bins(torch.zeros(()))
    return model.eval()


def _initial_buffers(config: WorldModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    buffers: dict[str, Tensor] = {}
    if not any(name.startswith("normaliser.") for name in weights):
        statistics = ObservationNormaliser(config.obs_dim, config.normalise_obs).state_dict()
        buffers = {f"normaliser.{name}": value for name, value in statistics.items()}
    if config.num_tasks:
        buffers["action_masks"] = action_mask_table(config)
    return buffers


def _check(name: str, want: tuple[int, ...] | None, have: Tensor | None, where: str) -> None:
    if want is None or have is None or tuple(have.shape) != want:
        found = "missing" if have is None else f"of shape {tuple(have.shape)}"
        right = "none of that name" if want is None else f"one of shape {want}"
        raise UserError(f"{where}: weight {name!r} is {found}, the model configuration needs {right}")
    if not have.is_floating_point() or have.layout != torch.strided:
        raise UserError(f"{where}: weight {name!r} is of type {have.dtype}, must hold real numbers")
    if not bool(torch.isfinite(have).all()):
        raise UserError(f"{where}: weight {name!r} is not finite; use an earlier checkpoint")
