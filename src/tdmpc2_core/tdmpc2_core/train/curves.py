"""The curves of training runs as a picture, from the tables in their folders."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from tdmpc2_core.errors import UserError
from tdmpc2_core.files import replacing

TABLES = ("train", "eval")
_STEPS = ("step", "decisions")  # what the first column of a table counts
_COLUMNS, _WIDTH, _HEIGHT = 4, 3.6, 2.4  # panels in a row, inches of each
Table = dict[str, list[float]]


def read_table(path: Path) -> Table:
    """Columns of a run's CSV table; NaN where a cell is empty or no number."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [_number(row[name]) for row in rows] for name in (rows[0] if rows else ())}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def draw_curves(runs: Sequence[Path], out: Path) -> int:
    """Write a picture with a panel for each measure of the runs' tables; returns how many panels.

    Raises:
        UserError: a folder holds no train.csv with rows.
        ModuleNotFoundError: matplotlib, of the extra `video`.
    """
    panels: dict[str, list[tuple[str, list[float], list[float]]]] = {}
    for run in runs:
        if not (run / "train.csv").is_file():
            raise UserError(f"{run}: holds no train.csv; give the folder of a training run")
        for kind in TABLES:
            path = run / f"{kind}.csv"
            table = read_table(path) if path.is_file() else {}
            along = next((name for name in _STEPS if name in table), None)
            for name, values in table.items():
                if along and name not in _STEPS and any(map(math.isfinite, values)):
                    panels.setdefault(f"{kind}: {name}", []).append((run.name, table[along], values))
    if not panels:
        raise UserError(f"{runs[0]}: train.csv has no rows yet; wait for the first")
    _draw(panels, out)
    return len(panels)


def _draw(panels: dict[str, list[tuple[str, list[float], list[float]]]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    size = (_WIDTH * columns, _HEIGHT * rows)
    fig, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis, (title, curves) in zip(axes.flat, panels.items(), strict=False):
        axis.set_title(title, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        for name, steps, values in curves:
            axis.plot(steps, values, ".-", label=name, linewidth=1, markersize=3)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    axes.flat[0].legend(fontsize=7)
    with replacing(out) as partial:
        fig.savefig(partial, dpi=110)
    pyplot.close(fig)
