"""Turns official checkpoint files into bundles, and models into official checkpoint files."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc2_core.checkpoint.bundle import Bundle
from tdmpc2_core.checkpoint.official import OfficialFile, Tasks, read_official, to_official
from tdmpc2_core.checkpoint.published_tasks import TASK_SETS, PublishedTask, published_task
from tdmpc2_core.errors import UserError
from tdmpc2_core.files import write_torch
from tdmpc2_core.learning.losses import discount_for
from tdmpc2_core.model.world_model import WorldModel
from tdmpc2_core.planning.planners import planner_preset

DEFAULT_LENGTH = 500
"""Decisions of an episode of DMControl, taken when nothing else is known."""


@dataclass(frozen=True)
class ImportOptions:
    """What a weights-only file does not say.

    task: published name of a single task, or of a task set. action_dims: per task, of an unknown task set.
    episode_length: decisions, which decide the discount. discount: instead of it. control_period: s per
    decision. planner: preset to plan with.
    """

    task: str | None = None
    action_dims: tuple[int, ...] = ()
    episode_length: int | None = None
    discount: float | None = None
    control_period: float | None = None
    planner: str = "large"


def import_official(path: str | Path, options: ImportOptions) -> tuple[Bundle, OfficialFile]:
    """Bundle with the weights of an official file, and what was read.

    Raises:
        UserError: see `load_official`; also an unknown task or planner, or sizes that are not the task's.
    """
    several: Tasks = options.task if options.task in TASK_SETS else None
    found = read_official(path, several, options.action_dims)
    config = found.model.config
    single = None if config.num_tasks else _single(options, found, path)
    lengths = [_length(name, options) for name in found.tasks]
    discount = options.discount or discount_for(
        options.episode_length or (single.episode_length if single else DEFAULT_LENGTH)
    )
    try:
        planner = planner_preset(options.planner, config.action_dim)
    except ValueError as error:
        raise UserError(f"import: {error}") from None
    bundle = Bundle(
        weights=found.model.state_dict(),
        model_config=config,
        planner=planner,
        discount=discount,
        control_period=options.control_period or (single and single.control_period) or 1.0,
        tasks=found.tasks or ((options.task,) if options.task and single else ()),
        task_discounts=() if options.discount else tuple(discount_for(length) for length in lengths),
        provenance={
            "imported_from": Path(path).name,
            "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
            "layout": found.layout,
        },
    )
    return bundle, found


def _single(options: ImportOptions, found: OfficialFile, path: str | Path) -> PublishedTask | None:
    """The published task of a single-task file, its sizes checked; None when no task was named."""
    if options.task is None:
        return None
    if options.task in TASK_SETS:
        raise UserError(f"{path} holds a single task, {options.task} is a set of several; leave --task out")
    task = published_task(options.task)
    if task is None:
        raise UserError(
            f"unknown task {options.task!r}; give a published name such as walker-walk, or leave it out "
            "and give the episode length"
        )
    config = found.model.config
    pixels = config.obs_kind == "pixels"
    sizes = (task.obs_dim if not pixels else config.obs_dim, task.action_dim)
    if (config.obs_dim, config.action_dim) != sizes:
        raise UserError(
            f"{path} has {config.obs_dim} observation and {config.action_dim} action entries, "
            f"{options.task} has {sizes[0]} and {sizes[1]}; give the task it was trained on"
        )
    return task


def _length(name: str, options: ImportOptions) -> int:
    task = published_task(name)
    return options.episode_length or (task.episode_length if task else DEFAULT_LENGTH)


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
        UserError: the file cannot be written, or the official code knows no such model.
    """
    target = Path(path)
    ranges = [name for name in ("reward_range", "value_range") if getattr(model.config, name)]
    if ranges:
        raise UserError(
            f"{target}: the official code has symlog bins alone, this model has a {ranges[0]}; "
            "train one without it, or export the policy prior with --format onnx"
        )
    if model.config.obs_dims and model.config.normalise_obs:
        raise UserError(
            f"{target}: the official code has no observation statistics of each task, which this model has; "
            "export it for one robot with --robot, or the policy prior with --format onnx"
        )
    if model.config.residual_dim:
        raise UserError(
            f"{target}: the official code knows no residual dynamics, which this model has; export a bundle "
            "that was fine-tuned with --mode dynamics, or the policy prior with --format onnx"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_torch(target, {"model": official_state_dict(model)})
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); give a writable path") from None


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
