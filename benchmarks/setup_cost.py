"""What the first look costs in time and disk: a fresh clone under an empty home, set-up and first quickstart.

Downloaded is the sum of the sizes that pip names, and of wheels that it takes from folders of this machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from common import parser, print_table, results_of, save, script
from startup import ROOT, seconds

_UNITS = {"B": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}
_NAMED = re.compile(r"^ *Downloading \S+ \(([\d.]+) (B|kB|MB|GB)\)$", re.M)
_OF_ANOTHER = (
    *("TDMPC2_VENV", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH"),
    *("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "XDG_CACHE_HOME"),
)
_LOCAL = re.compile(r"^ *Processing (\S+\.whl)", re.M)


def downloaded(log: str) -> float:
    """MB that a set-up's log tells of."""
    named = sum(float(size) * _UNITS[unit] for size, unit in _NAMED.findall(log))
    local = sum(Path(path).stat().st_size for path in _LOCAL.findall(log) if Path(path).is_file())
    return named + 1e-6 * local


def disk(folder: Path) -> float:
    """MB that a folder takes."""
    found = subprocess.run(["du", "-sk", str(folder)], capture_output=True, text=True, check=True)
    return 1.024e-3 * int(found.stdout.split()[0])


def environment(home: Path) -> dict[str, str]:
    """Of a user who has nothing yet."""
    kept = {name: value for name, value in os.environ.items() if name not in _OF_ANOTHER}
    if own := os.environ.get("VIRTUAL_ENV"):
        parts = kept["PATH"].split(os.pathsep)
        kept["PATH"] = os.pathsep.join(part for part in parts if not part.startswith(own))
    return kept | {"HOME": str(home)}


def main() -> int:
    """Print the table; write setup_cost.json."""
    args = parser(__doc__ or "", "python benchmarks/setup_cost.py").parse_args()
    out = results_of(args.out)
    with tempfile.TemporaryDirectory() as scratch:
        home, clone = Path(scratch) / "home", Path(scratch) / "tdmpc2"
        home.mkdir()
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        given, rows = environment(home), [{"what": "disk of the clone, MB", "value": disk(clone)}]
        setup = seconds(["scripts/setup.sh"], clone, given)
        log = (clone / ".venv" / ".tdmpc2" / "setup.log").read_text()
        quickstart = seconds(["scripts/quickstart.sh", "quadruped"], clone, given)
        rows += [
            {"what": "set-up, s", "value": setup},
            {"what": "downloaded, MB", "value": downloaded(log)},
            {"what": "first quickstart, film included, s", "value": quickstart},
            {"what": "disk of .venv, MB", "value": disk(clone / ".venv")},
            {"what": "disk of the first run's results, MB", "value": disk(clone / "runs")},
            {"what": "disk in the home, caches of pip among it, MB", "value": disk(home)},
        ]
    print_table(rows)
    save(out, "setup_cost", rows)
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
