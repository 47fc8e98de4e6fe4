"""Returns of DMControl training runs at the frames that they reached, beside the published curves.

A run's own evaluations choose its best bundle; that bundle is then measured on episodes of other seeds, with
its planner and with the policy prior alone. `--ship` puts it, with what was measured, among the bundles that
come with the suite. Published numbers: published_returns.csv, which names its source.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import figure, parser, print_table, results_of, save, save_figure, script

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.dmcontrol import ACTION_REPEAT
from tdmpc2_core.errors import natural
from tdmpc2_core.scoring.evaluation import evaluate_task

PUBLISHED = Path(__file__).with_name("published_returns.csv")
BUNDLES = Path(__file__).resolve().parents[1] / "src/tdmpc2_core/tdmpc2_core/bundles"


def published(task: str) -> list[dict[str, Any]]:
    """Published rows of a task: algorithm, frames, mean, std, seeds."""
    with open(PUBLISHED, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    numbers = ("frames", "mean", "std", "seeds")
    return [row | {name: float(row[name]) for name in numbers} for row in rows if row["task"] == task]


class Evaluated(NamedTuple):
    """Mean and spread of the returns of one evaluation, and the frames before it."""

    frames: int
    mean: float
    std: float


def curve(run: Path) -> list[Evaluated]:
    """A run's evaluations."""
    with open(run / "eval.csv", newline="", encoding="utf-8") as file:
        return [
            Evaluated(ACTION_REPEAT * int(row["step"]), float(row["mean_return"]), float(row["std_return"]))
            for row in csv.DictReader(file)
        ]


def measure(agent: Agent, episodes: int) -> list[dict[str, Any]]:
    """Returns of the bundle's planner and of its policy prior on seeds 0 to `episodes` - 1."""
    rows = []
    for planner in (None, "policy"):
        trial = agent.fork(planner)
        result = evaluate_task(trial, agent.tasks[0], episodes, seed=0)
        rows.append(
            {
                "planner": "policy prior" if planner else "bundle",
                "return": result.mean_return,
                "std": result.std_return,
                "lowest": result.lowest_return,
                "episodes": episodes,
            }
        )
    return rows


def main() -> int:
    """Print curve and measurement of each run; write dmcontrol_returns.json and .png."""
    example = "python benchmarks/dmcontrol_returns.py runs/cup-catch runs/walker-walk"
    options = parser(__doc__ or "", example)
    options.add_argument("runs", type=Path, nargs="+", help="folders of training runs on DMControl tasks")
    options.add_argument(
        "--episodes", type=natural, default=10, help="episodes of the measurement (default 10)"
    )
    options.add_argument("--ship", action="store_true", help="replace the suite's bundles of these tasks")
    args = options.parse_args()
    args.out = results_of(args.out, *args.runs)
    torch.set_num_threads(1)
    rows, measured = [], []
    fig, axes = figure("DMControl, small model on one core", "frames (control steps)", "return")
    for index, run in enumerate(args.runs):
        agent = Agent.load(run / "best")
        task, color = agent.tasks[0], f"C{index}"
        found = measure(agent, args.episodes)
        measured += [
            {"task": task, "frames": ACTION_REPEAT * agent.provenance["steps"], **row} for row in found
        ]
        points = curve(run)
        rows += [
            {"task": task, "by": "this suite", "frames": p.frames, "return": p.mean, "std": p.std, "seeds": 1}
            for p in points
        ]
        known = published(task)
        rows += [
            {
                "task": task,
                "by": f"{row['algorithm']} (published)",
                "frames": int(row["frames"]),
                "return": row["mean"],
                "std": row["std"],
                "seeds": int(row["seeds"]),
            }
            for row in known
        ]
        axes.plot([p.frames for p in points], [p.mean for p in points], "o-", color=color, label=task)
        reference = [row for row in known if row["algorithm"] == "tdmpc2"]
        axes.plot(
            [row["frames"] for row in reference],
            [row["mean"] for row in reference],
            "s--",
            color=color,
            alpha=0.5,
            label=f"{task}, TD-MPC2 published",
        )
        if args.ship:
            agent.save(BUNDLES / task, measured=found)
    print_table(rows)
    print_table(measured)
    save(args.out, "dmcontrol_returns", rows, measured=measured)
    axes.legend()
    save_figure(fig, args.out / "dmcontrol_returns.png")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
