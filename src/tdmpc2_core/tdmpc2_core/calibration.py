"""Calibration: which planner settings this machine can afford at a requested rate, found by trying them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tdmpc2_core.agent import Agent
from tdmpc2_core.config import from_mapping
from tdmpc2_core.errors import UserError
from tdmpc2_core.model.architecture import IMAGE_SIDE
from tdmpc2_core.planning import PLANNERS, PlannerConfig

SHARE = 0.6
"""Share of a control period that planning may take; the rest is for sensors, commands and other processes."""

_WARM_UP, _PLANS = 4, 20
_QUANTILE = 90  # per cent of the plans that must fit: the deadline catches the others
_HOPELESS = 2.0  # budgets; a plan that takes longer ends its trial
_EQUAL = 0.01  # share of a return within which two measured returns are taken to be equal


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` chose.

    Attributes:
        config: the settings.
        rate: decisions per second that were asked for, Hz.
        budget: time of a decision that planning may take, s.
        typical: median time of a plan with these settings, s.
        slow: 90th percentile of it, s.
        reason: why these settings.
    """

    config: PlannerConfig
    rate: float
    budget: float
    typical: float
    slow: float
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.config.summary} for {self.rate:g} Hz: {1e3 * self.typical:.1f} ms, 90 % of plans within "
            f"{1e3 * self.slow:.1f} ms, of {1e3 * self.budget:.1f} ms; {self.reason}"
        )


def calibrate(
    agent: Agent,
    rate: float,
    budget: float | None = None,
    measured: Sequence[Mapping[str, Any]] | None = None,
) -> Calibration:
    """Planner settings for `agent` at `rate` (Hz) on this machine, with torch's present threads and device.

    Of the settings whose return was measured for the bundle, the best that fits the budget, or the fastest of
    those within 1 % of it; else the bundle's own, reduced until they fit; at last the policy prior. Nothing
    larger than what was measured is chosen: more search is not better for every model. Takes a second or
    two and plans on blank observations; whatever else runs meanwhile counts as part of the machine.

    Args:
        budget: s that a plan may take; `SHARE` of the period when omitted.
        measured: rows as in `Agent.measured`, which are taken when omitted; those with `settings`, `return`
            and `p50 ms` count.

    Raises:
        UserError: the rate or the budget is not above 0, or a measured row holds no planner settings.
    """
    if not 0.0 < rate < math.inf:
        raise UserError(f"calibration: rate is {rate:g} Hz, must be above 0 and finite")
    budget = SHARE / rate if budget is None else budget
    if not 0.0 < budget < math.inf:
        raise UserError(f"calibration: budget is {budget:g} s, must be above 0 and finite")
    own, times = agent.planner_config, (math.nan, math.nan)
    for config, reason in _candidates(own, agent.measured if measured is None else measured):
        times = _plan_times(agent, config, budget)
        if times[1] <= budget:
            return Calibration(config, rate, budget, *times, reason)
    prior = replace(own, method="policy")
    times = _plan_times(agent, prior, math.inf)
    return Calibration(prior, rate, budget, *times, "no search fits this machine at this rate")


def _candidates(
    own: PlannerConfig, measured: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[PlannerConfig, str]]:
    """Settings to try, the most wanted first, and why they would be taken."""
    rows = [row for row in measured if {"settings", "return", "p50 ms"} <= set(row)]
    for row in sorted(rows, key=lambda row: -row["return"]):
        least = row["return"] - _EQUAL * abs(row["return"])
        fastest = min((r for r in rows if r["return"] >= least), key=lambda r: r["p50 ms"])
        config = from_mapping(PlannerConfig, fastest["settings"], "calibration: measured settings")
        yield config, f"measured return {fastest['return']:.4g}, the best that fits to 1 %"
    wanted: PlannerConfig | None = own
    reason = "the bundle's own settings"
    while wanted is not None:
        yield wanted, reason
        wanted, reason = PLANNERS[wanted.method].cheaper(wanted), "the bundle's own settings, reduced to fit"


def _plan_times(agent: Agent, config: PlannerConfig, budget: float) -> tuple[float, float]:
    """Median and 90th percentile of a plan's time, s."""
    trial, model = agent.fork(config), agent.model.config
    shape = (model.obs_dim, IMAGE_SIDE, IMAGE_SIDE) if model.obs_kind == "pixels" else (model.obs_dim,)
    observation = np.zeros(shape, np.float32)
    task = 0 if model.num_tasks else None
    times = []
    for k in range(_WARM_UP + _PLANS):
        started = time.perf_counter()
        trial.plan(observation, now=0.0, first=k == 0, task=task)
        times.append(time.perf_counter() - started)
        if k >= _WARM_UP and min(times[1:]) > _HOPELESS * budget:
            break
    typical, slow = np.percentile(times[_WARM_UP:], [50, _QUANTILE])
    return float(typical), float(slow)
