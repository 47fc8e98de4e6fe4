"""One plan and one update, side by side with the official code: same cores, same run, taking turns.

O 24, A 6; 512 samples, 6 iterations, horizon 3; batch 256. `floor` is the time that the multiply-adds need
(two value heads, the first step's latent part once) at the rate of matrix products of the planner's shapes,
measured between the calls with as many threads. The official side needs its own interpreter and a checkout
that runs on a CPU: see `official_side.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import figure, parser, print_table, results_of, save, save_figure, script
from official_side import ACTION, BATCH, HORIZON, OBS
from tqdm import tqdm

from tdmpc2_core.errors import natural
from tdmpc2_core.learning import Batch, Learner, LearnerConfig
from tdmpc2_core.learning.memory import keep_freed_memory
from tdmpc2_core.model import WorldModel, WorldModelConfig, world_model_config
from tdmpc2_core.model.kernels import KernelChoice
from tdmpc2_core.planning import make_planner, planner_preset

SIDE = Path(__file__).with_name("official_side.py")


class Official:
    """The other process; only one of the two works at a time."""

    def __init__(self, folder: Path, python: Path, threads: int) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment["OMP_NUM_THREADS"] = str(threads)
        command = [str(python), str(SIDE), str(folder.resolve()), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the official side ended; its own message stands above")
        return line

    def milliseconds(self, kind: str, size: int) -> float:
        """Time of one call there."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {size}\n")
        self._process.stdin.flush()
        return float(self._answer())


def ours(size: int, kernels: KernelChoice) -> dict[str, Callable[[], Any]]:
    """The two calls of this suite."""
    random = torch.Generator().manual_seed(0)
    model = WorldModel(world_model_config(size, OBS, ACTION), random)
    planner = make_planner(model, replace(planner_preset("paper"), kernels=kernels), 0.99, random)
    learner = Learner(model, LearnerConfig(horizon=HORIZON, batch_size=BATCH, kernels=kernels), random)
    obs, first = torch.randn(1, OBS), torch.tensor([False])
    batch = Batch(
        obs=torch.randn(HORIZON + 1, BATCH, OBS),
        action=torch.rand(HORIZON, BATCH, ACTION) * 2 - 1,
        reward=torch.randn(HORIZON, BATCH, 1),
        terminated=torch.zeros(HORIZON, BATCH, 1),
        valid=torch.ones(HORIZON, BATCH, 1),
    )
    return {"plan": lambda: planner.plan(obs, first, True), "update": lambda: learner.update(batch)}


def products(c: WorldModelConfig) -> list[tuple[int, int, int, float]]:
    """Matrix products (rows, in, out, how often) of one plan with the paper's settings."""
    paper, m, z = planner_preset("paper"), c.mlp_dim, c.latent_dim
    rows, times, steps = paper.num_samples, paper.iterations, paper.horizon
    first = 2 * (steps - 1) + 1 + 2  # dynamics and reward after the first step, policy, two value heads
    inner = 2 * steps + 1 + 2
    return [
        (rows, z, m, times * first),
        (rows, c.action_dim, m, times * (2 * steps + 2)),
        (rows, m, m, times * inner),
        (rows, m, z, times * steps),
        (rows, m, c.num_bins, times * (steps + 2)),
        (rows, m, 2 * c.action_dim, times),
    ]


def floor(c: WorldModelConfig) -> tuple[float, float]:
    """Floor of one plan, ms, and the rate that it comes from, GFLOP/s: the products at their own shapes."""
    milliseconds = operations = 0.0
    for rows, inputs, outputs, times in products(c):
        a, b, out = torch.randn(rows, inputs), torch.randn(inputs, outputs), torch.empty(rows, outputs)
        taken = []
        for _ in range(6):
            started = time.perf_counter()
            torch.mm(a, b, out=out)
            taken.append(time.perf_counter() - started)
        milliseconds += 1e3 * times * float(np.median(taken))
        operations += 2.0 * times * rows * inputs * outputs
    return milliseconds, operations / milliseconds / 1e6


def main() -> int:
    """Print the table; write against_official.json and .png."""
    options = parser(__doc__ or "", "python benchmarks/against_official.py --official DIR --python PY")
    options.add_argument("--official", type=Path, required=True, help="checkout of the official code")
    options.add_argument("--python", type=Path, required=True, help="interpreter of its environment")
    options.add_argument("--sizes", type=natural, nargs="+", default=[1, 5], help="model sizes")
    options.add_argument("--threads", type=natural, default=1, help="threads of both sides")
    options.add_argument("--calls", type=natural, default=15, help="timed calls of each kind on each side")
    options.add_argument("--kernels", choices=["off", "auto"], default="auto", help="compiled kernels, ours")
    options.add_argument("--name", help="of the JSON file (default says the threads)")
    args = options.parse_args()
    args.out = results_of(args.out)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    official, rows = Official(args.official, args.python, args.threads), []
    for size in args.sizes:
        mine, config = ours(size, args.kernels), world_model_config(size, OBS, ACTION)
        for kind in ("plan", "update"):
            times: dict[str, list[float]] = {"ours": [], "official": [], "floor": [], "rate": []}
            for turn in tqdm(range(args.calls + 2), desc=f"size {size} {kind}", file=sys.stderr):
                started = time.perf_counter()
                mine[kind]()
                own = 1e3 * (time.perf_counter() - started)
                other = official.milliseconds(kind, size)
                if turn < 2:
                    continue
                bound, rate = floor(config) if kind == "plan" else (np.nan, np.nan)
                for name, value in zip(times, (own, other, bound, rate), strict=True):
                    times[name].append(value)
            rows.append(_row(size, kind, {k: np.array(v) for k, v in times.items()}))
    print_table(rows)
    name = args.name or "against_official" + (f"_{args.threads}_threads" if args.threads > 1 else "")
    save(
        args.out,
        name,
        rows,
        threads=args.threads,
        calls=args.calls,
        kernels=args.kernels,
        torch=torch.__version__,
    )
    _plot(rows, args.threads, args.out / f"{name}.png")
    return 0


def _row(size: int, kind: str, times: dict[str, np.ndarray]) -> dict[str, Any]:
    def spread(values: np.ndarray) -> str:
        low, high = np.percentile(values, (25, 75))
        return f"{low:.0f}..{high:.0f}"

    own, other = times["ours"], times["official"]
    share = times["floor"] / own
    is_plan = kind == "plan"
    return {
        "call": f"{kind}, size {size}",
        "ours ms": float(np.median(own)),
        "quartiles": spread(own),
        "official ms": float(np.median(other)),
        "its quartiles": spread(other),
        "ratio": float(np.median(own) / np.median(other)),
        "ratio of pairs": float(np.median(own / other)),
        "floor ms": float(np.median(times["floor"])) if is_plan else "",
        "GFLOP/s": float(np.median(times["rate"])) if is_plan else "",
        "floor / ours %": float(100 * np.median(share)) if is_plan else "",
        "fastest ms": float(own.min()),
        "its fastest ms": float(other.min()),
    }


def _plot(rows: list[dict[str, Any]], threads: int, path: Path) -> None:
    fig, axes = figure(f"One call on {threads} thread(s)", "", "median (ms)")
    place = np.arange(len(rows))
    axes.bar(place - 0.2, [row["official ms"] for row in rows], 0.4, label="official code")
    axes.bar(place + 0.2, [row["ours ms"] for row in rows], 0.4, label="this suite")
    axes.set_xticks(place, [row["call"] for row in rows])
    axes.legend()
    save_figure(fig, path)


if __name__ == "__main__":
    sys.exit(script(main))
