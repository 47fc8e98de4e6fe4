"""SafetyFilter: the last step before joint targets leave the suite. It never raises.

Stages, in order:
  finite    a target that is not a finite number is replaced by the last safe one;
  position  targets stay inside the joint limits less `position_margin`;
  rate      targets change by at most `max_target_rate` * dt from the last safe ones;
  effort    kp * |target - position| stays below `max_effort_fraction` * effort, as far as the others allow.
Position and rate limits hold for every output, whatever the input.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.robots.embodiment import Embodiment

Array = NDArray[np.float64]

STAGES = ("finite", "position", "rate", "effort")
MAX_PERIODS = 2.0
"""A longer dt counts as this many control periods, so that a pause does not license a jump."""


class SafetyResult(NamedTuple):
    """Safe targets (J,), rad, and the names of the stages that changed them, in order."""

    targets: Array
    interventions: tuple[str, ...]


class SafetyFilter:
    """Holds the last safe targets of one robot. `counts` says how often each stage stepped in."""

    def __init__(self, embodiment: Embodiment) -> None:
        spec = embodiment.safety
        self._names = embodiment.joint_names
        self._lower = embodiment.lower + spec.position_margin
        self._upper = embodiment.upper - spec.position_margin
        self._rate = spec.max_target_rate
        self._max_dt = MAX_PERIODS * embodiment.control_period
        self._reach = spec.max_effort_fraction * embodiment.effort_limit / embodiment.kp
        self._default = embodiment.default_position
        self._last: Array | None = None
        self.counts: dict[str, int] = dict.fromkeys(STAGES, 0)

    def reset(self, position: ArrayLike) -> None:
        """Take the measured position (J,), within limits, as last safe targets; default where not finite."""
        self._last = self._start(position)

    @property
    def last(self) -> Array | None:
        """The last safe targets (J,), rad; None before the first reset or call."""
        return None if self._last is None else self._last.copy()

    def filter(self, targets: ArrayLike, position: ArrayLike, dt: float) -> SafetyResult:
        """Safe targets for requested ones (J,), measured position (J,) and time dt (s) since the last call.

        An input of the wrong shape or type counts as not finite. Where the position is not finite the effort
        stage does nothing. A dt that is not finite or not positive allows no change. Without a reset before
        it, the first call starts from the measured position.
        """
        last = self._start(position) if self._last is None else self._last
        measured, safe = self._numbers(position), self._numbers(targets)
        interventions = []

        bad = ~np.isfinite(safe)
        if bad.any():
            np.copyto(safe, last, where=bad)
            interventions.append("finite")

        step = self._rate * self._seconds(dt)
        low, high = np.maximum(self._lower, last - step), np.minimum(self._upper, last + step)
        reach_low, reach_high = measured - self._reach, measured + self._reach
        unknown = ~np.isfinite(measured)
        np.copyto(reach_low, low, where=unknown)
        np.copyto(reach_high, high, where=unknown)
        effort_low, effort_high = np.clip(reach_low, low, high), np.clip(reach_high, low, high)
        bounds = ((self._lower, self._upper), (low, high), (effort_low, effort_high))
        for stage, (floor, ceiling) in zip(STAGES[1:], bounds, strict=True):
            if (safe < floor).any() or (safe > ceiling).any():
                np.clip(safe, floor, ceiling, out=safe)
                interventions.append(stage)

        for stage in interventions:
            self.counts[stage] += 1
        self._last = safe
        return SafetyResult(safe.copy(), tuple(interventions))

    def limit(self, targets: Array, last: Array, position: Array, dt: float) -> Array:
        """What `filter` gives, for N robots at once: targets, last safe ones and positions (N, J)."""
        safe = np.where(np.isfinite(targets), targets, last)
        step = self._rate * self._seconds(dt)
        low, high = np.maximum(self._lower, last - step), np.minimum(self._upper, last + step)
        known = np.isfinite(position)
        effort_low = np.clip(np.where(known, position - self._reach, low), low, high)
        effort_high = np.clip(np.where(known, position + self._reach, high), low, high)
        for floor, ceiling in ((self._lower, self._upper), (low, high), (effort_low, effort_high)):
            safe = np.clip(safe, floor, ceiling)
        return safe

    def inside(self, position: Array) -> Array:
        """Positions (..., J) within the limits; default where not finite."""
        return np.clip(np.where(np.isfinite(position), position, self._default), self._lower, self._upper)

    def explain(self, requested: ArrayLike, result: SafetyResult) -> str:
        """One line for a log: the stages and each joint they changed; empty when nothing was changed."""
        if not result.interventions:
            return ""
        rows = zip(self._names, self._numbers(requested), result.targets, strict=True)
        changes = [
            f"{name} asked {asked:.3f}, sent {sent:.3f} rad" for name, asked, sent in rows if asked != sent
        ]
        return f"{', '.join(result.interventions)}: {'; '.join(changes)}"

    def _start(self, position: ArrayLike) -> Array:
        return self.inside(self._numbers(position))

    def _seconds(self, dt: float) -> float:
        try:
            seconds = float(dt)
        except (TypeError, ValueError, OverflowError):
            return 0.0
        return min(seconds, self._max_dt) if math.isfinite(seconds) and seconds > 0.0 else 0.0

    def _numbers(self, values: ArrayLike) -> Array:
        """A private float64 (J,) copy; all NaN when `values` is anything else."""
        try:
            result = np.array(values, dtype=np.float64)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            return np.full(self._lower.shape, np.nan)
        return result if result.shape == self._lower.shape else np.full(self._lower.shape, np.nan)
