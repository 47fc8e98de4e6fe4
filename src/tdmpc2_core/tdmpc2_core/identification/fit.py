"""Gauss-Newton over a robot's parameters and the starts of all segments at once.

Every segment has a start that is only measured; to first order its best correction is eliminated, so that
what noise did to the start is not taken for a property of the robot. Residuals are in units of sensor noise;
those far off (a foot that touched earlier than foreseen) count by Huber's weights. Intervals come from a
bootstrap over segments.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.config import closest, setting
from tdmpc2_core.errors import UserError
from tdmpc2_core.identification.parameters import MAX_DELAY, Parameter, parameters, plant_of
from tdmpc2_core.identification.replay import HEIGHT, Replay
from tdmpc2_core.identification.segments import Segments, cut, stored_episodes
from tdmpc2_core.robots.embodiment import Embodiment

Array = NDArray[np.float64]
_HUBER = 3.0  # standard deviations from which a residual counts linearly
_WORST = 0.25  # share of segments that are left out, those that are foreseen worst: pushes, hands, stairs
_CAUTION = 2.0  # intervals are so much wider than drawn: starts are corrected to first order only
_SPAN = 0.5  # share of its range from which a parameter's interval says nothing
_HELD_OUT = 5  # every so many-th segment
_GAIN = 20.0  # improvement of the cost, per its mean, at which a far value is believed
_DRAWS = 400  # of the bootstrap
_DEPTHS = (0.0015, 0.0, 0.0035, 0.006, 0.009, 0.013)  # m that the lowest foot may be inside the ground


@dataclass(frozen=True)
class IdentifyConfig:
    """Settings of `tdmpc2 identify`."""

    seconds: float = setting(0.1, unit="s", above=0, why="length of a segment that is replayed open loop")
    segments: int = setting(250, low=10, why="most segments, a fifth of them held out")
    iterations: int = setting(6, low=1, why="of Gauss-Newton")
    joint_gains: bool = setting(False, why="a factor on kp and kd for every joint instead of one for all")
    threads: int | None = setting(None, low=1, why="that step physics side by side; all cores if absent")
    seed: int = setting(0, low=0, why="of the bootstrap")
    only: str = setting("", why="kinds that are looked for, such as friction,mass; all if empty")


@dataclass(frozen=True)
class Found:
    """A parameter: estimate, 95 % interval, and whether the data say anything of it."""

    parameter: Parameter
    estimate: float
    low: float
    high: float
    identifiable: bool

    @property
    def value(self) -> float:
        """The estimate, or the nominal where there is none."""
        return self.estimate if self.identifiable else self.parameter.nominal


@dataclass(frozen=True)
class Identification:
    """What the data say of a robot.

    Attributes:
        found: one entry per parameter.
        before, after: root mean square error of held-out predictions, in units of sensor noise, per quantity
            and in `all`, with the nominal and with the identified robot; starts as corrected, see `Replay`.
        segments, held_out: how many the fit and the errors are from.
        seconds: length of each.
    """

    found: tuple[Found, ...]
    before: dict[str, float]
    after: dict[str, float]
    segments: int
    held_out: int
    seconds: float

    def values(self) -> Array:
        """Identified values (P,), nominal ones where the data say nothing."""
        return np.array([one.value for one in self.found])


def identify(
    robot: Embodiment,
    stores: Sequence[Path],
    config: IdentifyConfig | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Identification:
    """Fit a robot's parameters to its recorded episodes.

    Raises:
        UserError: the episodes lack raw arrays, are of another robot or hold no usable segment.
    """
    settings = config or IdentifyConfig()
    data = cut(stored_episodes(stores), robot, settings.seconds, MAX_DELAY, settings.segments)
    held = np.arange(len(data)) % _HELD_OUT == _HELD_OUT - 1 if len(data) >= _HELD_OUT else np.arange(2) == 1
    threads = settings.threads or os.cpu_count() or 1
    fit = _Fit(robot, data.take(np.flatnonzero(~held)), settings, threads)
    say(f"{len(fit.replay.segments)} segments of {settings.seconds:g} s, {len(fit.rows)} parameters")
    values = fit.run(say)
    found = fit.intervals(values)
    check = _Fit(robot, data.take(np.flatnonzero(held)), settings, threads)
    nominal = np.array([row.nominal for row in fit.rows])
    identified = np.array([one.value for one in found])
    return Identification(
        found, check.errors(nominal), check.errors(identified), int((~held).sum()), int(held.sum()),
        settings.seconds,
    )  # fmt: skip


@dataclass
class _Linear:
    """The problem around one point, starts eliminated; an axis of S segments in front.

    `hessian` (S, P, P), `gradient` (S, P) and `cost` (S,) are of the parameters; `back` (S, N, P) and `start`
    (S, N) give the starts' corrections to their change.
    """

    hessian: Array
    gradient: Array
    cost: Array
    back: NDArray[Any]
    start: Array


class _Fit:
    def __init__(self, robot: Embodiment, data: Segments, settings: IdentifyConfig, threads: int) -> None:
        self.robot, self.settings = robot, settings
        self.replay = Replay(robot, data, threads)
        rows = parameters(robot, self.replay.own_friction, settings.joint_gains)
        self.rows = _chosen(rows, settings.only)
        self.measured = self.replay.measured()
        self.low = np.array([row.low for row in self.rows])
        self.high = np.array([row.high for row in self.rows])
        self.nominal = np.array([row.nominal for row in self.rows])
        self.prior = 1.0 / (self.high - self.low) ** 2  # weak: it decides where the data say nothing
        self.starts = np.zeros(self.replay.start_noise.shape)
        self.by_starts: Array | None = None  # (S, M, N), effect of the starts
        self.weight = np.ones(len(data))

    # ---- the whole fit ----
    def run(self, say: Callable[[str], None]) -> Array:
        """Values (P,) that foresee the segments best."""
        values = self.nominal.copy()
        self._settle(values)
        self._correct_starts(values, 2)
        values = self._scan(values, [i for i, row in enumerate(self.rows) if row.joint is None])
        values, damping = self._descend(values, self.settings.iterations // 2, 1e-2, say)
        values = self._scan(values, [i for i, row in enumerate(self.rows) if row.kind == "effort"])
        values, _ = self._descend(values, self.settings.iterations, damping, say)
        return values

    def _descend(
        self, values: Array, iterations: int, damping: float, say: Callable[[str], None]
    ) -> tuple[Array, float]:
        for _ in range(iterations):
            self.by_starts = self._start_effects(values)
            linear = self._linearise(values)
            self._leave_out(linear.cost)
            cost, starts = self._total(self._cost(values), values), self.starts
            for _ in range(4):
                trial = np.clip(values + self._change(linear, values, damping), self.low, self.high)
                self._correct(starts, linear.start + linear.back @ (trial - values), trial)
                trial_cost = self._total(self._cost(trial), trial)
                if trial_cost < cost:
                    break
                damping *= 5.0
            else:
                self._correct(starts, linear.start, values)
                break
            moved = np.abs(trial - values) / (self.high - self.low)
            values, damping = trial, max(0.2 * damping, 1e-6)
            say(f"error {np.sqrt(trial_cost / self._count()):.3f} sigma")
            if moved.max() < 2e-3:
                break
        return values, damping

    def _settle(self, values: Array) -> None:
        """Begin with each base as deep as foresees its segment best: landing feet press into soft ground."""
        if not self.replay.floating:
            return
        best, starts = np.full(len(self.starts), np.inf), self.starts
        for depth in _DEPTHS:
            trial = starts.copy()
            trial[:, HEIGHT] = -depth
            cost = _huber_cost(self._residual(values, trial))
            better = cost < best
            best = np.where(better, cost, best)
            self.starts = np.where(better[:, None], trial, self.starts)

    def _correct_starts(self, values: Array, times: int) -> None:
        """Starts that suit these values."""
        for _ in range(times):
            self.by_starts = self._start_effects(values)
            self._correct(self.starts, self._profile(values).start, values)

    def _correct(self, starts: Array, change: Array, values: Array) -> None:
        """Correct every start by the share of its change that foresees its own segment best."""
        best, self.starts = np.full(len(starts), np.inf), starts
        for share in (1.0, 0.5, 0.2, 0.0):
            trial = starts + share * change
            cost = self._cost(values, trial)
            better = cost < best
            best = np.where(better, cost, best)
            self.starts = np.where(better[:, None], trial, self.starts)

    def _cost(self, values: Array, starts: Array | None = None) -> Array:
        """Costs (S,) at these values and starts."""
        corrections = self.starts if starts is None else starts
        misfit = (corrections / self.replay.start_noise) ** 2
        return _huber_cost(self._residual(values, corrections)) + misfit.sum(1)

    def _scan(self, values: Array, chosen: list[int]) -> Array:
        """The best of a few values of each parameter in turn: some have no effect nearby."""
        best = self._total(self._profile(values).cost, values)
        enough = _GAIN * best / self._count()  # of cost, in units of what residuals contribute by chance
        for index in chosen:
            row = self.rows[index]
            if row.kind in ("mass_x", "mass_y"):
                continue
            grid = (0.3, 0.45, 0.6, 0.8) if row.kind == "effort" else np.linspace(row.low, row.high, 7)[1:-1]
            for value in grid:
                trial = values.copy()
                trial[index] = value
                cost = self._total(self._profile(trial).cost, trial)
                if cost < best - enough:
                    best, values = cost, trial
        return values

    def intervals(self, values: Array) -> tuple[Found, ...]:
        """Estimates and 95 % intervals, by a bootstrap over segments of the linear problem at the optimum."""
        self.by_starts = self._start_effects(values)
        linear = self._linearise(values)
        rng = np.random.default_rng(self.settings.seed)
        kept = np.flatnonzero(self.weight)
        draws = np.empty((_DRAWS, len(values)))
        for draw in draws:
            rows = rng.choice(kept, len(kept))
            hessian = linear.hessian[rows].sum(0) + np.diag(self.prior)
            draw[:] = -np.linalg.solve(
                hessian, linear.gradient[rows].sum(0) + self.prior * (values - self.nominal)
            )
        spread = _CAUTION * np.maximum(draws.std(0), self._curvature(linear))
        found = []
        for row, value, deviation in zip(self.rows, values, spread, strict=True):
            low, high = max(value - 1.96 * deviation, row.low), min(value + 1.96 * deviation, row.high)
            says = high - low < _SPAN * (row.high - row.low)
            found.append(Found(row, float(value), float(low), float(high), bool(says)))
        return _whereabouts(tuple(found))

    def _curvature(self, linear: _Linear) -> Array:
        """Standard deviations (P,) that the curvature says, where residuals are as large as they are."""
        hessian = (self.weight[:, None, None] * linear.hessian).sum(0)
        size = max(1.0, (self.weight @ linear.cost) / self._count())
        return np.sqrt(np.diag(np.linalg.inv(hessian / size + np.diag(self.prior * 12.0))))

    def errors(self, values: Array) -> dict[str, float]:
        """Root mean square errors of all segments in units of sensor noise, starts corrected."""
        self.starts = np.zeros_like(self.starts)
        self._settle(values)
        self._correct_starts(values, 3)
        residual = self._residual(values)
        result = {name: _rms(residual[:, where]) for name, where in self.replay.channels().items()}
        return result | {"all": _rms(residual)}

    # ---- the problem around a point ----
    def _residual(self, values: Array, starts: Array | None = None) -> Array:
        plant, delay = plant_of(self.rows, values, self.robot.num_joints)
        if not any(row.kind == "delay" for row in self.rows):
            delay = 0.5 * sum(self.robot.randomisation.delay)
        corrections = self.starts if starts is None else starts
        residual = self.replay.predict(plant, delay, corrections) - self.measured
        return np.nan_to_num(residual, nan=100.0, posinf=100.0, neginf=-100.0)

    def _start_effects(self, values: Array) -> Array:
        base = self._residual(values)
        effects = np.empty((*base.shape, len(self.replay.start_step)))
        for index, step in enumerate(self.replay.start_step):
            starts = self.starts.copy()
            starts[:, index] += step
            effects[..., index] = (self._residual(values, starts) - base) / step
        return effects

    def _linearise(self, values: Array) -> _Linear:
        base = self._residual(values)
        effects = np.empty((*base.shape, len(values)))
        for index, row in enumerate(self.rows):
            step = row.step if values[index] + row.step <= row.high else -row.step
            trial = values.copy()
            trial[index] += step
            effects[..., index] = (self._residual(trial) - base) / step
        return self._eliminate(base, effects)

    def _profile(self, values: Array) -> _Linear:
        """Costs at these values with the best starts, to first order."""
        base = self._residual(values)
        return self._eliminate(base, np.zeros((*base.shape, 0)))

    def _eliminate(self, base: Array, effects: Array) -> _Linear:
        assert self.by_starts is not None
        by_starts, trust = self.by_starts, 1.0 / self.replay.start_noise**2
        weights = _huber(base)
        for _ in range(2):  # weights of what is left once the starts are corrected
            weighted = weights[..., None] * by_starts
            inner = by_starts.transpose(0, 2, 1) @ weighted
            inner[:, np.arange(trust.shape[1]), np.arange(trust.shape[1])] += trust
            slope = np.einsum("smn,sm->sn", weighted, base) + trust * self.starts
            start = -np.linalg.solve(inner, slope[..., None])[..., 0]
            left = base + np.einsum("smn,sn->sm", by_starts, start)
            weights = _huber(left)
        cross = weighted.transpose(0, 2, 1) @ effects
        back = -np.linalg.solve(inner, cross)
        hessian = (
            effects.transpose(0, 2, 1) @ (weights[..., None] * effects) + cross.transpose(0, 2, 1) @ back
        )
        gradient = np.einsum("smp,sm->sp", effects, weights * base) + np.einsum("snp,sn->sp", back, slope)
        moved = self.starts + start
        cost = _huber_cost(left) + (trust * moved**2).sum(1)
        return _Linear(hessian, gradient, cost, back, start)

    def _change(self, linear: _Linear, values: Array, damping: float) -> Array:
        hessian = (self.weight[:, None, None] * linear.hessian).sum(0)
        gradient = self.weight @ linear.gradient + self.prior * (values - self.nominal)
        hessian = hessian + np.diag(self.prior + damping * np.diag(hessian))
        free = np.ones(len(values), dtype=bool)
        change = np.zeros(len(values))
        for _ in range(len(values)):  # those that would leave their range stay at its end
            change[:] = 0.0
            change[free] = -np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
            out = free & (((values <= self.low) & (change < 0.0)) | ((values >= self.high) & (change > 0.0)))
            if not out.any():
                break
            free &= ~out
        return change

    def _leave_out(self, cost: Array) -> None:
        worst = np.quantile(cost, 1.0 - _WORST)
        self.weight = (cost <= worst).astype(float)

    def _total(self, cost: Array, values: Array) -> float:
        return float(self.weight @ cost + (self.prior * (values - self.nominal) ** 2).sum())

    def _count(self) -> float:
        return float(self.weight.sum() * self.measured.shape[1])


def _chosen(rows: tuple[Parameter, ...], only: str) -> tuple[Parameter, ...]:
    kinds, wanted = {row.kind for row in rows}, [name.strip() for name in only.split(",") if name.strip()]
    for name in wanted:
        if name not in kinds:
            known = ", ".join(sorted(kinds))
            raise UserError(f"only: no kind {name!r}{closest(name, kinds)}; accepted: {known}")
    return tuple(row for row in rows if not wanted or row.kind in wanted)


def _whereabouts(found: tuple[Found, ...]) -> tuple[Found, ...]:
    """Nothing is said of where a mass lies that may be none."""
    mass = next((one for one in found if one.parameter.kind == "mass"), None)
    if mass is None or (mass.identifiable and (mass.low > 0.0 or mass.high < 0.0)):
        return found
    return tuple(
        replace(one, identifiable=False) if one.parameter.kind in ("mass_x", "mass_y") else one
        for one in found
    )


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.minimum(values**2, 1e4))))


def _huber(residual: Array) -> Array:
    return _HUBER / np.maximum(np.abs(residual), _HUBER)


def _huber_cost(residual: Array) -> Array:
    size = np.abs(residual)
    return np.where(size <= _HUBER, size**2, 2.0 * _HUBER * size - _HUBER**2).sum(1)
