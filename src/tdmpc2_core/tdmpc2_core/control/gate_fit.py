"""Fitting a `TrustCalibration` to good runs: residuals, their spread, a threshold by conformal prediction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.control.gate import Inputs, Residuals, mean_square
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.terms import TERMS

if TYPE_CHECKING:
    from tdmpc2_core.agent import Agent
    from tdmpc2_core.checkpoint.trust_calibration import TrustCalibration
    from tdmpc2_core.model.world_model import WorldModel
    from tdmpc2_core.robots import Embodiment

Array = NDArray[np.float32]

HORIZON = 4
"""Decisions that are foretold."""

BLOCK_SECONDS = 20.0
_SECONDS = (1.0, 6.0)  # time constants of smoothing
_DIRECTIONS = 12  # of a latent error that are looked at, the widest ones
_FIT = 0.2  # share of the runs that residuals and spreads are fitted to; the others set the threshold
_RIDGE = 1e-3  # of the regressions, times the mean variance of their inputs
_SHRINK = 0.5  # of the covariance towards its diagonal: smoothed features are few independent ones
_EVERY_INPUT, _EVERY_FEATURE = 5, 10  # decisions between those that are fitted to
_TOGETHER = 64  # runs that are looked at side by side


class Run(NamedTuple):
    """A stretch of one robot's decisions: observations (T, O) and the actions (T, A) taken on them."""

    observation: Array
    action: Array


class Foretold(NamedTuple):
    """N runs of one length T, as a model sees them: latents (N, T, L), foretold ones, spreads (N, T)."""

    latent: Array
    one: Array
    far: Array
    spread: Array


def blocks(runs: Sequence[Run], rate: float) -> list[Run]:
    """Stretches of `BLOCK_SECONDS` of runs at `rate` (Hz); what is left of a run is dropped."""
    size = round(BLOCK_SECONDS * rate)
    return [
        Run(run.observation[start : start + size], run.action[start : start + size])
        for run in runs
        for start in range(0, len(run.action) - size + 1, size)
    ]


def foretell(model: WorldModel, runs: Sequence[Run], horizon: int = HORIZON) -> Foretold:
    """What the model says of runs of equal length; where nothing was foretold yet, the encodings stand."""
    import torch  # here: control itself needs none

    from tdmpc2_core.model.open_loop import open_loop

    observation, action = (torch.from_numpy(np.stack(part)) for part in zip(*runs, strict=True))
    count, length = action.shape[:2]
    with torch.inference_mode():
        z = model.encode(observation.flatten(0, 1))
        spread = model.q_values(z, model.policy(z).mean).std(0, correction=0)
        first = torch.arange(count)[:, None] * length
        starts = (first + torch.arange(length - 1)).flatten()
        ends = (first + length - 1).expand(count, length - 1).flatten()
        one, far = z.clone(), z.clone()
        steps = open_loop(model, z, action.flatten(0, 1), starts, ends, horizon)
        for step, found in enumerate(steps):
            if step in (0, horizon - 1):
                target = one if step == 0 else far
                target[found.row[found.inside] + 1] = found.latent[found.inside]
        if horizon == 1:
            far = one
    shape = (count, length, -1)
    latent, near, distant = (part.view(shape).numpy() for part in (z, one, far))
    return Foretold(latent, near, distant, spread.view(count, length).numpy())


def inputs_of(inputs: Inputs, runs: Sequence[Run], seen: Foretold, horizon: int) -> Iterator[Array]:
    """Inputs (N, V), a kept buffer, of the decisions of runs that `TrustGate` counts from."""
    for t in range(seen.latent.shape[1]):
        observation = np.stack([run.observation[t] for run in runs])
        values = inputs.put(observation, seen.spread[:, t], seen.latent[:, t], seen.one[:, t], seen.far[:, t])
        if t >= horizon:
            yield values


