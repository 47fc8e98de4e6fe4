"""Decisions per second of simulated robots without a learner: many in arrays, beside one after the other.

Observations, rewards, noise, randomisation, pushes and resets are those of training; actions are smooth noise
under which robots fall and start anew. The kinds take turns, as other processes disturb them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from common import parser, print_table, results_of, save, script
from tqdm import tqdm

from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.envs.robot.env import RobotEnv
from tdmpc2_core.errors import natural
from tdmpc2_core.robots import Embodiment

Step = Callable[[np.ndarray], None]


def smooth(steps: int, robots: int, size: int) -> np.ndarray:
    """Actions (T, N, A)."""
    rng = np.random.default_rng(0)
    actions = rng.normal(0.0, 0.2, (steps, robots, size))
    for index in range(1, steps):
        actions[index] += 0.8 * actions[index - 1]
    return actions


def one_after_the_other(embodiment: Embodiment, count: int) -> Step:
    """`RobotEnv`, as many as the batch has."""
    environments = [RobotEnv(embodiment, seed) for seed in range(count)]
    for env in environments:
        env.reset()

    def step(actions: np.ndarray) -> None:
        for env, action in zip(environments, actions, strict=True):
            result = env.step(action)
            if result.terminated or result.truncated:
                env.reset()

    return step


def in_arrays(embodiment: Embodiment, count: int, threads: int) -> Step:
    """`BatchEnv`."""
    batch = BatchEnv(embodiment, count, threads=threads)
    batch.reset()

    def step(actions: np.ndarray) -> None:
        batch.step(actions)

    return step


def measure(kinds: dict[str, Step], actions: np.ndarray, repeats: int, steps: int) -> list[dict[str, float]]:
    """A row per kind: decisions per second, best and median of the repetitions; processor time of one."""
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    processor: dict[str, list[float]] = {kind: [] for kind in kinds}
    for repeat in range(repeats):
        part = np.arange(repeat * steps, (repeat + 1) * steps) % len(actions)
        for kind, step in kinds.items():
            wall, used = time.perf_counter(), time.process_time()
            for index in part:
                step(actions[index])
            decisions = steps * actions.shape[1]
            rates[kind].append(decisions / (time.perf_counter() - wall))
            processor[kind].append(1e6 * (time.process_time() - used) / decisions)
    return [
        {
            "best 1/s": float(np.max(rates[kind])),
            "median 1/s": float(np.median(rates[kind])),
            "processor us": float(np.min(processor[kind])),
        }
        for kind in kinds
    ]


def main() -> int:
    """Print the table; write collector.json."""
    options = parser(__doc__ or "", "python benchmarks/collector.py --robots quadruped --count 128")
    options.add_argument("--robots", nargs="+", default=["quadruped", "humanoid", "arm"])
    options.add_argument("--count", type=natural, default=128, help="robots in the batch")
    options.add_argument("--threads", type=natural, nargs="+", default=[1, 2], help="one row each")
    options.add_argument("--repeats", type=natural, default=40, help="runs of each kind")
    options.add_argument("--steps", type=natural, default=20, help="decisions of every robot in a run")
    args = options.parse_args()
    args.out = results_of(args.out)
    rows = []
    for name in tqdm(args.robots, unit="robot", file=sys.stderr):
        embodiment = Embodiment.load(name)
        kinds = {"RobotEnv": one_after_the_other(embodiment, args.count)}
        for threads in args.threads:
            kinds[f"BatchEnv, threads={threads}"] = in_arrays(embodiment, args.count, threads)
        actions = smooth(400, args.count, embodiment.action_dim)
        found = measure(kinds, actions, args.repeats, args.steps)
        rows += [{"robot": name, "kind": kind, **row} for kind, row in zip(kinds, found, strict=True)]
    print_table(rows)
    save(args.out, "collector", rows, robots=args.count)
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
