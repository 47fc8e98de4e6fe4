"""Latency of the ahead-of-time compiled planner beside the eager one, on the same model in turn."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import parser, print_table, save

from tdmpc2_core.export.aoti import CompiledPlanner, export_aoti
from tdmpc2_core.model import WorldModel, world_model_config
from tdmpc2_core.planning import MPPI, planner_preset

DISCOUNT = 0.99
OBS, ACTIONS = 24, 6


def main() -> int:
    """Print the table; write compiled_planner.json. Calls of both planners alternate."""
    options = parser(__doc__ or "", "python benchmarks/compiled_planner.py --sizes 1 5")
    options.add_argument("--sizes", nargs="+", default=["1"], help="model sizes (default 1)")
    options.add_argument("--preset", default="large", help="planner preset (default large, 512 x 6)")
    options.add_argument("--calls", type=int, default=30, help="plans of each (default 30)")
    args = options.parse_args()
    torch.set_num_threads(1)
    config = planner_preset(args.preset, ACTIONS)
    rows = []
    for size in args.sizes:
        model = WorldModel(world_model_config(int(size) if size.isdigit() else size, OBS, ACTIONS)).eval()
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "planner.pt2"
            started = time.perf_counter()
            export_aoti(model, config, DISCOUNT, path)
            export_seconds, megabytes = time.perf_counter() - started, path.stat().st_size / 1e6
            started = time.perf_counter()
            planners = {"compiled": CompiledPlanner(path)}
            load_seconds = time.perf_counter() - started
            planners["eager"] = MPPI(model, config, DISCOUNT, torch.Generator().manual_seed(0))
            times = {name: np.empty(args.calls) for name in planners}
            obs, first = torch.zeros(1, OBS), torch.tensor([False])
            for call in range(-3, args.calls):
                for name, planner in planners.items():
                    begun = time.perf_counter()
                    planner.plan(obs, first, evaluate=True)
                    if call >= 0:
                        times[name][call] = 1e3 * (time.perf_counter() - begun)
        row = {"size": size, "plan": f"{config.num_samples}x{config.iterations}"}
        for name, values in times.items():
            row |= {
                f"{name} p50 ms": float(np.median(values)),
                f"{name} p90 ms": float(np.quantile(values, 0.9)),
            }
        row |= {"export s": export_seconds, "load s": load_seconds, "MB": megabytes}
        rows.append(row)
    print_table(rows)
    save(args.out, "compiled_planner", rows, calls=args.calls, threads=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
