"""What every benchmark here shares: the machine's description, the table, the JSON file and the plot."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2_core.doctor import machine
from tdmpc2_core.files import write_json

RESULTS = Path(__file__).parent / "results"


def parser(description: str, example: str) -> argparse.ArgumentParser:
    """Options that every benchmark takes."""
    options = argparse.ArgumentParser(
        description=description,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file and the plot")
    return options


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


def figure(title: str, xlabel: str, ylabel: str):
    """A matplotlib figure and its axes; needs the `video` extra."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    fig, axes = pyplot.subplots(figsize=(7.0, 4.2), layout="constrained")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    return fig, axes
