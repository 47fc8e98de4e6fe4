"""One bundle of several bodies against the bundles of one robot each, on the same robots.

Robots of equal seeds meet the same commands or goals, noise, randomisation and pushes under both; what
differs is who acts. Differences are means over robots with 95 % bootstrap intervals. The error is that of the
horizontal velocity, or of the tool's position, in SI units; a robot that falls starts anew.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from common import parser, print_table, results_of, save, script

from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint.bundle import load_bundle
from tdmpc2_core.errors import UserError, natural, positive
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.paired import Gain, acting, gain, outcomes

NAME = "bodies"


def row_of(robot: Embodiment, found: Gain) -> dict[str, Any]:
    """One line of the table: the bundle of several, less the robot's own."""
    return {
        "robot": robot.name,
        "own bundle's reward": round(found.base, 3),
        "difference [95 %]": str(found.reward),
        "own bundle's error": round(found.base_error, 4),
        "error [95 %]": str(found.error),
        "falls (own bundle's)": f"{found.falls[0]} ({found.falls[1]})",
        "shake [95 %]": str(found.shake),
    }


def main() -> int:
    """Print the table; write bodies.json."""
    options = parser(__doc__ or "", "python benchmarks/bodies.py runs/bodies/checkpoint --robots 32")
    options.add_argument("bundle", type=Path, help="bundle of several bodies")
    options.add_argument("--planner", default="policy", help="preset of both; bundle: as each has it")
    options.add_argument("--robots", type=natural, default=32, help="of each body")
    options.add_argument("--seconds", type=positive, default=10.0)
    options.add_argument("--seed", type=int, default=1000)
    args = options.parse_args()
    args.out = results_of(args.out, args.bundle)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    whole = load_bundle(args.bundle)
    if not whole.bodies:
        raise UserError(f"{args.bundle}: drives no several robots; train one with `tdmpc2 pretrain`")
    planner = None if args.planner == "bundle" else args.planner
    rows, details = list[dict[str, Any]](), list[dict[str, Any]]()
    for robot in whole.bodies:
        both = [
            outcomes(
                acting(Agent.load(path, embodiment=robot, planner=planner)),
                robot, args.robots, args.seconds, args.seed,
            )
            for path in (args.bundle, robot.name)
        ]  # fmt: skip
        found = gain(*both)
        rows.append(row_of(robot, found))
        details.append({"robot": robot.name, "planner": args.planner, **asdict(found)})
        print_table(rows[-1:])
        about = {"updates": whole.provenance.get("updates"), "seconds": args.seconds, "seed": args.seed}
        save(args.out, NAME, rows, details=details, **about)
    print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
