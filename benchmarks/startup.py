"""From nothing to the first step: a fresh clone, its set-up, and the start of the quickstart, twice."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import parser, print_table, results_of, save, script

ROOT = Path(__file__).resolve().parents[1]


def seconds(command: list[str], folder: Path, environment: dict[str, str], until: str | None = None) -> float:
    """Wall time of a command, or until it prints a line that holds `until`; it then runs on to its end."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines, seen = [], None
    for line in process.stdout:
        lines.append(line)
        if until is not None and seen is None and until in line:
            seen = time.perf_counter() - started
    if process.wait() not in (0, 1) or (until is not None and seen is None):
        raise SystemExit(f"{' '.join(command)} failed:\n{''.join(lines[-20:])}")
    return time.perf_counter() - started if until is None else seen


def main() -> int:
    """Print the table; write startup.json. Downloads count: the package index's speed is in the first row."""
    args = parser(__doc__ or "", "python benchmarks/startup.py").parse_args()
    args.out = results_of(args.out)
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "tdmpc2"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        environment = {
            k: v for k, v in os.environ.items() if k not in ("TDMPC2_VENV", "VIRTUAL_ENV", "PYTHONPATH")
        }
        setup = ["scripts/setup.sh"]
        start = ["scripts/quickstart.sh", "quadruped", "--seconds", "6", "--no-video"]
        rows = [
            {"step": "set-up of a fresh clone, downloads included", "s": seconds(setup, clone, environment)},
            {"step": "set-up, second call", "s": seconds(setup, clone, environment)},
            {"step": "quickstart to the first command", "s": seconds(start, clone, environment, "command")},
            {
                "step": "quickstart to the first command, again",
                "s": seconds(start, clone, environment, "command"),
            },
        ]
    print_table(rows)
    save(args.out, "startup", rows)
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
