"""Reads checkpoint files of the official TD-MPC2 code, in all layouts that were published.

Such a file holds weights only. Sizes are inferred from the shapes of the tensors; what shapes cannot tell
(SimNorm group length, value range, real action dimensions of the tasks in a first-release file) are arguments
with the published values as defaults. Files are opened with `weights_only=True`: no code in them is run.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc2_core.checkpoint.published_tasks import TASK_SETS, published_task
from tdmpc2_core.errors import UserError
from tdmpc2_core.model.architecture import WorldModelConfig
from tdmpc2_core.model.world_model import WorldModel, build_model


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a file that holds a state dict, or a dict with key "model", on the CPU.

    The archive's checksums are verified before torch sees it, and every tensor must lie inside its record.

    Raises:
        UserError: the file is missing, damaged, no PyTorch file, or holds something else.
    """
    if not path.is_file():
        raise UserError(f"no file {path}: give the path of an official TD-MPC2 checkpoint (.pt)")
    records = _checked_records(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for content that is not a plain state dict
        raise UserError(f"{path} is not a weights-only PyTorch file: {_first_line(error)}") from None
    content = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise UserError(
            f'{path} holds no state dict: expected a dict with key "model", or the state dict itself'
        )
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    for key, value in state.items():
        _check_tensor(key, value, records, path)
    return state


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _checked_records(path: Path) -> set[int]:
    """Sizes (bytes) of the archive's records, all of whose checksums hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            sizes = {entry.file_size for entry in archive.infolist()}
    except Exception as error:  # zipfile too: a flipped bit reaches struct, zlib, encodings, memory
        raise UserError(
            f"{path} is not a weights-only PyTorch file, or a damaged one: {_first_line(error)}"
        ) from None
    if damaged is not None:
        raise UserError(f"{path} is damaged: the checksum of {damaged} differs; download the file again")
    return sizes


def _check_tensor(key: str, value: Tensor, records: set[int], path: Path) -> None:
    plain: Any = value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"
    if not plain or value.is_complex():
        raise UserError(
            f"{path}: tensor {key!r} is no plain tensor of numbers: {value.dtype}, {value.layout}"
        )
    held = value.untyped_storage().nbytes()
    if held not in records or value.numel() * value.element_size() > held:
        raise UserError(
            f"{path}: tensor {key!r} of shape {tuple(value.shape)} does not fit its record of the file"
        )


FIELDS = {"weight": "weight", "bias": "bias", "ln.weight": "norm_weight", "ln.bias": "norm_bias"}
"""Tensors of a layer: official name, name in this package; in the order of the flat value heads."""

PARTS = {
    "_encoder.state": "encoder.layers",
    "_dynamics": "dynamics.layers",
    "_reward": "reward_head.layers",
    "_termination": "termination_head.layers",
    "_pi": "policy_head.layers",
    "_Qs.params": "q_heads.layers",
    "_target_Qs_params": "target_q_heads.layers",
}
"""Networks: prefix in the official file, prefix in this package."""

PIXEL_LAYERS = (2, 4, 6, 8)
"""Indices of the convolutions in ``_encoder.rgb``, after augmentation and scaling."""

_FLAT_Q = re.compile(r"^(_Qs\.params|_target_Qs\.params)\.(\d+)$")
_LAYER = re.compile(r"^(.+?)\.(\d+)\.((?:ln\.)?(?:weight|bias))$")
_IGNORED = re.compile(r"^_detach_Qs_params\.|__batch_size$|__device$|^log_std_(min|dif)$|^_action_masks$")
_SEQUENCE = re.compile(r"^(_encoder\.state|_dynamics\.0|_reward|_pi|_termination)\.(\d+)\.(weight|bias)$")
_SHOWN = 6  # names listed when a file is not understood


def layout_of(names: Iterable[str], path: str | Path) -> str:
    """`current`, `first release` or `before release`.

    Raises:
        UserError: none of them; the sentence lists what was found.
    """
    found = set(names)
    if "_dynamics.0.0.weight" in found:
        return "before release"
    if "_Qs.params.0.weight" in found:
        return "current"
    if "_Qs.params.0" in found:
        return "first release"
    shown = ", ".join(sorted(found)[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    raise UserError(
        f"{path} is in none of the published TD-MPC2 layouts: expected _Qs.params.0.weight, _Qs.params.0 or "
        f"_dynamics.0.0.weight among its tensors, found {len(found)}: {shown or 'none'}"
    )


def to_current(raw: Mapping[str, Tensor], path: str | Path) -> tuple[str, dict[str, Tensor]]:
    """Layout of the file, and its weights under the names of the current layout, copies left out.

    Raises:
        UserError: another layout, or a network is missing.
    """
    layout = layout_of(raw, path)
    state: dict[str, Tensor] = {}
    for key, value in raw.items():
        flat = _FLAT_Q.match(key)
        if flat:
            prefix = flat.group(1).replace("_target_Qs.params", "_target_Qs_params")
            layer, field = divmod(int(flat.group(2)), len(FIELDS))
            state[f"{prefix}.{layer}.{tuple(FIELDS)[field]}"] = value
        elif layout == "before release" and not _IGNORED.search(key):
            state[_from_sequence(key)] = value
        elif not _IGNORED.search(key):
            state[key] = value
    networks = ("_dynamics.2", "_reward.2", "_pi.2", "_Qs.params.2", "_target_Qs_params.2")
    missing = [f"{part}.weight" for part in networks if f"{part}.weight" not in state]
    if missing:
        raise UserError(f"{path} ({layout} layout) lacks {', '.join(missing)}; download the file again")
    return layout, state


def _from_sequence(key: str) -> str:
    """Current name of a tensor of the layout before release: three places per layer, linear and LayerNorm."""
    final = re.match(r"^_dynamics\.1\.(weight|bias)$", key)
    if final:
        return f"_dynamics.2.ln.{final.group(1)}"
    match = _SEQUENCE.match(key)
    if not match:
        return key
    part, place = match.group(1), int(match.group(2)) - (match.group(1) == "_encoder.state")
    layer, kind = divmod(place, 3)
    name = part.removesuffix(".0") if part.startswith("_dynamics") else part
    return f"{name}.{layer}.{'ln.' if kind == 1 else ''}{match.group(3)}"


def to_package(state: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Weights under the names of this package from those of the current layout.

    Raises:
        UserError: a tensor that belongs to no network.
    """
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        match = _LAYER.match(key)
        if key == "_task_emb.weight":
            result["task_embedding"] = value
        elif match and match.group(1) == "_encoder.rgb" and int(match.group(2)) in PIXEL_LAYERS:
            place = PIXEL_LAYERS.index(int(match.group(2)))
            result[f"encoder.convolutions.{place}.{match.group(3)}"] = value
        elif match and match.group(1) in PARTS:
            result[f"{PARTS[match.group(1)]}.{match.group(2)}.{FIELDS[match.group(3)]}"] = value
        else:
            raise UserError(
                f"{path} holds an unknown tensor {key!r}: not a layout of the official TD-MPC2 code"
            )
    return result


def to_official(name: str) -> str:
    """Name in the current official layout of a parameter of this package."""
    if name == "task_embedding":
        return "_task_emb.weight"
    part, place, field = name.rsplit(".", 2)
    if part == "encoder.convolutions":
        return f"_encoder.rgb.{PIXEL_LAYERS[int(place)]}.{field}"
    prefix = next(official for official, own in PARTS.items() if own == part)
    return f"{prefix}.{place}.{next(official for official, own in FIELDS.items() if own == field)}"


Tasks = str | Sequence[str] | None
"""Name of a published task set, names of the tasks in the order of their index, or None."""


@dataclass(frozen=True)
class OfficialFile:
    """What an official file holds: the model (CPU, evaluation mode), its layout, names of its tasks."""

    model: WorldModel
    layout: str
    tasks: tuple[str, ...]


def load_official(
    path: str | Path,
    tasks: Tasks = None,
    action_dims: Sequence[int] = (),
    simnorm_dim: int = 8,
    vmin: float = -10.0,
    vmax: float = 10.0,
    dropout: float = 0.01,
) -> WorldModel:
    """Build a `WorldModel` on the CPU, in evaluation mode, from an official checkpoint file.

    Args:
        path: a .pt file, a dict with key "model" or the bare state dict.
        tasks: for a file of several tasks, "mt30", "mt80" or the tasks' names in order. None takes mt30 for
            30 tasks and mt80 for 80. A first-release file does not hold the tasks' action dimensions: they
            come from these names.
        action_dims: real action entries per task, instead of names.
        simnorm_dim, vmin, vmax (symlog), dropout: what the file was trained with.

    Raises:
        UserError: the file cannot be read, has another layout, misses tensors, or does not fit the tasks.
    """
    settings = {"simnorm_dim": simnorm_dim, "vmin": vmin, "vmax": vmax, "dropout": dropout}
    return read_official(path, tasks, action_dims, **settings).model


def read_official(
    path: str | Path, tasks: Tasks = None, action_dims: Sequence[int] = (), **settings: float
) -> OfficialFile:
    """`load_official`, with the layout and the tasks' names beside the model."""
    raw = read_state_dict(Path(path))
    layout, state = to_current(raw, path)
    embedding = state.get("_task_emb.weight")
    names: tuple[str, ...] = ()
    real: tuple[int, ...] = ()
    if embedding is not None:
        count, size = _shape(state, "_task_emb.weight", 2, path)
        names = _task_names(tasks, count, path)
        real = _action_dims(raw.get("_action_masks"), names, tuple(action_dims), count, path)
    elif tasks is not None or action_dims:
        raise UserError(f"{path} holds a single task: leave tasks and action_dims out")
    config = _config(raw, state, {**settings, "action_dims": real}, path)
    return OfficialFile(build_model(config, to_package(state, path), str(path)), layout, names)


def _shape(state: Mapping[str, Tensor], key: str, ndim: int, path: str | Path) -> tuple[int, ...]:
    """Shape of a tensor that must be there with `ndim` dimensions, none of them empty."""
    if key not in state:
        raise UserError(f"{path} has no tensor {key!r}; download the file again")
    shape = tuple(state[key].shape)
    if len(shape) != ndim or 0 in shape:
        raise UserError(f"{path}: tensor {key!r} has shape {shape}, must have {ndim} dimensions")
    return shape


def _task_names(tasks: Tasks, count: int, path: str | Path) -> tuple[str, ...]:
    if tasks is None:
        return next((names for names in TASK_SETS.values() if len(names) == count), ())
    if isinstance(tasks, str):
        if tasks not in TASK_SETS:
            raise UserError(f"unknown task set {tasks!r}; give one of {', '.join(TASK_SETS)}, or task names")
        tasks = TASK_SETS[tasks]
    if len(tasks) != count:
        raise UserError(f"{path} holds {count} tasks, {len(tasks)} were named; give all names in order")
    return tuple(tasks)


def _action_dims(
    masks: Tensor | None, names: tuple[str, ...], given: tuple[int, ...], count: int, path: str | Path
) -> tuple[int, ...]:
    if masks is not None:
        if masks.ndim != 2 or len(masks) != count or not bool(((masks == 0) | (masks == 1)).all()):
            raise UserError(f"{path}: _action_masks must be ones and zeros of shape ({count}, actions)")
        return tuple(masks.sum(-1).long().tolist())
    if not given and names:
        known = {name: published_task(name) for name in names}
        unknown = [name for name, task in known.items() if task is None]
        if unknown:
            raise UserError(
                f"{path}: no action dimension is known for {', '.join(unknown)}; give action_dims"
            )
        return tuple(task.action_dim for task in known.values() if task is not None)
    if len(given) != count:
        raise UserError(
            f"{path} holds {count} tasks without their action dimensions: give tasks, or action_dims with "
            f"{count} entries, not {len(given)}"
        )
    return given


def _config(
    raw: Mapping[str, Tensor], state: Mapping[str, Tensor], values: Mapping[str, Any], path: str | Path
) -> WorldModelConfig:
    task_dim = _shape(state, "_task_emb.weight", 2, path)[1] if "_task_emb.weight" in state else 0
    heads, num_bins, mlp_dim = _shape(state, "_Qs.params.2.weight", 3, path)
    low, span = (_number(raw, name, path) for name in ("log_std_min", "log_std_dif"))
    log_std_min = -10.0 if low is None else low
    try:
        return WorldModelConfig(
            action_dim=_shape(state, "_pi.2.weight", 2, path)[0] // 2,
            latent_dim=_shape(state, "_dynamics.2.weight", 2, path)[0],
            mlp_dim=mlp_dim,
            num_q=heads,
            num_bins=num_bins,
            log_std_min=log_std_min,
            log_std_max=2.0 if span is None else log_std_min + span,
            episodic="_termination.2.weight" in state,
            task_dim=task_dim,
            **_encoder(state, task_dim, path),
            **values,
        )
    except ValueError as error:
        raise UserError(f"{path} does not describe a TD-MPC2 model: {error}") from None


def _encoder(state: Mapping[str, Tensor], task_dim: int, path: str | Path) -> dict[str, Any]:
    pixels = f"_encoder.rgb.{PIXEL_LAYERS[0]}.weight"
    if pixels in state:
        channels, inputs = _shape(state, pixels, 4, path)[:2]
        return {"obs_dim": inputs, "num_channels": channels, "obs_kind": "pixels"}
    if "_encoder.state.0.weight" not in state:
        raise UserError(f"{path} has no encoder: expected _encoder.state.0.weight or {pixels}")
    enc_dim, width = _shape(state, "_encoder.state.0.weight", 2, path)
    layers = {key.split(".")[2] for key in state if key.startswith("_encoder.state.")}
    return {"obs_dim": width - task_dim, "enc_dim": enc_dim, "num_enc_layers": len(layers)}


def _number(raw: Mapping[str, Tensor], name: str, path: str | Path) -> float | None:
    value = raw.get(name)
    if value is None:
        return None
    if value.numel() != 1 or not bool(value.isfinite()):
        raise UserError(f"{path}: {name} must be one finite number, has shape {tuple(value.shape)}")
    return float(value)
