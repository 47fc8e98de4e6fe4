"""What every planner takes and gives back: `Planner`, `PlanBatch`, `PlanDraws`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor


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
        gather: `heads` lie on the model's device and are not read on the host (`planning.graph`).
    """

    prior: Tensor
    samples: Tensor
    terminal: Tensor
    heads: Tensor
    elite: Tensor | None = None
    final: Tensor | None = None
    shifts: Tensor | None = None
    gather: bool = False

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


class Planner(Protocol):
    """A planner for B robots at once. It keeps what it carries from call to call per robot."""

    def plan(
        self,
        obs: Tensor,
        first: Tensor,
        evaluate: bool,
        task: Tensor | None = None,
        deadline: float | None = None,
        draws: PlanDraws | None = None,
    ) -> PlanBatch:
        """Decide for obs (B, O). `first` (B,) bool marks robots whose episode starts afresh.

        `deadline` is an instant of `time.monotonic()` (s). An iteration starts only when, judged by earlier
        ones, it ends in time (see `IterationClock`); then the best plan so far is returned. So a plan is late
        by less than one iteration, and only when that took longer than expected. A deadline that has passed
        already gives what the planner has without an iteration, at once: actions of the policy prior,
        iterations 0, value NaN, ended_by `deadline`.
        """
        ...

    def reset(self) -> None:
        """Forget everything carried over, for all robots."""
        ...
