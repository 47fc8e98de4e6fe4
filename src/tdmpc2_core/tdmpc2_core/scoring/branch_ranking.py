"""Branch ranking: does the sequence that a planner's score prefers turn out better in the simulator?

Rank correlations of several scores with the true return, what the best choice and the model's choice gain
over the policy prior, and how far predicted gains are off. A planner that acts only where its predicted gain
exceeds a multiple of that error is not worse than its prior by more than chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.scoring.branches import MODE, PRIOR, Branches, Oracle, discounted

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

NEAR = 0.15
"""Root mean square distance from the prior's actions, normalised action, below which a candidate is near."""

DEPTHS = (3, 12, 20)
"""Decisions whose true rewards alone are tried as a score."""

SCORE = "planner's score"
CEILING = "same branch, other noise seed"
TRUE_REWARDS = "true rewards + Q of the true observation"
TRUE_VALUE = "model's rewards + true value of the end"

_RESAMPLES = 2000
_TEST = "branch ranking"


@dataclass(frozen=True)
class Estimate:
    """A mean over states with its 95 % bootstrap interval; NaN where no state gives one."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.2g}, {self.high:.2g}]"


@dataclass(frozen=True)
class Gains:
    """What choosing among a group of candidates is worth, in returns above the prior's.

    Attributes:
        attainable: of the candidate that is best under one noise seed, under another.
        picked: true gain of the one that the planner's score prefers.
        expected: what the score says of it.
        error: root mean square of predicted less true gain over the group, sigma_D; `bias` its mean.
    """

    attainable: Estimate
    picked: Estimate
    expected: Estimate
    error: Estimate
    bias: Estimate


@dataclass(frozen=True)
class PlanGain:
    """A planner's plan in returns above the prior's: true and expected, and the error of the expectation
    (root mean square), which includes that a search looks for errors in its favour."""

    true: Estimate
    expected: Estimate
    error: Estimate


@dataclass(frozen=True)
class Ranking:
    """Results by group of candidates: `near`, `all`, each distance of the noise, sample, elite.

    Attributes:
        horizon, states: decisions of a candidate, number of start states.
        prior_return, prior_falls: mean return of the prior, and share of its branches that end in a fall.
        correlation: score -> group -> Spearman's rank correlation with the true return.
        gains: group -> `Gains`.
        plans: planner -> `PlanGain`.
    """

    horizon: int
    states: int
    prior_return: Estimate
    prior_falls: float
    correlation: Mapping[str, Mapping[str, Estimate]]
    gains: Mapping[str, Gains]
    plans: Mapping[str, PlanGain]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def rank_correlation(one: Array, other: Array) -> float:
    """Spearman's correlation of two arrays (N,), ties at their mean rank; NaN where either is constant."""
    ranks = np.stack([_ranks(one), _ranks(other)])
    ranks -= ranks.mean(1, keepdims=True)
    spread = np.sqrt(np.square(ranks).sum(1).prod())
    return float(ranks[0] @ ranks[1] / spread) if spread > 0.0 else float("nan")


def _ranks(values: Array) -> Array:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - 0.5 * (counts - 1))[place.ravel()].astype(np.float64)


def scores(branches: Branches) -> dict[str, Array]:
    """What ranks candidates, by name: (S, R, N) under each noise seed."""
    discount, horizon = branches.discount, branches.horizon
    shape = branches.returns.shape
    predicted = discounted(branches.predicted, discount)[:, None]
    true = branches.rewards
    tail = branches.returns - discounted(true[..., :horizon], discount)
    found = {
        SCORE: np.broadcast_to(branches.scores[:, None], shape),
        TRUE_REWARDS: discounted(true[..., :horizon], discount) + discount**horizon * branches.ends,
        TRUE_VALUE: predicted + tail,
    }
    for depth in DEPTHS:
        found[f"true rewards of {depth} decisions"] = discounted(true[..., :depth], discount)
    return found


def groups(branches: Branches) -> dict[str, Mask]:
    """Candidates (S, N) by group, plans left out: `near`, `all`, and each kind's last word."""
    shape = branches.scores.shape
    candidate = np.broadcast_to(np.arange(shape[1]) < branches.candidates, shape)
    found = {"near": candidate & (branches.distance < NEAR), "all": candidate}
    names = [kind.split()[-1] for kind in branches.kinds[: branches.candidates]]
    for name in dict.fromkeys(names):
        if name not in (PRIOR, MODE):
            members = np.array([other == name for other in names])
            found[name] = candidate & np.concatenate([members, np.zeros(shape[1] - len(names), bool)])
    return found


