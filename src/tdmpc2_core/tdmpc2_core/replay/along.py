"""Run a planner along recorded episodes and compare: actions, rewards, latents, trust, value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdmpc2_core.agent import Agent
from tdmpc2_core.control.trust import TrustLimits, TrustMonitor
from tdmpc2_core.data.episodes import Episode
from tdmpc2_core.model.open_loop import open_loop

Array = NDArray[np.float64]
WINDOW = 10.0
"""s: length of the stretch that is named as the worst."""


@dataclass(frozen=True)
class Along:
    """A recording of T decisions beside what planner and model say of it.

    Attributes:
        time: (T,) s since the first decision of the recording.
        episode: (T,) number of the episode.
        planned, recorded: (T, A) normalised actions.
        reward_predicted, reward: (T,) of the recorded action; the realised one is NaN where it is unknown.
        latent: (T, K) mean squared open-loop error after 1..K recorded actions over the variance of the
            latents; NaN beyond an episode's end.
        disagreement, consistency, trust: (T,) as of `Trust`.
        value, value_recorded: (T,) of the plan, and of the recording's own planner, NaN without one.
        period: s between decisions.
    """

    time: Array
    episode: NDArray[np.int64]
    planned: Array
    recorded: Array
    reward_predicted: Array
    reward: Array
    latent: Array
    disagreement: Array
    consistency: Array
    trust: Array
    value: Array
    value_recorded: Array
    period: float

    @property
    def action_difference(self) -> Array:
        """(T,) mean |planned - recorded|, normalised action."""
        return np.asarray(np.abs(self.planned - self.recorded).mean(1))


@dataclass(frozen=True)
class Worst:
    """The worst stretch: its start and length, s, and why."""

    start: float
    seconds: float
    why: str


def replay(
    agent: Agent,
    episodes: Sequence[tuple[Episode, dict[str, Any]]],
    horizon: int,
    limits: TrustLimits,
    tell: Callable[[int], None] = lambda decisions: None,
) -> Along:
    """Plan at every recorded observation, and roll the model out from it through the recorded actions.

    Args:
        episodes: with their metadata, whose `start` (s) places those from bags in time.
        horizon: decisions that latents are foretold.
        tell: called with the number of decisions that are done, after each.

    Raises:
        UserError: episodes of another robot, or an observation that is not finite.
    """
    for episode, _ in episodes:
        agent.check_sizes(episode.observation.shape[1], episode.action.shape[1], "the recording")
    starts = _starts(agent.control_period, episodes)
    parts, done = [], 0
    for number, (episode, _) in enumerate(episodes):
        planned = _plans(agent, episode, limits, lambda k, done=done: tell(done + k))  # type: ignore[misc]
        foretold = _foretell(agent, episode, horizon)
        steps = len(episode)
        done += steps
        parts.append(
            planned
            | foretold
            | {
                "time": starts[number] + agent.control_period * np.arange(steps),
                "episode": np.full(steps, number),
                "recorded": episode.action,
                "reward": episode.reward,
                "value_recorded": episode.value,
            }
        )
    variance = float(np.concatenate([part.pop("z") for part in parts]).var(0).mean())
    joined = {name: np.concatenate([part[name] for part in parts]).astype(np.float64) for name in parts[0]}
    joined["latent"] /= max(variance, 1e-12)
    numbers = joined.pop("episode").astype(np.int64)
    return Along(**joined, episode=numbers, period=agent.control_period)


def _starts(period: float, episodes: Sequence[tuple[Episode, dict[str, Any]]]) -> list[float]:
    """Starts of episodes, s, since the first: as recorded, or one after the other."""
    told = [float(metadata["start"]) for _, metadata in episodes if "start" in metadata]
    if len(told) == len(episodes):
        return [start - min(told) for start in told]
    lengths = [period * len(episode) for episode, _ in episodes]
    return [0.0, *np.cumsum(lengths)[:-1].tolist()]


def _plans(
    agent: Agent, episode: Episode, limits: TrustLimits, tell: Callable[[int], None]
) -> dict[str, NDArray[Any]]:
    monitor = TrustMonitor(agent.model)
    task = episode.task if agent.model.config.num_tasks else None
    names = ("disagreement", "consistency", "trust")
    found: dict[str, list[Any]] = {name: [] for name in ("planned", "value", *names)}
    for k in range(len(episode)):
        observation = episode.observation[k]
        plan = agent.plan(observation, 0.0, first=k == 0, task=task)
        before = episode.action[k - 1] if k else None
        trust = monitor.assess(observation, plan.actions, before, task, limits).trust
        found["planned"].append(plan.actions[0])
        found["value"].append(plan.value)
        for name in names:
            found[name].append(getattr(trust, name))
        tell(k + 1)
    return {name: np.array(values) for name, values in found.items()}


@torch.no_grad()
def _foretell(agent: Agent, episode: Episode, horizon: int) -> dict[str, NDArray[Any]]:
    """Rewards of the recorded actions, latent errors (T, K), and the encoded latents."""
    model, steps = agent.model, len(episode)

    def tensor(values: NDArray[Any]) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=agent.device)

    def task(rows: int) -> Tensor | None:
        many = model.config.num_tasks
        return torch.full((rows,), episode.task, device=agent.device) if many else None

    reached, action = model.encode(tensor(episode.observation), task(steps + 1)), tensor(episode.action)
    reward = model.reward(reached[:-1], action, task(steps)).squeeze(-1)
    latent, starts = np.full((steps, horizon), math.nan), torch.arange(steps, device=agent.device)
    ends, number = torch.full_like(starts, steps), episode.task if model.config.num_tasks else None
    for k, (_, z, row, inside) in enumerate(
        open_loop(model, reached, action, starts, ends, min(horizon, steps), number)
    ):
        error = (z - reached[row + 1]).square().mean(-1)
        latent[:, k] = error.where(inside, math.nan).cpu().numpy()
    return {"reward_predicted": reward.cpu().numpy(), "latent": latent, "z": reached.cpu().numpy()}


def worst(along: Along) -> Worst:
    """The `WINDOW` seconds in which one figure is largest against its mean over the recording."""
    figures = {
        "difference of planned and recorded action": along.action_difference,
        "latent error after one decision": along.latent[:, 0],
        "reward error": np.abs(along.reward_predicted - along.reward),
        "disagreement of the value heads": along.disagreement,
    }
    best, found = -math.inf, Worst(0.0, 0.0, "")
    for name, values in figures.items():
        known = np.isfinite(values)
        mean = float(values[known].mean()) if known.any() else 0.0
        if mean <= 0.0:
            continue
        for number in np.unique(along.episode):
            rows = np.flatnonzero(along.episode == number)
            width = min(len(rows), max(1, round(WINDOW / along.period)))
            sums = np.convolve(np.where(known, values, mean)[rows], np.ones(width), "valid")
            place = int(sums.argmax())
            ratio = float(sums[place]) / width / mean
            if ratio > best:
                start = float(along.time[rows[place]])
                best = ratio
                found = Worst(start, width * along.period, f"{name} is {ratio:.2f} times its mean")
    return found


def summary(along: Along, joints: Sequence[str]) -> dict[str, Any]:
    """Figures of a replay as plain values."""
    error = np.abs(along.reward_predicted - along.reward)
    known, stretch = np.isfinite(error), worst(along)
    apart = np.abs(along.planned - along.recorded)

    def mean(values: Array) -> float:
        finite = values[np.isfinite(values)]
        return float(finite.mean()) if len(finite) else math.nan

    return {
        "decisions": len(along.time),
        "episodes": int(along.episode.max()) + 1,
        "seconds": len(along.time) * along.period,
        "action_difference": {name: float(apart[:, k].mean()) for k, name in enumerate(joints)},
        "reward_error": mean(error),
        "rewards_known": float(known.mean()),
        "latent_error": [mean(column) for column in along.latent.T],
        "disagreement": mean(along.disagreement),
        "consistency": mean(along.consistency),
        "trust": mean(along.trust),
        "trust_least": float(np.nanmin(along.trust)) if np.isfinite(along.trust).any() else math.nan,
        "value": mean(along.value),
        "worst": vars(stretch),
    }
