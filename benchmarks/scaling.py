"""How time and memory of a plan grow with samples, horizon, model size and robots planned for together.

One iteration, one thread; around size 1, 512 samples, horizon 3, one robot. Time should grow in proportion to
the multiply-adds: `exponent` is the slope of log time over log multiply-adds, 1 in theory, below where fixed
costs still show. Memory is the peak of a fresh process.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import figure, parser, print_table, results_of, save, save_figure, script
from tqdm import tqdm

from tdmpc2_core.model import WorldModel, world_model_config
from tdmpc2_core.planning import PlannerConfig, make_planner

OBS, ACTION = 24, 6
BASE = {"samples": 512, "horizon": 3, "size": 1, "robots": 1}
SWEEPS: dict[str, tuple[int, ...]] = {
    "samples": (64, 128, 256, 512, 1024, 2048, 4096),
    "horizon": (1, 2, 3, 5, 8, 12),
    "size": (1, 5, 19, 48, 317),
    "robots": (1, 2, 4, 8, 16, 32),
}


def multiply_adds(samples: int, horizon: int, size: int, robots: int) -> float:
    """Of one iteration, in 1e9: first step's latent part once per robot, two value heads."""
    c = world_model_config(size, OBS, ACTION)
    m, z, a = c.mlp_dim, c.latent_dim, c.action_dim
    dynamics, logits = a * m + m * m + m * z, a * m + m * m + m * c.num_bins
    latent = z * m * (2 * (horizon - 1) + 3)
    each = horizon * (dynamics + logits) + 2 * logits + m * m + 2 * a * m + latent
    return 1e-9 * robots * samples * each


def peak() -> float:
    """Largest memory of this process so far, MB."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")) / 1024


def measure(point: dict[str, int]) -> tuple[float, float]:
    """Median time of a plan, ms, and the peak memory, MB."""
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    model = WorldModel(world_model_config(point["size"], OBS, ACTION), random)
    config = PlannerConfig(num_samples=point["samples"], horizon=point["horizon"], iterations=1)
    planner = make_planner(model, config, 0.99, random)
    obs, first = torch.randn(point["robots"], OBS), torch.ones(point["robots"], dtype=torch.bool)
    planner.plan(obs, first, True)
    times: list[float] = []
    while len(times) < 2 or (sum(times) < 1500.0 and len(times) < 30):
        started = time.perf_counter()
        planner.plan(obs, first, True)
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times)), peak()


def main() -> int:
    """Print the tables; write scaling.json and .png."""
    args = parser(__doc__ or "", "python benchmarks/scaling.py").parse_args()
    args.out = results_of(args.out)
    points = [(name, value) for name, values in SWEEPS.items() for value in values]
    rows: list[dict[str, Any]] = []
    context = multiprocessing.get_context("fork")
    for name, value in tqdm(points, file=sys.stderr):
        point = BASE | {name: value}
        with context.Pool(1) as fresh:
            milliseconds, memory = fresh.apply(measure, (point,))
        rows.append(
            {
                "over": name,
                "value": value,
                "G multiply-adds": multiply_adds(**point),
                "ms": milliseconds,
                "peak MB": memory,
            }
        )
    print_table(rows)
    exponents = [_exponent(name, [row for row in rows if row["over"] == name]) for name in SWEEPS]
    print_table(exponents)
    save(args.out, "scaling", rows)
    save(args.out, "scaling_exponents", exponents)
    _plot(rows, args.out / "scaling.png")
    return 0


def _exponent(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    work, taken = (np.log([row[key] for row in rows]) for key in ("G multiply-adds", "ms"))
    return {
        "over": name,
        "from": rows[0]["value"],
        "to": rows[-1]["value"],
        "exponent": float(np.polyfit(work, taken, 1)[0]),
        "exponent of the last two": float((taken[-1] - taken[-2]) / (work[-1] - work[-2])),
        "MB per added unit": (rows[-1]["peak MB"] - rows[0]["peak MB"])
        / (rows[-1]["value"] - rows[0]["value"]),
    }


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    fig, axes = figure("One iteration of a plan on one thread", "multiply-adds (1e9)", "time (ms)")
    axes.set(xscale="log", yscale="log")
    for name in SWEEPS:
        part = [row for row in rows if row["over"] == name]
        axes.plot([row["G multiply-adds"] for row in part], [row["ms"] for row in part], "o-", label=name)
    axes.legend(title="over")
    save_figure(fig, path)


if __name__ == "__main__":
    sys.exit(script(main))
