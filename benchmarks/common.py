"""What every benchmark here shares: the machine's description, the table, the JSON file and the plot."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2_core.checkpoint.manifest import is_bundle
from tdmpc2_core.doctor import machine
from tdmpc2_core.errors import CommandLine, exit_code
from tdmpc2_core.files import replacing, write_json

RESULTS = Path(__file__).parent / "results"


def parser(description: str, example: str) -> CommandLine:
    """Options that every benchmark takes."""
    options = CommandLine(
        description=description,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument(
        "--out",
        type=Path,
        help="folder of the JSON file and the plot (default: beside a run or bundle of one's own, else the "
        "published ones)",
    )
    return options


def results_of(out: Path | None, *subjects: str | Path | None) -> Path:
    """`out`, or the folder of the first run or bundle among the subjects, or that of published results."""
    if out is not None:
        return out
    for folder in (Path(subject) for subject in subjects if subject is not None):
        if folder.is_dir():  # a bundle is replaced as a whole, so results lie beside it
            return folder.resolve().parent if is_bundle(folder) else folder
    return RESULTS


def script(main: Callable[[], int | None]) -> int:
    """Exit code of a benchmark; 2 after a sentence about a mistake."""
    return exit_code(Path(sys.argv[0]).name, main)


def milliseconds(call: Callable[[], Any], count: int, warm_up: int = 5) -> np.ndarray:
    """Wall times of `count` calls (ms), after `warm_up` calls that do not count."""
    for _ in range(warm_up):
        call()
    times = np.empty(count)
    for index in range(count):
        started = time.perf_counter()
        call()
        times[index] = 1e3 * (time.perf_counter() - started)
    return times


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Rows of equal keys as aligned columns."""
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def save(folder: Path, name: str, rows: Sequence[dict[str, Any]], **more: Any) -> None:
    """Write `name`.json with the rows and the machine that they were measured on."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), **more, "rows": list(rows)}
    write_json(folder / f"{name}.json", content)


def saved(folder: Path, name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows and details of an earlier `save` of that name; empty lists where there is none."""
    path = folder / f"{name}.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    return old.get("rows", []), old.get("details", [])


def figure(title: str, xlabel: str, ylabel: str):
    """A matplotlib figure and its axes; needs the `video` extra."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    fig, axes = pyplot.subplots(figsize=(7.0, 4.2), layout="constrained")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    return fig, axes


def save_figure(fig: Any, path: Path, dpi: int = 110) -> None:
    """Write a picture, whole or not at all."""
    with replacing(path) as partial:
        fig.savefig(partial, dpi=dpi)
