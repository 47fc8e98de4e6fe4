"""Reads checkpoint files of the official TD-MPC2 code, in all layouts that were published.

Such a file holds weights only. Sizes are inferred from the shapes of the tensors; what shapes cannot tell
(SimNorm group length, value range, real action dimensions of the tasks in a first-release file) are arguments
with the published values as defaults. Files are opened with `weights_only=True`: no code in them is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tdmpc2_core.checkpoint.official_file import read_state_dict
from tdmpc2_core.checkpoint.official_layouts import PIXEL_LAYERS, to_current, to_package
from tdmpc2_core.checkpoint.published_tasks import TASK_SETS, published_task
from tdmpc2_core.errors import UserError
from tdmpc2_core.model.build import build_model
from tdmpc2_core.model.config import WorldModelConfig
from tdmpc2_core.model.world_model import WorldModel

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
    return read_official(path, tasks, action_dims, simnorm_dim, vmin, vmax, dropout).model


def read_official(
    path: str | Path,
    tasks: Tasks = None,
    action_dims: Sequence[int] = (),
    simnorm_dim: int = 8,
    vmin: float = -10.0,
    vmax: float = 10.0,
    dropout: float = 0.01,
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
    values = {"simnorm_dim": simnorm_dim, "vmin": vmin, "vmax": vmax, "dropout": dropout, "action_dims": real}
    config = _config(raw, state, values, path)
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
