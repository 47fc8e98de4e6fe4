"""`Agent`: what users hold. A world model, a planner and the robot they are for; numpy in, numpy out."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdmpc2_core.checkpoint.bundle import Bundle, body_of, check_same_robot, load_bundle, save_bundle
from tdmpc2_core.checkpoint.trust_calibration import TrustCalibration
from tdmpc2_core.errors import UserError
from tdmpc2_core.model.architecture import WorldModelConfig
from tdmpc2_core.model.one_task import one_task
from tdmpc2_core.model.world_model import WorldModel, build_model
from tdmpc2_core.planning import Plan, PlanBatch, PlannerConfig, PolicyPlanner, make_planner, planner_preset
from tdmpc2_core.planning.costs import Costs, PlanCosts
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


__all__ = ["ActResult", "Agent", "ObservationError", "PlanError"]


class Agent:
    """Acts and plans with a world model. The model is shared, not copied: training it changes the agent.

    Args:
        model: the world model; it is moved to `device` when one is given.
        planner: settings, or a preset's name.
        discount: per-decision discount of predicted returns, in (0, 1].
        embodiment: the robot; None for environments that are no robot.
        control_period: s between decisions; taken from the embodiment when there is one, else 1.
        device: where to compute; None leaves the model where it is.
        seed: seed of every random number the agent draws.
        tasks: names of a multi-task model's tasks, in order of their index.
        task_discounts: the discount of each, in the same order.
        trust: where trust in the model ends; None where it was not calibrated.
        bodies: the robots that a model of several drives, each the task of its name; see `driving`.

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
        task_discounts: Sequence[float] = (),
        trust: TrustCalibration | None = None,
        bodies: Sequence[Embodiment] = (),
    ) -> None:
        if not 0.0 < discount <= 1.0:
            raise UserError(f"agent: discount is {discount}, must be above 0 and at most 1")
        check_sizes(model.config, embodiment)
        self.model = model if device is None else model.to(device)
        self.planner_config = planner_settings(planner, model.config.action_dim)
        self.discount = discount
        self.embodiment = embodiment
        self.control_period = control_period or (embodiment.control_period if embodiment else 1.0)
        self.task_discounts, self.bodies = tuple(task_discounts), tuple(bodies)
        self.tasks, self.measured, self.provenance = tuple(tasks), tuple(measured), dict(provenance or {})
        self.trust = trust
        self.seed(seed)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.model.parameters()).device

    def seed(self, seed: int) -> None:
        """Start all random draws anew from `seed` and forget previous plans."""
        generator = torch.Generator(device=self.device).manual_seed(seed)
        discount = self.task_discounts or self.discount
        self.planner = make_planner(self.model, self.planner_config, discount, generator)
        if self.planner_config.costs != Costs():
            self.set_costs(self.planner_config.costs)
        self._prior = PolicyPlanner(self.model, self.planner_config, discount, generator)

    def set_costs(self, costs: Costs) -> None:
        """Weigh these wishes against the return from the next plan on; a new seed and forks keep them.

        Raises:
            UserError: the agent has no robot, its model does not tell what a term reads, or its planner knows
                no costs.
        """
        if self.embodiment is None:
            raise UserError("agent: costs at plan time are those of robots; this agent has none")
        wishes = PlanCosts(costs, self.model, self.embodiment)
        self.planner.set_costs(wishes if wishes.active else None)
        self.planner_config = replace(self.planner_config, costs=costs)

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
            task_discounts=self.task_discounts,
            trust=self.trust,
            bodies=self.bodies,
        )

    def with_model(self, model: WorldModel, seed: int = 0) -> Agent:
        """Another agent of the same robots, tasks and planner settings on another model of the same sizes."""
        return Agent(
            model,
            self.planner_config,
            self.discount,
            self.embodiment,
            self.control_period,
            seed=seed,
            tasks=self.tasks,
            provenance=self.provenance,
            task_discounts=self.task_discounts,
            bodies=self.bodies,
        )

    def driving(self, robot: Embodiment | None, where: str | os.PathLike[str], seed: int = 0) -> Agent:
        """The agent for one of its bodies.

        The one place where a body is selected: what comes out has the robot's own observation and action,
        its share of the model (`model.one_task`) and no task, as any agent of one robot. Its weights are
        copies. where: begins the sentence of an error.

        Raises:
            UserError: none is given, or none of the bodies is this robot.
        """
        body = body_of(where, self.bodies, robot)
        task = self.tasks.index(body.name)
        config, weights = one_task(self.model.config, self.model.state_dict(), task)
        return Agent(
            build_model(config, weights, str(where)),
            self.planner_config,
            self.task_discounts[task] if self.task_discounts else self.discount,
            robot or body,
            device=self.device,
            seed=seed,
            measured=[row for row in self.measured if row.get("robot", body.name) == body.name],
            provenance=self.provenance,
        )

    def check_sizes(self, observation: int, action: int, where: str) -> None:
        """Raises UserError: recorded observations or actions, read from `where`, have other sizes."""
        config = self.model.config
        if (observation, action) != (config.obs_dim, config.action_dim):
            raise UserError(
                f"{where} has {observation} observation and {action} action entries, the bundle "
                f"{config.obs_dim} and {config.action_dim}; use what the same robot recorded"
            )

    def observe(self, obs: NDArray[np.floating[Any]] | Tensor, task: Tensor | None = None) -> None:
        """Merge observations (..., O) into the model's statistics; give each one once, as a robot gave it.

        task (B,): of obs (..., B, O), for a model in which every task has statistics of its own.
        """
        normaliser = self.model.normaliser
        training = normaliser.training
        normaliser.train()
        normaliser.update(torch.as_tensor(obs, dtype=torch.float32, device=self.device), task)
        normaliser.train(training)

    def act(
        self,
        obs: NDArray[np.floating[Any]],
        first: NDArray[np.bool_] | None = None,
        evaluate: bool = False,
        task: NDArray[np.int64] | None = None,
        deadline: float | None = None,
        use_prior: bool = False,
        in_flight: NDArray[np.float32] | None = None,
    ) -> ActResult:
        """Decide for B robots.

        Args:
            obs: (B, O) observations.
            first: (B,) True where an episode starts; None means nowhere.
            evaluate: False adds exploration.
            task: (B,) task indices of a multi-task model.
            deadline: instant of `time.monotonic()`, s, by which the best plan so far is returned; one that
                has passed gives the prior's actions at once (see `Planner.plan`).
            use_prior: act with the policy prior, whatever the planner.
            in_flight: (D, B, A) actions sent before, oldest first, that act before what is decided.

        Raises:
            ObservationError: wrong shape or a non-finite entry.
            UserError: the deadline is NaN.
            PlanError: the model gave a non-finite action.
        """
        batch = self._plan(obs, first, evaluate, task, deadline, use_prior, in_flight)
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
        use_prior: bool = False,
        in_flight: NDArray[np.float32] | None = None,
    ) -> Plan:
        """Plan for one robot from obs (O,). Row 0 is the chosen action, further rows are the mean plan.

        `now` is the time at which the plan starts, s, on the clock of `Plan.action`; `deadline`
        is an instant of `time.monotonic()`, s; `use_prior` asks the policy prior alone;
        `in_flight` (D, A) are actions sent before, oldest first, that act before row 0. Raises as `act`.
        """
        tasks = None if task is None else np.array([task])
        flying = None if in_flight is None else in_flight[:, None]
        first_of = np.array([first])
        batch = self._plan(np.asarray(obs)[None], first_of, evaluate, tasks, deadline, use_prior, flying)
        mean, std = batch.mean[0].cpu().numpy().copy(), batch.std[0].cpu().numpy()
        actions = mean.copy()
        actions[0] = batch.action[0].cpu().numpy()
        value, dt = float(batch.value[0]), self.control_period
        return Plan(actions, std, dt, now, value, batch.iterations, batch.ended_by, mean)

    def _plan(
        self,
        obs: NDArray[np.floating[Any]],
        first: NDArray[np.bool_] | None,
        evaluate: bool,
        task: NDArray[np.int64] | None,
        deadline: float | None,
        use_prior: bool = False,
        in_flight: NDArray[np.float32] | None = None,
    ) -> PlanBatch:
        obs = check_observation(obs, self.model.config, self.embodiment)
        robots, device = len(obs), self.device
        first = np.zeros(robots, dtype=bool) if first is None else np.asarray(first, dtype=bool)
        if first.shape != (robots,):
            raise ObservationError(f"agent: first has shape {first.shape}, must be ({robots},)")
        if deadline is not None and math.isnan(deadline):
            raise UserError("agent: deadline is nan, must be an instant of time.monotonic() in s, or None")
        tasks = check_tasks(task, robots, self.model.config.num_tasks)
        batch = (self._prior if use_prior else self.planner).plan(
            torch.from_numpy(obs).to(device),
            torch.from_numpy(first).to(device),
            evaluate,
            None if tasks is None else torch.from_numpy(tasks).to(device),
            deadline,
            in_flight=None if in_flight is None else torch.from_numpy(in_flight).to(device),
        )
        if not bool(torch.isfinite(batch.action).all() & torch.isfinite(batch.mean).all()):
            self.reset()
            raise PlanError("agent: the world model gave a non-finite action; its weights are not usable")
        return batch

    def save(
        self,
        path: str | os.PathLike[str],
        provenance: Mapping[str, Any] | None = None,
        measured: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Write a checkpoint bundle (see `checkpoint.bundle`), replacing an older bundle at `path`.

        `provenance`: command, steps, updates, wall_seconds, returns; `measured`: rows of planner settings
        with their returns. Left out, those the agent was loaded with are kept.
        """
        bundle = Bundle(
            weights=self.model.state_dict(),
            model_config=self.model.config,
            planner=self.planner_config,
            discount=self.discount,
            control_period=self.control_period,
            embodiment=self.embodiment,
            tasks=self.tasks,
            task_discounts=self.task_discounts,
            measured=tuple(self.measured if measured is None else measured),
            provenance=dict(self.provenance if provenance is None else provenance),
            trust=self.trust,
            bodies=self.bodies,
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
        """Agent from a bundle, for one robot or for the bundle's tasks.

        embodiment: the robot it shall drive; its safety settings then count. A bundle of several robots needs
        it and gives the agent of this one.

        Raises:
            UserError: the bundle is missing, damaged, from a newer version, was made for another robot, or
                drives several and none is named.
        """
        bundle = load_bundle(path)
        if bundle.bodies:
            return cls.of_bundle(bundle, device, planner, seed).driving(embodiment, path, seed)
        if embodiment is not None and bundle.embodiment is not None:
            check_same_robot(path, bundle.embodiment, embodiment)
        driven = replace(bundle, embodiment=embodiment or bundle.embodiment)
        return cls.of_bundle(driven, device, planner, seed)

    @classmethod
    def of_bundle(
        cls,
        bundle: Bundle,
        device: torch.device | str = "cpu",
        planner: PlannerConfig | str | None = None,
        seed: int = 0,
    ) -> Agent:
        """Agent of all that a bundle knows: several robots remain tasks of one model, to go on learning."""
        return cls(
            bundle.build_model(),
            bundle.planner if planner is None else planner,
            bundle.discount,
            bundle.embodiment,
            bundle.control_period,
            device,
            seed,
            bundle.tasks,
            bundle.measured,
            bundle.provenance,
            bundle.task_discounts,
            bundle.trust,
            bundle.bodies,
        )
