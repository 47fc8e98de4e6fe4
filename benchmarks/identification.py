"""True against identified parameters of simulated robots that were changed in one way each.

Every robot walks under a bundle's prior, with sensor noise and without randomisation; `tdmpc2 identify` is
told of the recorded episodes only.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import figure, parser, print_table, results_of, save, save_figure, script

from tdmpc2_core.agent import Agent
from tdmpc2_core.errors import natural, positive
from tdmpc2_core.identification import Identification, IdentifyConfig, identify
from tdmpc2_core.identification.simulated import MACHINES, machine, record
from tdmpc2_core.scoring.paired import acting


def rows_of(
    name: str, truth: dict[str, float], result: Identification, seconds: float
) -> list[dict[str, Any]]:
    """A row for each true value that was changed."""
    found = {one.parameter.name: one for one in result.found}
    return [
        {
            "change": name,
            "parameter": parameter,
            "true": true,
            "estimate": found[parameter].estimate,
            "low": found[parameter].low,
            "high": found[parameter].high,
            "inside": found[parameter].low <= true <= found[parameter].high,
            "identifiable": found[parameter].identifiable,
            "error before": result.before["all"],
            "error after": result.after["all"],
            "seconds": seconds,
        }
        for parameter, true in truth.items()
    ]


def main() -> int:
    """Print the table; write identification.json and identification.png."""
    options = parser(__doc__ or "", "python benchmarks/identification.py")
    options.add_argument("--bundle", default="quadruped", help="bundle folder or a shipped robot")
    options.add_argument("--robots", type=natural, default=15, help="episodes of a robot")
    options.add_argument("--seconds", type=positive, default=20.0, help="length of each")
    options.add_argument("--segments", type=natural, default=IdentifyConfig().segments)
    options.add_argument("--changes", nargs="*", help="some of the changes alone")
    args = options.parse_args()
    args.out = results_of(args.out, args.bundle)
    torch.set_num_threads(1)
    agent = Agent.load(args.bundle)
    robot = agent.embodiment
    assert robot is not None
    rows, every = [], {}
    for name in MACHINES:
        if args.changes and name not in args.changes:
            continue
        with tempfile.TemporaryDirectory() as folder:
            changed, truth = machine(robot, name)
            record(Path(folder), changed, acting(agent, "policy"), args.robots, args.seconds)
            started = time.perf_counter()
            result = identify(robot, [Path(folder)], IdentifyConfig(segments=args.segments))
            taken = time.perf_counter() - started
        every[name] = {one.parameter.name: [one.low, one.estimate, one.high] for one in result.found}
        rows += rows_of(name, truth, result, taken)
        print_table(rows[-len(truth) :])
    save(args.out, "identification", rows, bundle=str(args.bundle), intervals=every)
    fig, axes = figure("identified parameters", "true", "estimate, 95 % interval")
    for row in rows:
        spread = [[row["estimate"] - row["low"]], [row["high"] - row["estimate"]]]
        label = f"{row['change']}: {row['parameter']}"
        axes.errorbar(row["true"], row["estimate"], spread, fmt="o", capsize=3, label=label)
    axes.axline((0.0, 0.0), slope=1.0, color="0.7")
    axes.legend(fontsize=8)
    save_figure(fig, args.out / "identification.png")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
