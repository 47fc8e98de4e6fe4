"""Writes a model as a checkpoint file that the official TD-MPC2 code loads (its current layout)."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc2_core.checkpoint.official_layouts import to_official
from tdmpc2_core.errors import UserError
from tdmpc2_core.model.world_model import WorldModel

_COPIES = ("_Qs.params", "_detach_Qs_params", "_target_Qs_params")


def official_state_dict(model: WorldModel) -> OrderedDict[str, Any]:
    """State dict in the current official layout: weights, constants, the copy of the value heads without
    gradient, and the batch size and device entries of the stacked heads. Tensors are copies on the CPU.

    Observation statistics have no place there: they are folded into the first encoder layer, which gives the
    same latents up to rounding wherever no entry is clipped (10 standard deviations).
    """
    config = model.config
    state: OrderedDict[str, Any] = OrderedDict()
    if model.action_masks is not None:
        state["_action_masks"] = model.action_masks.detach().cpu().clone()
    low, high = config.log_std_min, config.log_std_max
    state["log_std_min"], state["log_std_dif"] = _constant(low), _constant(high - low)
    weights = {name: value.detach().cpu().clone() for name, value in model.named_parameters()}
    if config.normalise_obs:
        _fold_statistics(model, weights)
    for name, value in weights.items():
        key = to_official(name)
        state[key] = value
        if key.startswith("_Qs.params."):
            state[key.replace("_Qs.params.", "_detach_Qs_params.")] = value.clone()
    for prefix in _COPIES:
        state[f"{prefix}.__batch_size"] = torch.Size([config.num_q])
        state[f"{prefix}.__device"] = None
    return state


def export_official(model: WorldModel, path: str | os.PathLike[str]) -> None:
    """Write `{"model": state dict}` to `path` (.pt).

    Raises:
        UserError: the file cannot be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"model": official_state_dict(model)}, target)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{target}: cannot be written ({reason}); give a writable path") from None


def official_settings(model: WorldModel) -> dict[str, Any]:
    """Settings, by their names in the official configuration, with which that code builds the model."""
    config = model.config
    names = ("mlp_dim", "latent_dim", "num_q", "num_bins", "dropout", "simnorm_dim")
    values = {name: getattr(config, name) for name in names}
    if config.obs_kind == "state":
        values |= {"enc_dim": config.enc_dim, "num_enc_layers": config.num_enc_layers}
    else:
        values |= {"obs": "rgb", "num_channels": config.num_channels}
    values |= {"vmin": config.vmin, "vmax": config.vmax}
    return {
        **values,
        "episodic": config.episodic,
        **({"task_dim": config.task_dim} if config.num_tasks else {}),
    }


def _constant(value: float) -> Tensor:
    """The official code keeps whole numbers as int64."""
    return torch.tensor(int(value) if float(value).is_integer() else value)


def _fold_statistics(model: WorldModel, weights: dict[str, Tensor]) -> None:
    """W (x - m) / s + b = (W / s) x + (b - W m / s), in double precision."""
    normaliser = model.normaliser
    mean = normaliser.mean.detach().cpu().double()
    std = normaliser.variance.detach().cpu().double().sqrt().clamp(min=normaliser.min_std)
    weight, bias = (weights[f"encoder.layers.0.{name}"] for name in ("weight", "bias"))
    entries = slice(0, model.config.obs_dim)
    scaled = weight[:, entries].double() / std
    bias.copy_(bias.double() - scaled @ mean)
    weight[:, entries] = scaled.float()
