"""The quickstart over several seeds: does the robot stay up and follow, what does a tick cost.

With `--busy N` as many loops compute beside it at the same priority, and simulated time waits for the
planner, as it does by default; without, it does not: latencies are those of a machine that must keep up.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from common import parser, print_table, results_of, save, script
from tqdm import tqdm

from tdmpc2_core.errors import natural, positive


def run(robot: str, seed: int, seconds: float, folder: Path, more: list[str]) -> dict:
    """One quickstart; its exit code and what it measured."""
    out = folder / f"seed{seed}"
    command = [sys.executable, "-m", "tdmpc2_ros.quickstart", robot, "--seconds", f"{seconds:g}"]
    command += ["--seed", str(seed), "--no-video", "--out", str(out), *more]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if not (out / "results.json").exists():
        raise SystemExit(f"seed {seed} gave no results: {finished.stderr.strip() or finished.stdout[-500:]}")
    return {"exit code": finished.returncode, **json.loads((out / "results.json").read_text())}


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Processes that compute and do nothing else, as long as the context lasts."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def main() -> int:
    """Print the table; write quickstart_seeds.json."""
    options = parser(__doc__ or "", "python benchmarks/quickstart_seeds.py --seeds 10 --seconds 30")
    options.add_argument("--robot", default="quadruped")
    options.add_argument("--seeds", type=natural, default=10)
    options.add_argument("--seconds", type=positive, default=30.0)
    options.add_argument("--name", default="quickstart_seeds", help="name of the JSON file")
    options.add_argument("--busy", type=natural, default=None, help="loops that compute beside it")
    options.add_argument("options", nargs="*", help="further options of the quickstart, after --")
    args = options.parse_args()
    args.out = results_of(args.out)
    rows, loops = [], args.busy or 0
    more = args.options + ([] if loops else ["--real-time"])
    with tempfile.TemporaryDirectory() as folder, busy(loops):
        for seed in tqdm(range(args.seeds), unit="run", file=sys.stderr):
            rows.append(row_of(seed, run(args.robot, seed, args.seconds, Path(folder), more)))
    print_table(rows)
    passed = sum(row["exit code"] == 0 for row in rows)
    worst = max(row["p99 ms"] for row in rows)
    print(f"{passed} of {len(rows)} runs passed; worst latency p99 of a run {worst:.1f} ms")
    save(args.out, args.name, rows, robot=args.robot, seconds=args.seconds, busy=loops, passed=passed)
    return 0


def row_of(seed: int, result: dict) -> dict:
    """The columns of one run."""
    score, planner = result["score"], result["planner"]
    latency = planner["latency_ms"]
    return {
        "seed": seed,
        "exit code": result["exit code"],
        "distance %": 100 * score["covered"],
        "velocity error m/s": score["velocity_error"],
        "falls": score["falls"],
        "stop speed m/s": score["stop_speed"],
        "p50 ms": latency["p50"],
        "p99 ms": latency["p99"],
        "max ms": latency["max"],
        "missed": planner["missed"],
        "commands": planner["commands"],
        "planner MB": result.get("planner_memory_mb", np.nan),
    }


if __name__ == "__main__":
    sys.exit(script(main))
