"""What every planner takes and gives back: `Planner`, `PlanBatch`, `PlanDraws`; and `Plan`, one robot's."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdmpc2_core.errors import UserError

if TYPE_CHECKING:
    from tdmpc2_core.imagine.compiled import CompiledModel
    from tdmpc2_core.imagine.rollout import Discount
    from tdmpc2_core.model.world_model import WorldModel
    from tdmpc2_core.planning.planners import PlannerConfig

ENDED_BY = ("converged", "budget", "deadline", "policy", "hold")


@dataclass(frozen=True)
class Plan:
    """A horizon of H normalised actions, valid from `created` on.

    Row k of `actions` holds during [created + k*dt, created + (k+1)*dt); the last row holds ever after.

    Attributes:
        actions: (H, A) normalised actions in [-1, 1]. Row 0 is the chosen action, further rows the mean plan.
        std: (H, A) spread of the planner's Gaussian, normalised action units.
        dt: control period, s.
        created: time at which row 0 starts, s, on the clock that `action` is asked with.
        value: predicted discounted return of the plan, reward units; NaN where the planner has none.
        iterations: iterations of the planner that were completed.
        ended_by: why planning stopped: converged | budget | deadline | policy | hold.
        mean: (H, A) mean plan, row 0 included; None where it is not known.
    """

    actions: NDArray[np.float32]
    std: NDArray[np.float32]
    dt: float
    created: float
    value: float
    iterations: int
    ended_by: str
    mean: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.actions.ndim != 2 or self.actions.shape[0] < 1:
            raise ValueError(f"plan: actions must have shape (H, A) with H >= 1, got {self.actions.shape}")
        if self.std.shape != self.actions.shape:
            raise ValueError(f"plan: std has shape {self.std.shape}, must be {self.actions.shape}")
        if not np.isfinite(self.actions).all():
            raise ValueError("plan: actions hold a non-finite number")
        if not (self.dt > 0 and math.isfinite(self.dt) and math.isfinite(self.created)):
            raise ValueError(
                f"plan: dt is {self.dt} s and created {self.created}, must be above 0 and finite"
            )
        if self.ended_by not in ENDED_BY:
            raise ValueError(f"plan: ended_by is {self.ended_by!r}, must be one of {', '.join(ENDED_BY)}")

    @property
    def horizon(self) -> int:
        """Number of rows H."""
        return int(self.actions.shape[0])

    @property
    def end(self) -> float:
        """Time at which the last planned row runs out, s (it is held afterwards)."""
        return self.created + self.horizon * self.dt

    def index(self, t: float) -> int:
        """Row that holds at time `t` (s): 0 before the plan starts, H-1 after it ended.

        Raises:
            ValueError: `t` is NaN.
        """
        if math.isnan(t):
            raise ValueError("plan: asked for the action at time NaN")
        steps = (t - self.created) / self.dt + 1e-4  # slack: created + k*dt must not round down to row k-1
        return int(min(max(steps, 0.0), self.horizon - 1))

    def action(self, t: float) -> NDArray[np.float32]:
        """Action (A,) at time `t` (s): zero-order hold within the horizon, the last row after it. A copy.

        Raises:
            ValueError: `t` is NaN.
        """
        return self.actions[self.index(t)].copy()


@dataclass(frozen=True)
class PlanBatch:
    """Result of one planner call for B robots; tensors on the model's device.

    Attributes:
        action: (B, A) chosen action in [-1, 1], exploration noise included when not evaluating.
        mean: (B, H, A) mean plan of the last iteration.
        std: (B, H, A) spread of the last iteration, normalised action units.
        value: (B,) predicted discounted return of the plan, reward units.
        iterations: iterations that were completed.
        ended_by: converged | budget | deadline | policy.
        trace: per completed iteration the values (B, N) of all candidates; an ascent adds its starts.
    """

    action: Tensor
    mean: Tensor
    std: Tensor
    value: Tensor
    iterations: int
    ended_by: str
    trace: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class PlanDraws:
    """Every random number of one MPPI call, to repeat a recorded one. N = num_samples, P = num_pi_trajs.

    Attributes:
        prior: (H, B, P, A) policy noise of the policy trajectories.
        samples: (I, H, B, N-P, A) candidate noise.
        terminal: (I, B, N, A) policy noise of the terminal action.
        heads: (I, 2) value heads that are averaged; read on the host.
        elite: (B, K) unit exponentials, one per elite in order of falling value; None when the mean is taken.
        final: (B, A) exploration noise; None when evaluating.
        shifts: (B, 2) int64, where the images are cut out (`model.encoder.shift`); None without augmentation.
    """

    prior: Tensor
    samples: Tensor
    terminal: Tensor
    heads: Tensor
    elite: Tensor | None = None
    final: Tensor | None = None
    shifts: Tensor | None = None

    def to(self, reference: Tensor) -> PlanDraws:
        """Same draws on the device and in the precision of `reference`; `heads` stay on the host."""
        return replace(
            self,
            prior=self.prior.to(reference),
            samples=self.samples.to(reference),
            terminal=self.terminal.to(reference),
            elite=None if self.elite is None else self.elite.to(reference),
            final=None if self.final is None else self.final.to(reference),
            shifts=None if self.shifts is None else self.shifts.to(reference.device),
        )


class PlanRequest(NamedTuple):
    """The arguments of `Planner.plan`."""

    obs: Tensor
    first: Tensor
    evaluate: bool
    task: Tensor | None = None
    deadline: float | None = None
    draws: PlanDraws | None = None
    in_flight: Tensor | None = None


def ahead(model: WorldModel | CompiledModel, latent: Tensor, request: PlanRequest) -> Tensor:
    """Latents (B, L) once the actions in flight have acted, foretold from those observed."""
    if request.in_flight is not None:
        for action in request.in_flight:
            latent = model.next(latent, action, request.task)
    return latent


class Planner(ABC):
    """A planner for B robots at once. It keeps what it carries from call to call per robot.

    A kind of planner is a subclass and its row in `planning.registry`.

    Args:
        model: world model; its present weights are used at every call, also while it is being trained.
        config: planner settings.
        discount: per-decision discount of predicted returns, one for all or one per task.
        generator: source of every random number, on the model's device.
    """

    summary: ClassVar[str]
    """What it does, in one line, for help texts and docs."""

    def __init__(
        self, model: WorldModel, config: PlannerConfig, discount: Discount, generator: torch.Generator
    ) -> None:
        self.model = model
        self.config = config
        self.discount = discount
        self.generator = generator

    @classmethod
    @abstractmethod
    def budget(cls, config: PlannerConfig) -> str:
        """Method and budget of these settings in a few words, such as `mppi 96 samples x 2`."""

    @classmethod
    @abstractmethod
    def cheaper(cls, config: PlannerConfig) -> PlannerConfig | None:
        """The next cheaper settings; None when only the policy prior is cheaper."""

    @torch.inference_mode()
    def plan(
        self,
        obs: Tensor,
        first: Tensor,
        evaluate: bool,
        task: Tensor | None = None,
        deadline: float | None = None,
        draws: PlanDraws | None = None,
        in_flight: Tensor | None = None,
    ) -> PlanBatch:
        """Decide for obs (B, O). `first` (B,) bool marks robots whose episode starts afresh.

        `in_flight` (D, B, A): actions that were sent and act between this observation and what is decided,
        oldest first; the plan begins after them.

        `deadline` is an instant of `time.monotonic()` (s). An iteration starts only when, judged by earlier
        ones, it ends in time (see `IterationClock`); then the best plan so far is returned. So a plan is late
        by less than one iteration, and only when that took longer than expected. A deadline that has passed
        already gives what the planner has without an iteration, at once: actions of the policy prior,
        iterations 0, value NaN, ended_by `deadline`.
        """
        return self._plan(PlanRequest(obs, first, evaluate, task, deadline, draws, in_flight))

    @abstractmethod
    def _plan(self, request: PlanRequest) -> PlanBatch:
        """What `plan` does, without gradients."""

    def set_costs(self, costs: Callable[[Tensor, Tensor], Tensor] | None) -> None:
        """Take these, or nothing, off the predicted returns from the next plan on, see `ModelRollout.costs`.

        Raises UserError where the planner cannot.
        """
        raise UserError(f"planner {self.config.method!r}: has no costs at plan time; plan with mppi")

    def reset(self) -> None:  # noqa: B027  # most planners carry nothing
        """Forget everything carried over, for all robots."""
