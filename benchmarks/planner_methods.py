"""Every planner at several budgets: return, and latency of one decision for one robot on one thread.

Return: reward per decision of a robot on the evaluation course, with sensor noise and randomisation, or the
mean return of whole episodes of a benchmark task; no exploration. CPU time is the thread's own, so that other
processes do not count; latency is what the clock says.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import figure, parser, print_table, results_of, save, save_figure, script
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint import manifest
from tdmpc2_core.config import to_mapping
from tdmpc2_core.errors import natural, positive
from tdmpc2_core.planning import GradientConfig, PlannerConfig
from tdmpc2_core.scoring.evaluation import evaluate_robot

NAME = "planner_methods"
_WARM_UP = 5
_MEASURED = ("return", "p50 ms", "p99 ms", "cpu ms")


def budgets(shipped: PlannerConfig) -> dict[str, PlannerConfig]:
    """Planners to compare; what is not named here is as in the bundle's own settings."""
    found = {"policy prior": replace(shipped, method="policy")}
    mppi = replace(shipped, method="mppi", horizon=3, num_pi_trajs=24)
    for samples, iterations in ((48, 1), (64, 1), (64, 2), (96, 2), (128, 3), (256, 3)):
        search = replace(mppi, num_samples=samples, num_elites=samples // 8, iterations=iterations)
        found[f"mppi {samples} x {iterations}"] = search
    for horizon, iterations in ((8, 1), (8, 2), (8, 3), (8, 6), (12, 3)):
        ascent = GradientConfig(iterations=iterations)
        name = f"gradient x {iterations}, horizon {horizon}"
        found[name] = replace(shipped, method="gradient", horizon=horizon, gradient=ascent)
    for samples, iterations in ((48, 2), (64, 4)):
        search = replace(mppi, method="mppi+gradient", num_samples=samples, num_elites=8, iterations=1)
        name = f"mppi {samples} x 1 + gradient x {iterations}"
        found[name] = replace(search, gradient=GradientConfig(elites=2, iterations=iterations))
    return found


def latencies(agent: Agent, planners: dict[str, PlannerConfig], calls: int) -> dict[str, dict[str, float]]:
    """Wall and CPU times (ms) of decisions, the planners taking turns so that all meet the same load."""
    trials = {name: agent.fork(config) for name, config in planners.items()}
    observation = np.zeros(agent.model.config.obs_dim, dtype=np.float32)
    wall: dict[str, list[float]] = {name: [] for name in planners}
    cpu: dict[str, list[float]] = {name: [] for name in planners}
    for k in tqdm(range(_WARM_UP + calls), unit="round", file=sys.stderr):
        for name, trial in trials.items():
            times = time.perf_counter(), time.thread_time()
            trial.plan(observation, now=0.0, first=k == 0)
            if k >= _WARM_UP:
                wall[name].append(1e3 * (time.perf_counter() - times[0]))
                cpu[name].append(1e3 * (time.thread_time() - times[1]))
    return {
        name: {
            "p50 ms": float(np.percentile(wall[name], 50)),
            "p99 ms": float(np.percentile(wall[name], 99)),
            "cpu ms": float(np.median(cpu[name])),
        }
        for name in planners
    }


def score(agent: Agent, seconds: float, episodes: int) -> dict[str, Any]:
    """`return` and what else the evaluation of a robot or a task says."""
    if agent.embodiment is not None:
        robot = evaluate_robot(agent, agent.embodiment, seconds, episodes, seed=77)
        falls = f"{robot.falls}/{robot.episodes}"
        return {"return": robot.return_per_step, "error m/s": robot.velocity_error, "falls": falls}
    from tdmpc2_core.scoring.evaluation import evaluate_task

    task = evaluate_task(agent, agent.tasks[0], episodes, seed=77)
    return {"return": task.mean_return, "std": task.std_return}


def measure(
    bundle: str, args: argparse.Namespace, known: dict[tuple[str, str], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of one bundle; `known` rows give the part that is left out."""
    agent = Agent.load(bundle)
    subject = agent.embodiment.name if agent.embodiment else ", ".join(agent.tasks)
    planners = {n: c for n, c in budgets(agent.planner_config).items() if args.only in n}
    rows = {name: dict(known.get((subject, name), {})) for name in planners}
    if args.part != "returns":
        for name, times in latencies(agent, planners, args.calls).items():
            rows[name].update(times)
    if args.part != "latency":
        for name, config in tqdm(planners.items(), unit="planner", file=sys.stderr):
            rows[name].update(score(agent.fork(config), args.seconds, args.episodes))
    for name, config in planners.items():
        rows[name].update({"bundle": subject, "planner": name, "settings": to_mapping(config)})
    if args.store:
        complete = [row for row in rows.values() if all(key in row for key in _MEASURED)]
        agent.save(manifest.find(Path(bundle)), measured=complete)
    return list(rows.values())


def main() -> int:
    """Print a table per bundle; write planner_methods.json and .png."""
    options = parser(__doc__ or "", "python benchmarks/planner_methods.py --bundle runs/walker/best")
    options.add_argument("--bundle", action="append", help="bundle or shipped robot (default quadruped)")
    options.add_argument("--seconds", type=positive, default=4.0, help="length of a robot's episode")
    options.add_argument("--episodes", type=natural, default=8, help="side by side")
    options.add_argument("--calls", type=natural, default=200, help="decisions that latency is measured over")
    options.add_argument("--only", default="", help="planners whose name holds this text")
    options.add_argument(
        "--part", choices=("all", "latency", "returns"), default="all", help="the other part is kept"
    )
    options.add_argument("--store", action="store_true", help="also write the rows into the bundle")
    args = options.parse_args()
    args.out = results_of(args.out, *(args.bundle or ()))
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    path = args.out / f"{NAME}.json"
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    known = {(row["bundle"], row["planner"]): row for row in old}
    for bundle in args.bundle or ["quadruped"]:
        rows = measure(bundle, args, known)
        known |= {(row["bundle"], row["planner"]): row for row in rows}
        shown = [
            "bundle",
            "planner",
            *[key for key in rows[0] if key not in ("bundle", "planner", "settings")],
        ]
        print_table([{key: row.get(key, "") for key in shown} for row in rows])
        ranked = sorted(known.values(), key=lambda row: (row["bundle"], row.get("p50 ms", 0.0)))
        save(args.out, NAME, ranked, seconds=args.seconds, episodes=args.episodes)
    plot(list(known.values()), args.out)
    return 0


def plot(rows: list[dict[str, Any]], folder: Path) -> None:
    """Return against CPU time, a line per method; one picture per bundle."""
    for subject in dict.fromkeys(row["bundle"] for row in rows):
        fig, axes = figure(f"Planners: {subject}", "CPU time of a decision (ms), one thread", "return")
        for mark, method in zip("soD^", ("policy", "mppi", "gradient", "mppi+gradient"), strict=True):
            chosen = [
                (row["cpu ms"], row["return"])
                for row in rows
                if row["bundle"] == subject
                and row["settings"]["method"] == method
                and all(key in row for key in _MEASURED)
            ]
            if chosen:
                axes.plot(*zip(*sorted(chosen), strict=True), mark, label=method)
        axes.set_xscale("log")
        if axes.lines:
            axes.legend()
        save_figure(fig, folder / f"{NAME}_{subject.replace(' ', '_')}.png")


if __name__ == "__main__":
    sys.exit(script(main))
