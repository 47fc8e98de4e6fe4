"""Latency against return: full MPPI, reduced MPPI and the policy prior alone, on a bundle's own robot.

Latency is one decision for one robot on one thread. Return is the reward per decision on the evaluation
course, with sensor noise and randomisation, no exploration.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from common import figure, milliseconds, parser, print_table, save
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.config import to_mapping
from tdmpc2_core.planning import PlannerConfig, planner_preset
from tdmpc2_core.scoring.evaluation import evaluate_robot


def settings(shipped: PlannerConfig) -> dict[str, PlannerConfig]:
    """The bundle's own planner, wider ones around it, the paper's, and the prior alone."""
    return {
        "policy prior": planner_preset("policy"),
        "bundle": shipped,
        "96 x 2": replace(shipped, num_samples=96, num_elites=12, iterations=2),
        "64 x 2": replace(shipped, num_samples=64, num_elites=8, iterations=2),
        "128 x 3": replace(shipped, num_samples=128, num_elites=16, iterations=3),
        "256 x 3": replace(shipped, num_samples=256, num_elites=32, iterations=3),
        "512 x 6": replace(shipped, num_samples=512, num_elites=64, iterations=6),
        "paper": planner_preset("paper"),
    }


def main() -> int:
    """Print the table; write planner_tradeoff.json and .png."""
    options = parser(__doc__ or "", "python benchmarks/planner_tradeoff.py --seconds 6")
    options.add_argument("--bundle", default="quadruped", help="bundle folder or a shipped robot")
    options.add_argument("--seconds", type=float, default=6.0, help="length of an evaluation episode")
    options.add_argument(
        "--episodes", type=int, default=8, help="robots, each with one command of the course"
    )
    options.add_argument("--calls", type=int, default=100, help="decisions that latency is measured over")
    options.add_argument("--name", default="planner_tradeoff", help="name of the JSON file and the plot")
    options.add_argument(
        "--store", action="store_true", help="also write the rows into the bundle (a folder)"
    )
    args = options.parse_args()
    torch.set_num_threads(1)
    agent = Agent.load(args.bundle)
    observation = np.zeros(agent.embodiment.observation_dim, dtype=np.float32)
    rows = []
    for name, config in tqdm(settings(agent.planner_config).items(), unit="planner", file=sys.stderr):
        trial = agent.fork(config)
        times = milliseconds(partial(trial.plan, observation, now=0.0), args.calls)
        trial.reset()
        result = evaluate_robot(trial, agent.embodiment, args.seconds, args.episodes, seed=77)
        rows.append(
            {
                "planner": name,
                "p50 ms": float(np.percentile(times, 50)),
                "p99 ms": float(np.percentile(times, 99)),
                "reward/step": result.return_per_step,
                "velocity error m/s": result.velocity_error,
                "distance %": 100 * result.distance_ratio,
                "falls": f"{result.falls}/{result.episodes}",
            }
        )
    print_table(rows)
    if args.store:
        chosen = settings(agent.planner_config)
        stored = [
            {**row, "settings": to_mapping(chosen[row["planner"]]), "return": row["reward/step"]}
            for row in rows
        ]
        agent.save(args.bundle, measured=stored)
    save(args.out, args.name, rows, bundle=str(args.bundle), seconds=args.seconds)
    fig, axes = figure("Planner settings", "latency p50 (ms), one thread", "reward per decision")
    axes.set_xscale("log")
    for row in rows:
        axes.plot(row["p50 ms"], row["reward/step"], "o")
        axes.annotate(row["planner"], (row["p50 ms"], row["reward/step"]), (5, 5), textcoords="offset points")
    fig.savefig(args.out / f"{args.name}.png", dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(main())