def entries(embodiment: Embodiment) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Newest entries of an observation that sensors gave, and those that are known without any."""
    measured, known = list[int](), list[int]()
    for block in embodiment.observation_layout:
        term = TERMS[block.name]
        given = term.source not in ("self", "command") and term.command is None
        (measured if given else known).extend(range(block.start, block.start + block.size))
    return np.array(measured, np.int64), np.array(known, np.int64)


class Fitter:
    """Goes through runs in batches; of one agent."""

    def __init__(self, agent: Agent) -> None:
        if agent.embodiment is None or agent.model.config.num_tasks:
            raise UserError("calibration: trust is calibrated for bundles of one robot and one task")
        self.agent, self.rate = agent, agent.embodiment.control_rate
        self.measured, self.known = entries(agent.embodiment)

    def _inputs(self, count: int) -> Inputs:
        return Inputs(self.measured, self.known, self.agent.model.config.latent_dim, count)

    def batches(self, runs: Sequence[Run]) -> Iterator[Iterator[Array]]:
        """Inputs of all runs, side by side."""
        for start in range(0, len(runs), _TOGETHER):
            some = runs[start : start + _TOGETHER]
            seen = foretell(self.agent.model, some)
            yield inputs_of(self._inputs(len(some)), some, seen, HORIZON)

    def residuals(self, runs: Sequence[Run]) -> Array:
        """The map (V, W) from inputs to residuals, of variance 1 on these runs."""
        sample = np.concatenate(
            [
                values.astype(np.float64)
                for batch in self.batches(runs)
                for step, values in enumerate(batch)
                if step % _EVERY_INPUT == 0
            ]
        )
        return residual_map(sample, self._inputs(1).parts, len(self.measured))

    def features(self, runs: Sequence[Run], found: Array, keep: Array, every: int = 1) -> Iterator[Array]:
        """Features (T, N, 2 W), a kept buffer, of every `every`-th decision; batches one after the other."""
        for start in range(0, len(runs), _TOGETHER):
            some = runs[start : start + _TOGETHER]
            smooth = Residuals(found, keep, len(some))
            for batch in self.batches(some):
                for step, values in enumerate(batch):
                    features = smooth.add(values)
                    if step % every == 0:
                        yield features

    def maxima(self, runs: Sequence[Run], calibration: TrustCalibration) -> Array:
        """The largest mean square over its unit, of each run (N,)."""
        result: list[Array] = []
        for start in range(0, len(runs), _TOGETHER):
            some = runs[start : start + _TOGETHER]
            highest = np.zeros(len(some), np.float32)
            for score in self.scores(some, calibration):
                np.maximum(highest, score, out=highest)
            result.append(highest)
        return np.concatenate(result)

    def scores(self, runs: Sequence[Run], calibration: TrustCalibration) -> Iterator[Array]:
        """(N,) of each decision of at most as many runs as are looked at together; not over the threshold."""
        for features in self.features(runs, calibration.residuals, calibration.keep):
            squares = mean_square(features, calibration.centre, calibration.whiten)
            yield (squares / calibration.unit[:, None]).max(0)


def residual_map(sample: NDArray[np.float64], parts: Sequence[slice], measured: int) -> Array:
    """(V, W): latent errors along their widest directions, measured values less what the model's forecast and
    the commands say, and less what the commands alone say; the logarithm of the heads' spread."""
    one, heads, now, before, latent, near, far = parts
    size = sample.shape[1]
    seen, known = slice(now.start, now.start + measured), slice(now.start + measured, now.stop)
    known_before = slice(before.start + measured, before.stop)
    index = np.arange(size)
    columns = [_column(size, {heads.start: 1.0})]
    for foretold in (near, far):
        error = sample[:, latent] - sample[:, foretold]
        _, directions = np.linalg.eigh(np.cov(error.T))
        widest = directions[:, : -_DIRECTIONS - 1 : -1]
        column = np.zeros((size, widest.shape[1]))
        column[latent], column[foretold] = widest, -widest
        columns.append(column)
    by_commands = np.r_[index[one], index[known], index[known_before]]
    for given in (by_commands, np.r_[by_commands, index[before], index[near]]):
        given = np.unique(given)
        column = np.zeros((size, measured))
        column[given] = -_regression(sample[:, given], sample[:, seen])
        column[index[seen], np.arange(measured)] += 1.0
        columns.append(column)
    found = np.concatenate(columns, 1)
    values = sample @ found
    found[one.start] -= values.mean(0)
    return (found / np.maximum(values.std(0), 1e-6)).astype(np.float32)


