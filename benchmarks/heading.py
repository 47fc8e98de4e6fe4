"""Whether a robot walks straight where it is sent: under stock controllers, without heading hold and with.

Each row is robots with sensor noise, random starts and randomised friction, mass and gains, under the step by
step model of ros2_control's controllers; commanded is one forward speed and no turn.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import parser, print_table, results_of, save, saved, script
from tqdm import tqdm

from tdmpc2_core.errors import natural, positive

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "tdmpc2_bringup" / "test"))

from stock_controllers import SPEEDS, walk


def row(
    robot: str,
    controller: str,
    hold: float | None,
    seconds: float,
    count: int,
    planner: str | None,
    first: int,
) -> dict[str, Any]:
    """Means over the robots."""
    label = f"{robot}, {controller}, {'no hold' if hold == 0.0 else 'hold'}"
    seeds = tqdm(range(count), label, unit="robot", file=sys.stderr)
    walks = [walk(robot, controller, seconds, planner, hold, first + seed) for seed in seeds]
    turns = np.array([one.yaw_rate for one in walks])
    return {
        "robot": robot,
        "controller": controller,
        "hold": "off" if hold == 0.0 else "on",
        "distance %": 100.0 * float(np.mean([one.covered for one in walks])),
        "along its body %": 100.0 * float(np.mean([one.along_body for one in walks])),
        "drift rad/s": float(turns.mean()),
        "size of drift rad/s": float(np.abs(turns).mean()),
        "lateral m": float(np.abs([one.lateral for one in walks]).mean()),
        "falls": f"{sum(one.fell is not None for one in walks)}/{count}",
    }


def main() -> int:
    """Print the table; write heading.json, where rows of other robots stay."""
    options = parser(__doc__ or "", "python benchmarks/heading.py --robot quadruped --robots 16 --seconds 20")
    options.add_argument("--robot", choices=sorted(SPEEDS), default="quadruped")
    options.add_argument("--robots", type=natural, default=16, help="in each row (default %(default)s)")
    options.add_argument("--seconds", type=positive, default=20.0, help="of each walk (default %(default)s)")
    options.add_argument("--planner", help="preset instead of the bundle's own, such as policy")
    options.add_argument("--seed", type=int, default=1000, help="of the first robot (default %(default)s)")
    args = options.parse_args()
    torch.set_num_threads(1)
    out = results_of(args.out)
    rows = [
        row(args.robot, controller, hold, args.seconds, args.robots, args.planner, args.seed)
        for controller in ("from desired", "forward")
        for hold in (0.0, None)
    ]
    print_table(rows)
    others = [one for one in saved(out, "heading")[0] if one["robot"] != args.robot]
    save(out, "heading", sorted([*others, *rows], key=lambda one: one["robot"] != "quadruped"))
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
