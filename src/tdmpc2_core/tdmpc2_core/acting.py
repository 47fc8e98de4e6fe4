"""What an agent's decision consists of, and what it refuses to decide on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.errors import UserError
from tdmpc2_core.model.config import WorldModelConfig
from tdmpc2_core.planning import PlannerConfig, planner_preset
from tdmpc2_core.robots import Embodiment


class ObservationError(UserError):
    """The observation cannot be planned on: wrong shape, or an entry that is not finite."""


class PlanError(UserError):
    """The model gave an action that is not finite."""


@dataclass(frozen=True)
class ActResult:
    """One decision for B robots; float32 arrays, actions normalised to [-1, 1].

    Attributes:
        action: (B, A) what to do now.
        plan_mean: (B, A) first row of the planner's mean.
        plan_std: (B, A) first row of the planner's spread.
        value: (B,) predicted discounted return, reward units; NaN when a deadline left no time for one.
    """

    action: NDArray[np.float32]
    plan_mean: NDArray[np.float32]
    plan_std: NDArray[np.float32]
    value: NDArray[np.float32]


def check_observation(
    obs: NDArray[np.floating[Any]], config: WorldModelConfig, embodiment: Embodiment | None
) -> NDArray[np.float32]:
    """Observations (B, O) as contiguous float32.

    Raises:
        ObservationError: wrong shape, or a non-finite entry; the sentence names the entry and its term.
    """
    obs = np.ascontiguousarray(obs, dtype=np.float32)
    if config.obs_kind == "state" and (obs.ndim != 2 or obs.shape[1] != config.obs_dim):
        raise ObservationError(f"agent: obs has shape {obs.shape}, must be (robots, {config.obs_dim})")
    finite = np.isfinite(obs)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        term = "" if embodiment is None else f" ({_term(embodiment, where[-1])})"
        raise ObservationError(f"agent: observation entry {where[-1]}{term} is {obs[where]}, must be finite")
    return obs


def check_tasks(task: NDArray[np.int64] | None, robots: int, num_tasks: int) -> NDArray[np.int64] | None:
    """Task indices (B,) of a multi-task model, None for a model of one task.

    Raises:
        ObservationError: missing, of the wrong length, or not an index of a task.
    """
    if not num_tasks:
        return None
    if task is None:
        raise ObservationError(f"agent: the model has {num_tasks} tasks; give the task index of every robot")
    indices = np.asarray(task)
    if indices.shape != (robots,) or not np.issubdtype(indices.dtype, np.integer):
        raise ObservationError(
            f"agent: task is {indices.dtype} of shape {indices.shape}, must be integers ({robots},)"
        )
    if indices.min(initial=0) < 0 or indices.max(initial=0) >= num_tasks:
        raise ObservationError(f"agent: task is {indices.tolist()}, must lie in 0..{num_tasks - 1}")
    return indices.astype(np.int64)


def check_sizes(config: WorldModelConfig, embodiment: Embodiment | None) -> None:
    """Raises UserError when a model's observation or action length is not the robot's."""
    if embodiment is None:
        return
    sizes = (embodiment.observation_dim, embodiment.action_dim)
    if (config.obs_dim, config.action_dim) != sizes:
        raise UserError(
            f"agent: the model has {config.obs_dim} observation and {config.action_dim} action entries, "
            f"robot {embodiment.name!r} has {sizes[0]} and {sizes[1]}; they must agree"
        )


def _term(embodiment: Embodiment, entry: int) -> str:
    for block in embodiment.observation_layout:
        if block.start <= entry < block.stop:
            return block.name
    return "unknown term"


def planner_settings(planner: PlannerConfig | str, action_dim: int) -> PlannerConfig:
    """The settings themselves, or those of a preset. Raises UserError when no preset has that name."""
    if isinstance(planner, PlannerConfig):
        return planner
    try:
        return planner_preset(planner, action_dim)
    except ValueError as error:
        raise UserError(f"agent: {error}") from None
