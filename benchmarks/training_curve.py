"""The course of a training run, from its own logs: reward per decision, velocity error, falls."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from common import figure, parser, print_table, results_of, save, save_figure, script

from tdmpc2_core.errors import UserError


def rows_of(path: Path) -> list[dict[str, float]]:
    """The rows of a run's CSV table as numbers; empty cells are left out."""
    with open(path, newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def main() -> int:
    """Print the evaluations; write training.json and training.png beside the run, or where --out says."""
    options = parser(__doc__ or "", "python benchmarks/training_curve.py runs/quadruped")
    options.add_argument("run", type=Path, help="folder of a training run")
    options.add_argument("--name", default="training", help="name of the JSON file and the plot")
    args = options.parse_args()
    args.out = results_of(args.out, args.run)
    if not (args.run / "eval.csv").is_file():
        raise UserError(f"{args.run}: holds no eval.csv; give the folder of a run that was evaluated")
    evaluations, training = rows_of(args.run / "eval.csv"), rows_of(args.run / "train.csv")
    names = (
        "step",
        "plans",
        "return_per_step",
        "velocity_error",
        "yaw_rate_error",
        "distance_ratio",
        "falls",
        "episodes",
    )
    rows = [{name: row[name] for name in names if name in row} for row in evaluations]
    print_table(rows)
    last, told = training[-1], {"updates": "updates", "steps per second": "steps_per_second"}
    pace = {"step": last["step"]} | {name: last[key] for name, key in told.items() if key in last}
    save(args.out, args.name, rows, pace=pace)
    step = "updates" if "plans" in rows[0] else "agent steps"  # a student's run counts updates
    fig, axes = figure("Training on the robot's own course", step, "reward per decision")
    for label, who in (("evaluation", None), ("prior", 0.0), ("search", 1.0)):
        mine = [row for row in rows if row.get("plans") == who]
        if mine:
            axes.plot([r["step"] for r in mine], [r["return_per_step"] for r in mine], "o-", label=label)
    shown = [row for row in training if "return_per_step" in row]
    if shown:
        axes.plot(
            [r["step"] for r in shown], [r["return_per_step"] for r in shown], alpha=0.5, label="training"
        )
    axes.legend()
    save_figure(fig, args.out / f"{args.name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
