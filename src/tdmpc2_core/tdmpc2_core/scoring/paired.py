"""Two policies on the same robots, commands and disturbances: what one gains, robot by robot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.robot.batch import PRIVILEGED, BatchEnv, BatchStep
from tdmpc2_core.planning import PlannerConfig
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.branch_ranking import Estimate, estimate

Array = NDArray[np.float64]
_SETTLE = 1.0  # s after a start that errors of following leave out
_FOLLOWED = "mean velocity"


@dataclass(frozen=True)
class Outcomes:
    """Of N robots.

    Attributes:
        reward: (N,) mean per decision.
        error: (N,) mean error of following: m/s of the horizontal velocity, or m of the tool.
        falls: (N,) how often each fell; it starts anew then.
        shake: (N,) mean absolute second difference of the actions, what is felt as jerk.
    """

    reward: Array
    error: Array
    falls: Array
    shake: Array


@dataclass(frozen=True)
class Gain:
    """One policy less another, robot by robot, with 95 % bootstrap intervals over robots.

    Attributes:
        reward, error, shake: means of the differences, see `Outcomes`.
        falls: totals of the one and of the other.
        base, base_error: the other's own reward and error.
        robots: pairs.
    """

    reward: Estimate
    error: Estimate
    shake: Estimate
    falls: tuple[int, int]
    base: float
    base_error: float
    robots: int


Act = Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]]
"""Actions (N, A) of observations (N, O); flags (N,) tell which episodes begin."""


def acting(agent: Agent, planner: PlannerConfig | str | None = None, seed: int = 0) -> Act:
    """An agent without exploration noise, under its own or other planner settings."""
    chosen = agent.fork(planner, seed)
    return lambda observed, first: chosen.act(observed, first, evaluate=True).action


def outcomes(act: Act, embodiment: Embodiment, robots: int, seconds: float, seed: int = 0) -> Outcomes:
    """Run robots with noise, randomisation and drawn commands; those of equal seeds meet the same ones."""
    env = BatchEnv(embodiment, robots, seed)
    steps, settle = (round(x * embodiment.control_rate) for x in (seconds, _SETTLE))
    where, scale = env.privileged_layout().get(_FOLLOWED), 1.0
    if where is not None:
        scale = next(row.scale for row in PRIVILEGED if row.name == _FOLLOWED)

    def error(step: BatchStep) -> Array:
        if where is None:
            return step.info["position_error"]
        away = step.final_privileged[:, where] / scale - env.command
        return np.linalg.norm(away[:, :2], axis=1)

    observed, first = env.reset(), np.ones(robots, dtype=bool)
    rewards, errors, shakes = (np.zeros((steps, robots)) for _ in range(3))
    falls, age = np.zeros(robots), np.zeros(robots, dtype=int)
    before: list[NDArray[Any]] = []
    for step in range(steps):
        action = act(observed, first)
        result = env.step(action)
        rewards[step] = result.reward
        errors[step] = np.where(age >= settle, error(result), np.nan)
        if len(before) == 2:
            second = np.abs(action - 2.0 * before[1] + before[0]).mean(1)
            shakes[step] = np.where(age >= 2, second, 0.0)
        before = [*before[-1:], action]
        falls += result.terminated
        first = result.terminated | result.truncated
        age = np.where(first, 0, age + 1)
        observed = result.observation
    settled = np.isfinite(errors)
    with np.errstate(invalid="ignore"):  # a robot that never stays up for so long has no error: NaN
        error_of = np.where(settled, errors, 0.0).sum(0) / settled.sum(0)
    return Outcomes(rewards.mean(0), error_of, falls, shakes.mean(0))


def gain(one: Outcomes, base: Outcomes, seed: int = 0) -> Gain:
    """What `one` has more than `base`, of the same robots."""
    return Gain(
        estimate(one.reward - base.reward, seed),
        estimate(one.error - base.error, seed),
        estimate(one.shake - base.shake, seed),
        (int(one.falls.sum()), int(base.falls.sum())),
        float(base.reward.mean()),
        float(base.error.mean()),
        len(base.reward),
    )
