"""`Plan`: the actions one planner call decided, answerable at any time. NumPy only; safe across threads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """

    actions: NDArray[np.float32]
    std: NDArray[np.float32]
    dt: float
    created: float
    value: float
    iterations: int
    ended_by: str

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
