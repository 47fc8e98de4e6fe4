"""Reads checkpoint files of the official TD-MPC2 code: the current layout and that of the first release.

Such a file holds weights only. Sizes are inferred from the shapes of the tensors; what shapes cannot tell
(SimNorm group length, value range, real action dimensions of the tasks in a first-release file) are arguments
with the published values as defaults. Files are opened with `weights_only=True`: no code in them is run.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tdmpc2_core.errors import UserError
from tdmpc2_core.model.config import WorldModelConfig
from tdmpc2_core.model.world_model import WorldModel

_FIELDS = {"weight": "weight", "bias": "bias", "ln.weight": "norm_weight", "ln.bias": "norm_bias"}
_FLAT_FIELDS = tuple(_FIELDS)  # order of a layer's tensors in a first-release file
_PARTS = {
    "_encoder.state": "encoder.layers",
    "_dynamics": "dynamics.layers",
    "_reward": "reward_head.layers",
    "_termination": "termination_head.layers",
    "_pi": "policy_head.layers",
    "_Qs.params": "q_heads.layers",
    "_target_Qs_params": "target_q_heads.layers",
}
_FLAT_Q = re.compile(r"^(_Qs\.params|_target_Qs\.params)\.(\d+)$")
_KEY = re.compile(r"^(.+?)\.(\d+)\.((?:ln\.)?(?:weight|bias))$")
_IGNORED = re.compile(r"^_detach_Qs_params\.|__batch_size$|__device$|^log_std_(min|dif)$|^_action_masks$")
_PIXEL_LAYERS = (2, 4, 6, 8)  # indices of the convolutions, after augmentation and scaling


def load_official(
    path: str | Path,
    action_dims: Sequence[int] = (),
    simnorm_dim: int = 8,
    vmin: float = -10.0,
    vmax: float = 10.0,
    dropout: float = 0.01,
) -> WorldModel:
    """Build a `WorldModel` on the CPU, in evaluation mode, from an official checkpoint file.

    path: a .pt file, a dict with key "model" or the bare state dict. action_dims: real action entries per
    task; needed for a first-release multi-task file, read from the file otherwise. simnorm_dim, vmin, vmax
    (symlog), dropout: what the file was trained with. Raises UserError when the file cannot be read, has
    another layout or misses tensors.
    """
    raw = _read(Path(path))
    state = _current_layout(raw, path)
    config = _infer_config(raw, state, tuple(action_dims), path, simnorm_dim, vmin, vmax, dropout)
    model = WorldModel(config)
    _fill(model, _renamed(state, path), path)
    return model.eval()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"no file {path}: give the path of an official TD-MPC2 checkpoint (.pt)")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a weights-only PyTorch file: {reason}") from error
    content = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise UserError(
            f'{path} holds no state dict: expected a dict with key "model", or the state dict itself'
        )
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def _current_layout(raw: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Weights with the key names of the current layout; first-release value heads are renamed."""
    state: dict[str, Tensor] = {}
    for key, value in raw.items():
        flat = _FLAT_Q.match(key)
        if flat:
            index = int(flat.group(2))
            prefix = flat.group(1).replace("_target_Qs.params", "_target_Qs_params")
            state[f"{prefix}.{index // 4}.{_FLAT_FIELDS[index % 4]}"] = value
        elif not _IGNORED.search(key):
            state[key] = value
    needed = [
        "_dynamics.2.weight",
        "_reward.2.weight",
        "_pi.2.weight",
        "_Qs.params.2.weight",
        "_target_Qs_params.2.weight",
    ]
    missing = [key for key in needed if key not in state]
    if missing:
        raise UserError(
            f"{path} is not in a known official layout (current, or first release with _Qs.params.0...): "
            f"missing {missing}; an older file must be converted with the code that wrote it"
        )
    return state


def _layer_count(keys: Iterable[str], prefix: str) -> int:
    return len({key.split(".")[prefix.count(".") + 1] for key in keys if key.startswith(prefix + ".")})


