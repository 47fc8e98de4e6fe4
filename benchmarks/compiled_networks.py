"""Compiled networks against the plain rollout: a plan of the shipped quadruped, taking turns in one run.

Exits 1 where a plan of 64 x 1 on one thread takes more than 0.6 of the plain time.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np
import torch
from common import parser, print_table, results_of, save, script
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.errors import natural
from tdmpc2_core.files import shipped_bundle
from tdmpc2_core.planning import planner_preset

BAR = 0.6
PLANS = {"64 x 1": {"num_samples": 64, "iterations": 1}, "512 x 6": {"num_samples": 512, "iterations": 6}}


def pairs(agents: dict[str, Agent], rounds: int) -> dict[str, np.ndarray]:
    """Times (ms) of `rounds` plans each, in turns, after plans that do not count."""
    observation = np.zeros(next(iter(agents.values())).model.config.obs_dim, np.float32)
    times: dict[str, list[float]] = {name: [] for name in agents}
    for index in range(-3, rounds):
        for name, agent in agents.items():
            started = time.perf_counter()
            agent.plan(observation, 0.0)
            if index >= 0:
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: np.array(values) for name, values in times.items()}


def main() -> int:
    """Print the table; write compiled_networks.json."""
    options = parser(__doc__ or "", "python benchmarks/compiled_networks.py --rounds 60")
    options.add_argument(
        "--rounds", type=natural, default=40, help="plans of each kind (a tenth for 512 x 6)"
    )
    options.add_argument(
        "--threads", type=natural, nargs="+", default=[1, 2], help="torch threads, one row each"
    )
    args = options.parse_args()
    args.out = results_of(args.out)
    torch.set_flush_denormal(True)
    agent = Agent.load(shipped_bundle("quadruped"))
    rows, good = [], True
    for threads in tqdm(args.threads, unit="threads", file=sys.stderr):
        torch.set_num_threads(threads)
        for name, size in PLANS.items():
            search = replace(agent.planner_config, **size) if name == "64 x 1" else planner_preset("large")
            kinds = {"compiled": agent.fork(search), "plain": agent.fork(replace(search, kernels="off"))}
            times = pairs(kinds, args.rounds if name == "64 x 1" else max(args.rounds // 10, 3))
            ratio = float(np.median(times["compiled"] / times["plain"]))
            good &= ratio <= BAR or name != "64 x 1" or threads > 1
            medians = {f"{kind} ms": float(np.median(values)) for kind, values in times.items()}
            rows.append({"plan": name, "threads": threads, **medians, "ratio": ratio})
    print_table(rows)
    save(args.out, "compiled_networks", rows, bar=BAR, rounds=args.rounds)
    if not good:
        print(f"64 x 1: compiled networks take more than {BAR} of the plain rollout's time", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(script(main))
