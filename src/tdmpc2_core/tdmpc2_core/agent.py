"""`Agent`: what users hold. A world model, a planner and the robot they are for; numpy in, numpy out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .checkpoint.bundle import Bundle, load_bundle, save_bundle
from .checkpoint.robot_files import check_same_robot
from .errors import UserError
from .model.world_model import WorldModel
from .planning import Plan, PlanBatch, PlannerConfig, PolicyPlanner, make_planner, planner_preset
from .robots import Embodiment


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


class Agent:
    """Acts and plans with a world model. The model is shared, not copied: training it changes what the agent does.

    Args:
        model: the world model; it is moved to `device` when one is given.
        planner: settings, or a preset's name.
        discount: per-decision discount of predicted returns, in (0, 1].
        embodiment: the robot; None for environments that are no robot.
        control_period: s between decisions; taken from the embodiment when there is one, else 1.
        device: where to compute; None leaves the model where it is.
        seed: seed of every random number the agent draws.

    Raises:
        UserError: the model does not fit the robot, or a setting is out of range.
    """

    def __init__(
        self,
        model: WorldModel,
        planner: PlannerConfig | str = "tiny",
        discount: float = 0.99,
        embodiment: Embodiment | None = None,
        control_period: float | None = None,
        device: torch.device | str | None = None,
        seed: int = 0,
        tasks: Sequence[str] = (),
        measured: Sequence[Mapping[str, Any]] = (),
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0.0 < discount <= 1.0:
            raise UserError(f"agent: discount is {discount}, must be above 0 and at most 1")
        _check_sizes(model, embodiment)
        self.model = model if device is None else model.to(device)
        self.planner_config = _planner_config(planner, model.config.action_dim)
        self.discount = discount
        self.embodiment = embodiment
        self.control_period = control_period or (embodiment.control_period if embodiment else 1.0)
        self.tasks, self.measured, self.provenance = tuple(tasks), tuple(measured), dict(provenance or {})
        self.seed(seed)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.model.parameters()).device

    def seed(self, seed: int) -> None:
        """Start all random draws anew from `seed` and forget previous plans."""
        generator = torch.Generator(device=self.device).manual_seed(seed)
        self.planner = make_planner(self.model, self.planner_config, self.discount, generator)
        self._prior = PolicyPlanner(self.model, self.planner_config, self.discount, generator)

    def reset(self) -> None:
        """Forget the previous plans of all robots."""
        self.planner.reset()

    def fork(self, planner: PlannerConfig | str | None = None, seed: int = 0) -> Agent:
        """Another agent on the same model with its own planner state and random numbers, e.g. to evaluate."""
        return Agent(
            self.model,
            self.planner_config if planner is None else planner,
            self.discount,
            self.embodiment,
            self.control_period,
            seed=seed,
            tasks=self.tasks,
            measured=self.measured,
            provenance=self.provenance,
        )

    def observe(self, obs: NDArray[np.floating[Any]]) -> None:
        """Merge new observations (..., O) into the model's running statistics: each once, as it comes from a robot."""
        normaliser = self.model.normaliser
        training = normaliser.training
        normaliser.train()
        normaliser.update(torch.as_tensor(obs, dtype=torch.float32, device=self.device))
        normaliser.train(training)

    def act(
        self,
        obs: NDArray[np.floating[Any]],
        first: NDArray[np.bool_] | None = None,
        evaluate: bool = False,
        task: NDArray[np.int64] | None = None,
        deadline: float | None = None,
        use_prior: bool = False,
    ) -> ActResult:
        """Decide for B robots.

        Args:
            obs: (B, O) observations.
            first: (B,) True where an episode starts; None means nowhere.
            evaluate: False adds exploration.
            task: (B,) task indices of a multi-task model.
            deadline: instant of `time.monotonic()`, s, at which the best plan so far is taken.
            use_prior: act with the policy prior, whatever the planner.

        Raises:
            ObservationError: wrong shape or a non-finite entry.
            PlanError: the model gave a non-finite action.
        """
        batch = self._plan(obs, first, evaluate, task, deadline, use_prior)
        parts = (batch.action, batch.mean[:, 0], batch.std[:, 0], batch.value)
        return ActResult(*(part.cpu().numpy() for part in parts))

    def plan(
        self,
        obs: NDArray[np.floating[Any]],
        now: float,
        deadline: float | None = None,
        first: bool = False,
        evaluate: bool = True,
        task: int | None = None,
    ) -> Plan:
        """Plan for one robot from obs (O,). Row 0 is the chosen action, further rows are the mean plan.

        `now` is the time at which the plan starts, s, on the clock `Plan.action` will be asked with; `deadline` is an
        instant of `time.monotonic()`, s. Raises as `act`.
        """
        tasks = None if task is None else np.array([task])
        batch = self._plan(np.asarray(obs)[None], np.array([first]), evaluate, tasks, deadline)
        actions, std = batch.mean[0].cpu().numpy().copy(), batch.std[0].cpu().numpy()
        actions[0] = batch.action[0].cpu().numpy()
        return Plan(actions, std, self.control_period, now, float(batch.value[0]), batch.iterations, batch.ended_by)

    def _plan(
        self,
        obs: NDArray[np.floating[Any]],
        first: NDArray[np.bool_] | None,
        evaluate: bool,
        task: NDArray[np.int64] | None,
        deadline: float | None,
        use_prior: bool = False,
    ) -> PlanBatch:
        obs = self._checked(obs)
        robots, device = len(obs), self.device
        first = np.zeros(robots, dtype=bool) if first is None else np.asarray(first, dtype=bool)
        if first.shape != (robots,):
            raise ObservationError(f"agent: first has shape {first.shape}, must be ({robots},) as obs has {robots} rows")
        batch = (self._prior if use_prior else self.planner).plan(
            torch.from_numpy(obs).to(device),
            torch.from_numpy(first).to(device),
            evaluate,
            None if task is None else torch.as_tensor(task, device=device),
            deadline,
        )
        if not bool(torch.isfinite(batch.action).all() & torch.isfinite(batch.mean).all()):
            self.reset()
            raise PlanError("agent: the world model gave a non-finite action; its weights or the observation are off")
        return batch

    def _checked(self, obs: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        config = self.model.config
        obs = np.ascontiguousarray(obs, dtype=np.float32)
        if config.obs_kind == "state" and (obs.ndim != 2 or obs.shape[1] != config.obs_dim):
            raise ObservationError(f"agent: obs has shape {obs.shape}, must be (robots, {config.obs_dim})")
        finite = np.isfinite(obs)
        if not finite.all():
            where = tuple(int(i) for i in np.argwhere(~finite)[0])
            name = "" if self.embodiment is None else f" ({_term(self.embodiment, where[-1])})"
            raise ObservationError(f"agent: observation entry {where[-1]}{name} is {obs[where]}; all must be finite")
        return obs

    def save(
        self,
        path: str | os.PathLike[str],
        provenance: Mapping[str, Any] | None = None,
        measured: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Write a checkpoint bundle (see `checkpoint.bundle`), replacing an older bundle at `path`.

        `provenance`: command, steps, updates, wall_seconds, returns; `measured`: rows of planner settings and returns.
        """
        bundle = Bundle(
            weights=self.model.state_dict(),
            model_config=self.model.config,
            planner=self.planner_config,
            discount=self.discount,
            control_period=self.control_period,
            embodiment=self.embodiment,
            tasks=self.tasks,
            measured=tuple(self.measured if measured is None else measured),
            provenance=dict(self.provenance if provenance is None else provenance),
        )
        save_bundle(path, bundle)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        device: torch.device | str = "cpu",
        embodiment: Embodiment | None = None,
        planner: PlannerConfig | str | None = None,
        seed: int = 0,
    ) -> Agent:
        """Agent from a bundle. `embodiment`: the robot it shall drive; its own settings (safety, noise) then count.

        Raises:
            UserError: the bundle is missing, damaged, from a newer version, or was made for another robot.
        """
        bundle = load_bundle(path)
        if embodiment is not None and bundle.embodiment is not None:
            check_same_robot(path, bundle.embodiment, embodiment)
        return cls(
            bundle.build_model(),
            bundle.planner if planner is None else planner,
            bundle.discount,
            embodiment or bundle.embodiment,
            bundle.control_period,
            device,
            seed,
            bundle.tasks,
            bundle.measured,
            bundle.provenance,
        )


def _planner_config(planner: PlannerConfig | str, action_dim: int) -> PlannerConfig:
    if isinstance(planner, PlannerConfig):
        return replace(planner)
    try:
        return planner_preset(planner, action_dim)
    except ValueError as error:
        raise UserError(f"agent: {error}") from None


def _check_sizes(model: WorldModel, embodiment: Embodiment | None) -> None:
    config = model.config
    if embodiment is None or (config.obs_dim, config.action_dim) == (embodiment.observation_dim, embodiment.action_dim):
        return
    raise UserError(
        f"agent: the model has {config.obs_dim} observation and {config.action_dim} action entries, robot "
        f"{embodiment.name!r} has {embodiment.observation_dim} and {embodiment.action_dim}; they must agree"
    )


def _term(embodiment: Embodiment, entry: int) -> str:
    for block in embodiment.observation_layout:
        if block.start <= entry < block.stop:
            return block.name
    return "unknown term"