def _infer_config(
    raw: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    action_dims: tuple[int, ...],
    path: str | Path,
    simnorm_dim: int,
    vmin: float,
    vmax: float,
    dropout: float,
) -> WorldModelConfig:
    embedding = state.get("_task_emb.weight")
    task_dim = 0 if embedding is None else embedding.shape[1]
    if embedding is not None:
        masks = raw.get("_action_masks")
        action_dims = tuple(masks.sum(-1).long().tolist()) if masks is not None else action_dims
        if len(action_dims) != embedding.shape[0]:
            raise UserError(
                f"{path} holds {embedding.shape[0]} tasks without their action dimensions: "
                f"give action_dims with {embedding.shape[0]} entries, not {len(action_dims)}"
            )
    elif action_dims:
        raise UserError(f"{path} holds a single task: leave action_dims empty")
    heads, num_bins, mlp_dim = state["_Qs.params.2.weight"].shape
    pixels = f"_encoder.rgb.{_PIXEL_LAYERS[0]}.weight"
    shapes: dict[str, int | str] = {}
    if pixels in state:
        shapes = {
            "obs_dim": state[pixels].shape[1],
            "num_channels": state[pixels].shape[0],
            "obs_kind": "pixels",
        }
    elif "_encoder.state.0.weight" in state:
        enc_dim, width = state["_encoder.state.0.weight"].shape
        layers = _layer_count(state, "_encoder.state")
        shapes = {"obs_dim": width - task_dim, "enc_dim": enc_dim, "num_enc_layers": layers}
    else:
        raise UserError(f"{path} has no encoder: expected _encoder.state.0.weight or {pixels}")
    low, span = raw.get("log_std_min"), raw.get("log_std_dif")
    log_std_min = -10.0 if low is None else float(low)
    try:
        return WorldModelConfig(
            action_dim=state["_pi.2.weight"].shape[0] // 2,
            latent_dim=state["_dynamics.2.weight"].shape[0],
            mlp_dim=mlp_dim,
            num_q=heads,
            num_bins=num_bins,
            vmin=vmin,
            vmax=vmax,
            dropout=dropout,
            simnorm_dim=simnorm_dim,
            log_std_min=log_std_min,
            log_std_max=2.0 if span is None else log_std_min + float(span),
            episodic="_termination.2.weight" in state,
            task_dim=task_dim,
            action_dims=action_dims,
            **shapes,  # type: ignore[arg-type]
        )
    except ValueError as error:
        raise UserError(f"{path} does not describe a TD-MPC2 model: {error}") from error


def _renamed(state: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Keys of this package for every official key."""
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        match = _KEY.match(key)
        if key == "_task_emb.weight":
            result["task_embedding"] = value
        elif match and match.group(1) == "_encoder.rgb" and int(match.group(2)) in _PIXEL_LAYERS:
            result[f"encoder.convolutions.{_PIXEL_LAYERS.index(int(match.group(2)))}.{match.group(3)}"] = (
                value
            )
        elif match and match.group(1) in _PARTS:
            result[f"{_PARTS[match.group(1)]}.{match.group(2)}.{_FIELDS[match.group(3)]}"] = value
        else:
            raise UserError(
                f"{path} holds an unknown tensor {key!r}: not a layout of the official TD-MPC2 code"
            )
    return result


def _fill(model: WorldModel, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Copy the weights; every parameter must be there with its shape."""
    parameters = dict(model.named_parameters())
    missing, extra = sorted(set(parameters) - set(weights)), sorted(set(weights) - set(parameters))
    if missing or extra:
        raise UserError(f"{path} does not fit its own layer sizes: missing {missing}, unexpected {extra}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != weights[name].shape:
                raise UserError(
                    f"{path}: tensor for {name} has shape {tuple(weights[name].shape)}, "
                    f"the other tensors call for {tuple(parameter.shape)}"
                )
            parameter.copy_(weights[name])
