"""Turns an official checkpoint file into a bundle: weights from the file, the rest from what is published."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tdmpc2_core.checkpoint.bundle import Bundle
from tdmpc2_core.checkpoint.official import OfficialFile, Tasks, read_official
from tdmpc2_core.checkpoint.published_tasks import TASK_SETS, PublishedTask, published_task
from tdmpc2_core.errors import UserError
from tdmpc2_core.learning.returns import discount_for
from tdmpc2_core.planning.config import planner_preset

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
