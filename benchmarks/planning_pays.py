"""Is a robot better for its search? The bundle's planner against its policy prior, on the same robots.

Robots of equal seeds meet the same commands, noise, randomisation and pushes under the prior and under the
search; what differs is who acts. Differences are means over robots with 95 % bootstrap intervals. Rows beside
`as trained` are robots that the ranges of training do not hold, or hold at their edge.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from typing import Any

import torch
from common import figure, parser, print_table, results_of, save, save_figure, saved, script

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.robot.randomisation import CHANGES, changed
from tdmpc2_core.errors import UserError, natural, positive
from tdmpc2_core.planning import PlannerConfig
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.paired import Gain, acting, gain, outcomes

NAME = "planning_pays"
AS_TRAINED = "as trained"


def searching(agent: Agent, choice: str | None) -> PlannerConfig:
    """The bundle's own settings, or `samples x iterations` in place of its own."""
    own = agent.planner_config
    if choice is None:
        return own
    samples, _, iterations = choice.partition("x")
    if not (samples.isdigit() and iterations.isdigit()):
        raise UserError(f"--planner {choice}: must be samples x iterations, such as 64x1")
    count = int(samples)
    elites = max(1, round(count * own.num_elites / own.num_samples))
    return replace(own, method="mppi", num_samples=count, num_elites=elites, iterations=int(iterations))


def robots_of(embodiment: Embodiment, names: list[str] | None) -> dict[str, Embodiment]:
    """The robot as it was trained, and its changes by name; all that concern it by default."""
    concern = [name for name, row in CHANGES.items() if row.applies(embodiment)]
    return {AS_TRAINED: embodiment} | {
        name: changed(embodiment, name) for name in (concern if names is None else names)
    }


def row_of(bundle: str, robot: str, planner: PlannerConfig, found: Gain) -> dict[str, Any]:
    """One line of the published table."""
    return {
        "bundle": bundle,
        "robot": robot,
        "planner": planner.summary,
        "prior's reward": round(found.base, 3),
        "gain [95 %]": str(found.reward),
        "prior's error": round(found.base_error, 4),
        "error [95 %]": str(found.error),
        "falls (prior's)": f"{found.falls[0]} ({found.falls[1]})",
        "shake [95 %]": str(found.shake),
    }


def plot(details: list[dict[str, Any]], path: Any) -> None:
    """Gain over the prior with its interval, by robot and change."""
    fig, axes = figure("Search less prior on the same robots", "reward per decision", "")
    names = [f"{row['bundle']}, {row['robot']}" for row in details]
    gains = [row["reward"] for row in details]
    middle = [g["mean"] for g in gains]
    spread = [[g["mean"] - g["low"] for g in gains], [g["high"] - g["mean"] for g in gains]]
    axes.barh(names, middle, xerr=spread)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=7)
    save_figure(fig, path, dpi=130)


def main() -> int:
    """Print the table; write planning_pays.json and .png."""
    options = parser(__doc__ or "", "python benchmarks/planning_pays.py --bundle quadruped --robots 32")
    options.add_argument("--bundle", action="append", help="bundle or shipped robot (default quadruped)")
    options.add_argument("--planner", help="samples x iterations, such as 512x6 (default the bundle's)")
    options.add_argument("--changes", nargs="*", help="changed robots (default all that concern the robot)")
    options.add_argument("--robots", type=natural, default=32)
    options.add_argument("--seconds", type=positive, default=20.0)
    options.add_argument("--seed", type=int, default=1000)
    options.add_argument("--name", default=NAME, help="name of the JSON file")
    args: argparse.Namespace = options.parse_args()
    args.out = results_of(args.out, *(args.bundle or ()))
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows, details = saved(args.out, args.name)
    try:
        for bundle in args.bundle or ["quadruped"]:
            agent = Agent.load(bundle)
            if agent.embodiment is None:
                raise UserError(f"{bundle}: holds no robot")
            planner = searching(agent, args.planner)
            prior = replace(planner, method="policy")
            for robot, embodiment in robots_of(agent.embodiment, args.changes).items():
                play = [
                    outcomes(acting(agent, config), embodiment, args.robots, args.seconds, args.seed)
                    for config in (planner, prior)
                ]
                found, name = gain(*play), agent.embodiment.name
                key = {"bundle": name, "robot": robot, "planner": planner.summary}
                rows = [row for row in rows if {k: row[k] for k in key} != key]
                details = [row for row in details if {k: row[k] for k in key} != key]
                rows.append(row_of(name, robot, planner, found))
                details.append({**key, "seconds": args.seconds, "seed": args.seed, **asdict(found)})
                print_table(rows[-1:])
                save(args.out, args.name, rows, details=details)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print_table(rows)
    plot(details, args.out / f"{args.name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
