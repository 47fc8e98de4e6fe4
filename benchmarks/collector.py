"""Decisions per second of simulated robots: many in arrays, and one after the other, without a learner.

Actions are small random ones; observations, rewards, noise, randomisation, pushes and resets are those of
training. Best and median of repeated runs, as other processes disturb them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from common import parser, print_table, save
from tqdm import tqdm

from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.envs.robot.env import RobotEnv
from tdmpc2_core.robots import Embodiment


def rates(step: Callable[[], Any], decisions: int, repeats: int, steps: int) -> np.ndarray:
    """Decisions per second of each repetition."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(steps):
            step()
        found.append(steps * decisions / (time.perf_counter() - started))
    return np.array(found)


def main() -> int:
    """Print the table; write collector.json."""
    options = parser(__doc__ or "", "python benchmarks/collector.py --robots quadruped --count 128")
    options.add_argument("--robots", nargs="+", default=["quadruped", "humanoid", "arm"])
    options.add_argument("--count", type=int, default=128, help="robots in the batch")
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="one row each")
    options.add_argument("--repeats", type=int, default=5, help="runs of each kind")
    args = options.parse_args()
    rows = []
    for name in tqdm(args.robots, unit="robot", file=sys.stderr):
        embodiment, rng = Embodiment.load(name), np.random.default_rng(0)
        action = rng.normal(0.0, 0.1, (args.count, embodiment.action_dim))
        single = RobotEnv(embodiment, 0)
        single.reset()

        def alone(env: RobotEnv = single, one: np.ndarray = action[0]) -> None:
            result = env.step(one)
            if result.terminated or result.truncated:
                env.reset()

        found = {"one after the other": rates(alone, 1, args.repeats, 300)}
        for threads in args.threads:
            batch = BatchEnv(embodiment, range(args.count), threads=threads)
            batch.reset()
            kind = f"{args.count} robots, {threads} threads"
            found[kind] = rates(partial(batch.step, action), args.count, args.repeats, 10)
        for kind, values in found.items():
            row = {"robot": name, "kind": kind}
            rows.append(row | {"best 1/s": float(values.max()), "median 1/s": float(np.median(values))})
        print_table(rows)
    save(args.out, "collector", rows, count=args.count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