def _column(size: int, entries: dict[int, float]) -> NDArray[np.float64]:
    column = np.zeros((size, 1))
    for row, value in entries.items():
        column[row] = value
    return column


def _regression(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Ridge regression of y (M, Y) on x (M, V), whose first column is 1: (V, Y)."""
    gram = x.T @ x / len(x)
    penalty = _RIDGE * np.diag(gram)
    penalty[0] = 0.0
    return np.linalg.solve(gram + np.diag(penalty + 1e-9), x.T @ y / len(x))


def whitening(features: NDArray[Any]) -> tuple[Array, Array]:
    """Mean (D,) and matrix (D, D) that make features (M, D) of variance 1 in every direction."""
    centre = features.mean(0)
    covariance = np.cov(features.T)
    covariance = (1.0 - _SHRINK) * covariance + _SHRINK * np.diag(np.diag(covariance))
    values, directions = np.linalg.eigh(covariance)
    floor = 1e-4 * values.mean()
    matrix = directions / np.sqrt(np.maximum(values, floor))
    return centre.astype(np.float32), matrix.astype(np.float32)


def conformal(maxima: NDArray[Any], chance: float) -> float:
    """What the maximum of one more run exceeds with at most this chance, as all are exchangeable.

    Raises:
        UserError: there are too few runs to say so.
    """
    rank = math.ceil((len(maxima) + 1) * (1.0 - chance) - 1e-9)
    if rank > len(maxima):
        needed = math.ceil(1.0 / chance - 1.0 - 1e-9) / (1.0 - _FIT) * BLOCK_SECONDS / 3600.0
        raise UserError(
            f"calibration: {len(maxima)} stretches of {BLOCK_SECONDS:g} s set the threshold, too few for so "
            f"rare false alarms; give {needed:.2f} h of good runs or allow more false alarms"
        )
    return float(np.sort(maxima)[rank - 1])


def calibrate_trust(
    agent: Agent, runs: Sequence[Run], false_alarms: float = 1.0, weights: bytes = bytes(32), seed: int = 0
) -> TrustCalibration:
    """A calibration from good runs, of which at least `BLOCK_SECONDS` each count.

    Args:
        false_alarms: per hour of good running.
        weights: sha256 of the weights file.
        seed: of the draw of runs that the residuals are fitted to.

    Raises:
        UserError: the agent is for no robot or several tasks, or the runs are too few.
    """
    from tdmpc2_core.checkpoint.trust_calibration import TrustCalibration

    fitter = Fitter(agent)
    pieces = blocks(runs, fitter.rate)
    order = np.random.default_rng(seed).permutation(len(pieces))
    count = math.ceil(_FIT * len(pieces))
    fit, rest = ([pieces[k] for k in part] for part in (order[:count], order[count:]))
    chance = false_alarms * BLOCK_SECONDS / 3600.0
    conformal(np.zeros(len(rest)), chance)  # too few are said before the work
    found = fitter.residuals(fit)
    keep = np.exp(-1.0 / (fitter.rate * np.array(_SECONDS))).astype(np.float32)
    sample = np.concatenate(
        [features.copy() for features in fitter.features(fit, found, keep, _EVERY_FEATURE)], axis=1
    )
    spread = [whitening(part.astype(np.float64)) for part in sample]
    centre, whiten = (np.stack(part) for part in zip(*spread, strict=True))
    unit = np.percentile(mean_square(sample, centre, whiten), 99.9, axis=1).astype(np.float32)
    calibration = TrustCalibration(
        measured=fitter.measured, known=fitter.known, residuals=found, keep=keep, centre=centre,
        whiten=whiten, unit=unit, threshold=np.ones(1, np.float32), horizon=np.array([HORIZON]),
        false_alarms=np.array([false_alarms], np.float32),
        hours=np.array([len(rest) * BLOCK_SECONDS / 3600.0], np.float32),
        weights=np.frombuffer(weights, np.uint8),
    )  # fmt: skip
    calibration.threshold[0] = conformal(fitter.maxima(rest, calibration), chance)
    return calibration