def rank(branches: Branches, seed: int = 0) -> Ranking:
    """Everything that is reported of branches; `seed` draws the bootstrap's resamples of states."""
    states = len(branches.scores)
    resamples = np.random.default_rng(seed).integers(states, size=(_RESAMPLES, states))
    members, candidates, returns = groups(branches), scores(branches), branches.returns
    correlation: dict[str, dict[str, Estimate]] = {
        CEILING: {name: _estimate(_repeated(returns, mask), resamples) for name, mask in members.items()}
    }
    for what, score in candidates.items():
        correlation[what] = {
            name: _estimate(_correlations(score, returns, mask), resamples) for name, mask in members.items()
        }
    true = returns - returns[..., :1]
    expected = branches.scores - branches.scores[:, [branches.kinds.index(MODE)]]
    plans = {
        name: PlanGain(
            _estimate(true[..., index].mean(1), resamples),
            _estimate(expected[:, index], resamples),
            _root(np.square(expected[:, index] - true[..., index].mean(1)), resamples),
        )
        for index, name in enumerate(branches.kinds)
        if index >= branches.candidates
    }
    return Ranking(
        branches.horizon,
        states,
        _estimate(returns[..., 0].mean(1), resamples),
        float(branches.fallen[..., 0].mean()),
        correlation,
        {name: _gains(true, expected, mask, resamples) for name, mask in members.items()},
        plans,
    )


def _correlations(score: Array, returns: Array, mask: Mask) -> Array:
    """(S,) mean over noise seeds."""
    pairs = zip(score, returns, mask, strict=True)
    return np.array(
        [
            np.mean([rank_correlation(x[of], y[of]) for x, y in zip(one, other, strict=True)])
            for one, other, of in pairs
        ]
    )


def _repeated(returns: Array, mask: Mask) -> Array:
    """(S,) correlation of the first noise seed with the others."""
    return np.mean([_correlations(returns[:, :1], returns[:, [r]], mask) for r in _others(returns)], 0)


def _others(returns: Array) -> range:
    return range(1, returns.shape[1])


def _gains(true: Array, expected: Array, mask: Mask, resamples: NDArray[np.int64]) -> Gains:
    """true (S, R, N) and expected (S, N) gains over the prior."""
    seeds = range(true.shape[1])
    hidden = np.where(mask[:, None], true, -np.inf)
    best = hidden.argmax(2)  # (S, R), chosen under each noise seed
    at = np.arange(len(true))
    honest = [true[at, judge, best[:, chooser]] for chooser in seeds for judge in seeds if judge != chooser]
    pick = np.where(mask, expected, -np.inf).argmax(1)
    error = expected - true.mean(1)
    count = mask.sum(1)
    with np.errstate(invalid="ignore"):  # a state without a member gives NaN, which the means leave out
        bias, square = (np.where(mask, x, 0.0).sum(1) / count for x in (error, np.square(error)))
    there = np.where(count > 0, 0.0, np.nan)
    return Gains(
        _estimate(np.mean(honest, 0) + there, resamples),
        _estimate(true[at, :, pick].mean(1) + there, resamples),
        _estimate(expected[at, pick] + there, resamples),
        _root(square, resamples),
        _estimate(bias, resamples),
    )


def estimate(values: Array, seed: int = 0) -> Estimate:
    """Mean of independent values (S,) with its bootstrap interval."""
    draws = np.random.default_rng(seed).integers(len(values), size=(_RESAMPLES, len(values)))
    return _estimate(values, draws)


def _estimate(values: Array, resamples: NDArray[np.int64]) -> Estimate:
    known = np.isfinite(values)
    if not known.any():
        return Estimate(*[float("nan")] * 3)
    counts = known[resamples].sum(1)
    sums = np.where(known, values, 0.0)[resamples].sum(1)
    low, high = np.percentile(sums[counts > 0] / counts[counts > 0], [2.5, 97.5])
    return Estimate(float(values[known].mean()), float(low), float(high))


def _root(squares: Array, resamples: NDArray[np.int64]) -> Estimate:
    found = _estimate(squares, resamples)
    return Estimate(*(float(np.sqrt(x)) for x in (found.mean, found.low, found.high)))


def measured_row(
    ranking: Ranking, states: str, settings: Mapping[str, Any], oracles: Sequence[Oracle] = ()
) -> dict[str, Any]:
    """The summary that a bundle keeps in `measured`: of `states` (nominal, pushed) under planner settings.

    `sigma_D` is the error of the predicted gain of the planner's plan, `sigma_D near` that of candidates near
    the prior; both in returns.
    """
    near, plan = ranking.gains["near"], ranking.plans["plan"]
    score = ranking.correlation[SCORE]
    return {
        "test": _TEST,
        "states": states,
        "horizon": ranking.horizon,
        "count": ranking.states,
        "settings": dict(settings),
        "correlation near": score["near"].mean,
        "correlation": score["all"].mean,
        "ceiling near": ranking.correlation[CEILING]["near"].mean,
        "picked gain": near.picked.mean,
        "attainable gain": near.attainable.mean,
        "plan gain": plan.true.mean,
        "plan expected": plan.expected.mean,
        "sigma_D": plan.error.mean,
        "sigma_D near": near.error.mean,
        "oracle gain": {str(oracle.horizon): float(oracle.gain.mean()) for oracle in oracles},
    }


def with_rows(
    measured: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """A bundle's `measured` with these rows in place of those of the same states, horizon and settings."""
    replaced = [_key(row) for row in rows]
    return [*(row for row in measured if row.get("test") != _TEST or _key(row) not in replaced), *rows]


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["states"], row["horizon"], row["settings"]
