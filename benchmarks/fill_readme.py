"""Write the measured tables of benchmarks/results/*.json into README.md, between their markers."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from common import RESULTS, parser

README = Path(__file__).resolve().parents[1] / "README.md"

# name: heading, command, columns (all where empty)
TABLES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "quickstart_seeds": (
        "Ten seeds of the quickstart, 30 s each: distance is a share of the commanded one, latency is from "
        "the oldest sensor stamp to the published command",
        "python benchmarks/quickstart_seeds.py --seeds 10 --seconds 30",
        (
            "seed",
            "exit code",
            "distance %",
            "velocity error m/s",
            "falls",
            "stop speed m/s",
            "p50 ms",
            "p99 ms",
        ),
    ),
    "control_tick": (
        "The control tick over 60 s at 50 Hz, simulation beside it",
        "python benchmarks/quickstart_seeds.py --seeds 1 --seconds 60 --name control_tick",
        ("p50 ms", "p99 ms", "max ms", "missed", "commands", "planner MB"),
    ),
    "planner_tradeoff": (
        "Planner settings: latency of one decision on one thread against reward per decision on the "
        "evaluation course, with sensor noise and randomisation",
        "python benchmarks/planner_tradeoff.py --seconds 4",
        (),
    ),
    "training": (
        "The training run of the shipped bundle (the evaluation with the highest reward was taken)",
        "python benchmarks/training_curve.py runs/quadruped",
        ("step", "return_per_step", "velocity_error", "distance_ratio", "falls", "episodes"),
    ),
    "startup": ("From a fresh clone to the first command", "python benchmarks/startup.py", ()),
}


def table(name: str, content: dict[str, Any]) -> str:
    """One Markdown table with its command and the machine that it was measured on."""
    heading, command, columns = TABLES[name]
    names = columns or tuple(content["rows"][0])
    machine = content["machine"]
    clock = machine["clock_mhz"]
    where = f"{machine['cores']} cores" + (f" at {clock / 1000:.1f} GHz" if clock else "")
    lines = [f"**{heading}** ({where}):", "", "```bash", command, "```", ""]
    lines += ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in content["rows"]:
        lines.append("| " + " | ".join(_cell(row.get(key, "")) for key in names) + " |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def main() -> int:
    """Replace the text between the markers of every table whose JSON file exists."""
    parser(__doc__ or "", "python benchmarks/fill_readme.py").parse_args()
    text = README.read_text(encoding="utf-8")
    for name in TABLES:
        path = RESULTS / f"{name}.json"
        if not path.exists():
            print(f"{path.name}: not measured yet, left as it is")
            continue
        block = f"<!-- begin {name} -->\n{table(name, json.loads(path.read_text()))}\n<!-- end {name} -->"
        pattern = rf"<!-- begin {name} -->.*?<!-- end {name} -->"
        text = re.sub(pattern, lambda _, block=block: block, text, flags=re.S)
    README.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
