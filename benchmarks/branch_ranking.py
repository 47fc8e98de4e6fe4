"""Does a robot's planner prefer what turns out better? Candidate plans, played in the simulator, and scores.

From saved states (walking on a command or on the way to a goal; or just after a push) candidates of H
decisions are played, then the policy prior until 2 s are over, with the same random numbers for all. Reported
are rank correlations of several scores with the true discounted return, the gain over the prior of the
model's choice and of the best one, the error of predicted gains, and an oracle: the search scored in the
simulator. Intervals are bootstrapped over states. Near the prior: see `NEAR` in scoring.branch_ranking.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import figure, parser, print_table, results_of, save, save_figure, saved, script
from tqdm import tqdm

from tdmpc2_core.agent import Agent, planner_settings
from tdmpc2_core.checkpoint import manifest
from tdmpc2_core.config import to_mapping
from tdmpc2_core.errors import UserError, natural, positive
from tdmpc2_core.planning import PlannerConfig
from tdmpc2_core.scoring.branch_ranking import (
    CEILING,
    SCORE,
    TRUE_REWARDS,
    TRUE_VALUE,
    Ranking,
    estimate,
    measured_row,
    rank,
    with_rows,
)
from tdmpc2_core.scoring.branches import (
    AgentForecaster,
    BranchConfig,
    Oracle,
    RobotLanes,
    Start,
    robot_starts,
    run_branches,
    run_oracle,
    searching,
)

NAME = "branch_ranking"
WIDE = "512 x 6"
KEY = ("bundle", "states", "planner", "horizon")


def chosen_planner(agent: Agent, name: str | None) -> PlannerConfig:
    """The bundle's own search, a preset, or `samples x iterations` in place of those of the bundle."""
    own = searching(agent.planner_config)
    samples, times, iterations = (name or "").partition("x")
    if not name:
        return own
    if not (times and samples.strip().isdigit() and iterations.strip().isdigit()):
        return searching(planner_settings(name, agent.model.config.action_dim))
    count = int(samples)
    prior = min(own.num_pi_trajs, count // 2)
    return replace(
        own, num_samples=count, num_elites=max(1, count // 8), num_pi_trajs=prior, iterations=int(iterations)
    )


def plan_once(agent: Agent, observation: np.ndarray) -> np.ndarray:
    """Plan (H, A) of a robot without a previous plan."""
    return agent.plan(observation, now=0.0, first=True).actions


class Trial:
    """One bundle in one kind of state: its starts, and what is measured from them."""

    def __init__(self, agent: Agent, states: str, args: argparse.Namespace) -> None:
        self.agent, self.states, self.args = agent, states, args
        assert agent.embodiment is not None
        self.embodiment = agent.embodiment
        try:
            self.config = BranchConfig(candidates=args.candidates, seconds=args.seconds)
        except ValueError as error:
            raise UserError(str(error)) from None
        prior = AgentForecaster(agent).prior
        push = args.push if states == "pushed" else 0.0
        self.starts = robot_starts(prior, self.embodiment, args.count, push, args.seed)
        self.lanes = RobotLanes(self.embodiment, args.candidates + 2)

    def ranking(self, planner: PlannerConfig) -> Ranking:
        """Rank the candidates under these settings."""
        wide = replace(planner, num_samples=512, num_elites=64, iterations=6)
        branches = run_branches(
            self.lanes,
            self.starts,
            AgentForecaster(self.agent, planner, self.args.seed),
            self.embodiment.control_rate,
            self.config,
            {WIDE: partial(plan_once, self.agent.fork(wide, self.args.seed))},
            self.args.seed,
            self._progress(f"horizon {planner.horizon}"),
        )
        return rank(branches)

    def oracle(self, planner: PlannerConfig) -> Oracle:
        """The same search in the simulator."""
        return run_oracle(
            self.agent,
            self.lanes,
            self.starts[: self.args.oracle_count],
            planner,
            self.embodiment.control_rate,
            self.config.seconds,
            self.args.seed,
            self._progress(f"oracle {planner.horizon}"),
        )

    def _progress(self, what: str) -> Callable[[Sequence[Start]], Sequence[Start]]:
        label = f"{self.embodiment.name}, {self.states}, {what}"
        return partial(tqdm, desc=label, unit="state", file=sys.stderr)


def summary(subject: str, states: str, planner: PlannerConfig, ranking: Ranking) -> dict[str, Any]:
    """One line of the published table."""
    near, plan, wide = ranking.gains["near"], ranking.plans["plan"], ranking.plans[WIDE]
    of = {name: found["near"] for name, found in ranking.correlation.items()}
    return {
        "bundle": subject,
        "states": states,
        "planner": planner.summary,
        "horizon": ranking.horizon,
        "prior's return": round(ranking.prior_return.mean, 1),
        "ceiling": round(of[CEILING].mean, 2),
        "score": str(of[SCORE]),
        "true rewards + Q": str(of[TRUE_REWARDS]),
        "model + true value": str(of[TRUE_VALUE]),
        "attainable": str(near.attainable),
        "picked": str(near.picked),
        "expected": str(near.expected),
        "plan: true / expected": f"{plan.true} / {plan.expected.mean:.3g}",
        f"{WIDE}: true / expected": f"{wide.true} / {wide.expected.mean:.3g}",
        "sigma_D": str(plan.error),
    }


def print_ranking(ranking: Ranking) -> None:
    """Rank correlations and gains by group of candidates."""
    groups = list(ranking.gains)
    shown = groups[:2]
    print_table(
        [
            {
                "rank correlation with the true return": name,
                **{f"{g} [95 %]": str(found[g]) for g in shown},
                **{g: f"{found[g].mean:.2f}" for g in groups[2:]},
            }
            for name, found in ranking.correlation.items()
        ]
    )
    names = ("attainable", "picked", "expected", "error", "bias")
    print_table(
        [
            {"gain over the prior": g, **{name: str(getattr(found, name)) for name in names}}
            for g, found in ranking.gains.items()
        ]
    )
    print_table(
        [
            {"plan of": name, "true gain": str(p.true), "expected": str(p.expected), "error": str(p.error)}
            for name, p in ranking.plans.items()
        ]
    )


def measure(bundle: str, args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Table rows and details of one bundle; `--write` puts the summary into it."""
    agent = Agent.load(bundle)
    if agent.embodiment is None:
        raise UserError(f"{bundle}: holds no robot; branch ranking needs a robot's bundle")
    try:
        planner, subject = chosen_planner(agent, args.planner), agent.embodiment.name
    except ValueError as error:
        raise UserError(f"--planner {args.planner}: {error}") from None
    rows, details, kept = [], [], []
    for states in args.states:
        trial = Trial(agent, states, args)
        oracles = [trial.oracle(replace(planner, horizon=h)) for h in args.oracle]
        gains = {str(found.horizon): estimate(found.gain) for found in oracles}
        for horizon in args.horizon or [planner.horizon]:
            settings = replace(planner, horizon=horizon)
            ranking = trial.ranking(settings)
            row = summary(subject, states, settings, ranking)
            row |= {f"oracle {h}": str(gain) for h, gain in gains.items()}
            print(f"\n{subject}, {states}, {settings.summary}, {horizon} decisions, {ranking.states} states")
            print_ranking(ranking)
            rows.append(row)
            kept.append(measured_row(ranking, states, to_mapping(settings), oracles))
            oracle = {h: vars(gain) for h, gain in gains.items()}
            how = {name: getattr(args, name) for name in ("candidates", "seconds", "push", "seed")}
            found = {**ranking.to_dict(), "count": ranking.states, "oracle": oracle}
            key = {name: row[name] for name in KEY}
            details.append({**how, **found, **key, "settings": to_mapping(settings)})
    if args.write:
        agent.save(manifest.find(Path(bundle)), measured=with_rows(agent.measured, kept))
    return rows, details


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Old rows and new ones in their place."""
    found = {tuple(row[name] for name in KEY): row for row in [*old, *new]}
    return [found[key] for key in sorted(found)]


def plot(details: list[dict[str, Any]], folder: Path) -> None:
    """Rank correlation near the prior by score, a group of bars per bundle and kind of state."""
    names = list(details[0]["correlation"])
    fig, axes = figure("Branch ranking near the prior", "", "rank correlation with the true return")
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        found = [row["correlation"][name]["near"] for row in details]
        middle = [estimate["mean"] for estimate in found]
        spread = [[e["mean"] - e["low"] for e in found], [e["high"] - e["mean"] for e in found]]
        axes.bar(np.arange(len(found)) + index * width, middle, width, yerr=spread, label=name)
    labels = [f"{row['bundle']}\n{row['states']}, H {row['horizon']}" for row in details]
    axes.set_xticks(np.arange(len(details)) + 0.4, labels, fontsize=7)
    axes.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    save_figure(fig, folder / f"{NAME}.png", dpi=130)


def main() -> int:
    """Print the tables; write branch_ranking.json and .png."""
    options = parser(__doc__ or "", "python benchmarks/branch_ranking.py --bundle quadruped --oracle 3 12")
    options.add_argument("--bundle", action="append", help="bundle or shipped robot (default quadruped)")
    options.add_argument(
        "--planner", help="preset, or samples x iterations such as 64x2 (default the bundle's)"
    )
    options.add_argument("--states", nargs="+", choices=("nominal", "pushed"), default=["nominal", "pushed"])
    options.add_argument("--count", type=natural, default=60, help="states of each kind, of as many episodes")
    options.add_argument("--candidates", type=natural, default=64, help="per state")
    options.add_argument("--seconds", type=positive, default=2.0, help="length of a branch")
    options.add_argument("--horizon", type=natural, nargs="*", help="decisions (default the planner's)")
    options.add_argument("--push", type=float, default=2.0, help="largest push, in those of the embodiment")
    options.add_argument(
        "--oracle", type=natural, nargs="*", default=[], help="horizons searched in the simulator"
    )
    options.add_argument("--oracle-count", type=natural, default=20, help="states of the oracle")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--name", default=NAME, help="name of the JSON file")
    options.add_argument("--write", action="store_true", help="also write the summary into the bundle")
    args = options.parse_args()
    args.out = results_of(args.out, *(args.bundle or ()))
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows, details = saved(args.out, args.name)
    for bundle in args.bundle or ["quadruped"]:
        try:
            new_rows, new_details = measure(bundle, args)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        rows, details = merged(rows, new_rows), merged(details, new_details)
        save(args.out, args.name, rows, details=details)
    print_table(
        [{name: row.get(name, "") for name in dict.fromkeys(k for r in rows for k in r)} for row in rows]
    )
    plot(details, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
