"""How well a world model foretells recorded data, open loop, and how far another one's actions are off.

Latents are compared with encodings of what was then observed. Two scales make models comparable whose
encoders differ: the error of "nothing changes", and the variance of the latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdmpc2_core.agent import Agent
from tdmpc2_core.data.episodes import Episode
from tdmpc2_core.model import WorldModel
from tdmpc2_core.model.open_loop import open_loop

Array = NDArray[np.float64]
HORIZON = 20
"""Decisions that are foretold."""

_STARTS = 2000  # windows of a measurement, about
_LEAST_REWARDS = 10  # known ones from a state on, for its value to be judged
_SHIFT_ROWS = 256  # observations on which actions are compared


@dataclass(frozen=True)
class Prediction:
    """Errors on S stretches after 1..H decisions, (S, H) each; NaN where a stretch is too short.

    Attributes:
        latent: mean squared error of the latents.
        still: the same of "nothing changes".
        reward: mean absolute error of rewards, reward units; NaN also where none is known.
        value: mean absolute error of the value of predicted latents, against those of the encoded ones.
        variance: of the encoded latents, mean over entries.
    """

    latent: Array
    still: Array
    reward: Array
    value: Array
    variance: float

    @property
    def by_stretch(self) -> Array:
        """(S,) latent error over the variance, mean over 1..H decisions: what models are judged by."""
        return np.nanmean(self.latent, axis=1) / self.variance

    @property
    def error(self) -> float:
        """Mean of `by_stretch`."""
        return float(self.by_stretch.mean())

    @property
    def rewards_by_stretch(self) -> Array:
        """(S,) reward error, mean over 1..H decisions; NaN where none is known."""
        known = np.isfinite(self.reward)
        count = known.sum(1)
        sums = np.where(known, self.reward, 0.0).sum(1)
        return np.where(count > 0, sums / np.maximum(count, 1), np.nan)

    def curves(self) -> dict[str, list[float]]:
        """Means over stretches after 1..H decisions, by name."""
        latent, still = np.nanmean(self.latent, axis=0), np.nanmean(self.still, axis=0)
        return {
            "latent error / nothing changes": (latent / still).tolist(),
            "latent error / variance": (latent / self.variance).tolist(),
            "reward error": _mean(self.reward).tolist(),
            "value error": _mean(self.value).tolist(),
        }


def _mean(values: Array) -> Array:
    known = np.isfinite(values)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, values, 0.0).sum(0) / np.maximum(count, 1), np.nan)


class _Rows:
    """Stretches one after the other: latents, actions, rewards, and where each row's stretch ends."""

    def __init__(self, model: WorldModel, stretches: Sequence[Episode]) -> None:
        device = next(model.parameters()).device
        observed = np.concatenate([stretch.observation for stretch in stretches])
        self.z = model.encode(torch.from_numpy(observed).to(device))
        closing = np.zeros((1, stretches[0].action.shape[1]), np.float32)
        unknown = np.full(1, np.nan, np.float32)
        actions = [part for s in stretches for part in (s.action, closing)]
        rewards = [part for s in stretches for part in (s.reward, unknown)]
        self.action = torch.from_numpy(np.concatenate(actions)).to(device)
        self.reward = torch.from_numpy(np.concatenate(rewards)).to(device)
        lengths = np.array([len(stretch) for stretch in stretches])
        firsts = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])
        starts = np.concatenate([np.arange(k, k + n) for k, n in zip(firsts, lengths, strict=True)])
        stretch = np.repeat(np.arange(len(lengths)), lengths)
        chosen = slice(None, None, max(1, len(starts) // _STARTS))
        self.starts, self.stretch = (
            torch.from_numpy(starts[chosen]).to(device),
            torch.from_numpy(stretch[chosen]),
        )
        self.ends = torch.from_numpy((firsts + lengths)[stretch[chosen]]).to(device)


@torch.no_grad()
def predict(model: WorldModel, stretches: Sequence[Episode], horizon: int = HORIZON) -> Prediction:
    """Roll the model out from recorded observations through the recorded actions."""
    rows, count = _Rows(model, stretches), len(stretches)
    horizon = min(horizon, max(len(stretch) for stretch in stretches))
    names = ("latent", "still", "reward", "value")
    found = {name: np.full((count, horizon), np.nan) for name in names}
    start, values = rows.z[rows.starts], _values(model, rows.z)
    foretold = open_loop(model, rows.z, rows.action, rows.starts, rows.ends, horizon)
    for step, (before, z, now, inside) in enumerate(foretold):
        reached, reward = rows.z[now + 1], model.reward(before, rows.action[now]).squeeze(-1)
        errors = {
            "latent": (z - reached).square().mean(-1),
            "still": (start - reached).square().mean(-1),
            "reward": (reward - rows.reward[now]).abs(),
            "value": (_values(model, z) - values[now + 1]).abs(),
        }
        for name, error in errors.items():
            counts = (inside & ~error.isnan()).cpu()
            found[name][:, step] = _by_stretch(error, counts, rows.stretch, count)
    return Prediction(**found, variance=float(rows.z.var(0).mean()))


def _by_stretch(error: Tensor, counts: Tensor, stretch: Tensor, number: int) -> Array:
    """Means (S,) of errors (R,) that count (R,), by stretch; NaN where none does."""
    kept, where = error.cpu()[counts].double().numpy(), stretch[counts].numpy()
    total = np.bincount(where, minlength=number)
    sums = np.bincount(where, kept, minlength=number)
    return np.where(total > 0, sums / np.maximum(total, 1), np.nan)


def _values(model: WorldModel, z: Tensor) -> Tensor:
    """Values (...) of latents (..., L) under the prior's mode."""
    return model.q_values(z, model.policy(z).mean).mean(0).squeeze(-1)


@torch.no_grad()
def value_calibration(model: WorldModel, stretches: Sequence[Episode], discount: float) -> dict[str, float]:
    """Predicted values against the discounted rewards that came, and the value where a stretch ends.

    Returns:
        states, bias and rms (return units, of prediction less outcome) and correlation; empty where no state
        is followed by enough known rewards.
    """
    device = next(model.parameters()).device
    told, came = [], []
    for stretch in stretches:
        values = _values(model, model.encode(torch.from_numpy(stretch.observation).to(device))).cpu().numpy()
        outcome = 0.0 if stretch.terminated[-1] else float(values[-1])
        for t in reversed(range(len(stretch))):
            outcome = float(stretch.reward[t]) + discount * outcome
            if len(stretch) - t >= _LEAST_REWARDS and np.isfinite(outcome):
                told.append(float(values[t]))
                came.append(outcome)
    if not told:
        return {}
    error = np.array(told) - np.array(came)
    spread = min(np.std(told), np.std(came))
    correlation = float(np.corrcoef(told, came)[0, 1]) if spread > 0.0 else float("nan")
    rms = float(np.sqrt(np.square(error).mean()))
    return {"states": len(told), "bias": float(error.mean()), "rms": rms, "correlation": correlation}


@dataclass(frozen=True)
class PolicyShift:
    """Mean |a_new - a_old| on recorded observations, normalised action.

    Attributes:
        prior, planner: of the two agents.
        draws: of the old planner with another seed: what chance alone does.
    """

    prior: float
    planner: float
    draws: float


def policy_shift(old: Agent, new: Agent, stretches: Sequence[Episode]) -> PolicyShift:
    """How differently two agents act on the same observations, each with the same random numbers."""
    observed = np.concatenate([stretch.observation for stretch in stretches])
    observed = observed[:: max(1, len(observed) // _SHIFT_ROWS)]

    def act(agent: Agent, seed: int = 0, prior: bool = False) -> NDArray[Any]:
        first = np.ones(len(observed), dtype=bool)
        return agent.fork(seed=seed).act(observed, first, evaluate=True, use_prior=prior).action

    def apart(one: NDArray[Any], other: NDArray[Any]) -> float:
        return float(np.abs(one - other).mean())

    before = act(old)
    return PolicyShift(
        prior=apart(act(new, prior=True), act(old, prior=True)),
        planner=apart(act(new), before),
        draws=apart(act(old, seed=1), before),
    )
