"""What a training run writes for people: CSV tables that survive a kill, TensorBoard when it is installed."""

from __future__ import annotations

import csv
from pathlib import Path


class CsvTable:
    """A CSV file that grows by whole rows; new columns rewrite the header once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []
        if path.exists() and path.stat().st_size:
            with open(path, newline="") as file:
                self._columns = next(csv.reader(file))

    def add(self, row: dict[str, float | int | str]) -> None:
        """Append one row and flush it."""
        fresh = [name for name in row if name not in self._columns]
        if fresh:
            old = self.rows()
            self._columns += fresh
            partial = self.path.with_suffix(".partial")
            with open(partial, "w", newline="") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(old)
            partial.replace(self.path)
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def rows(self) -> list[dict[str, str]]:
        """Every row so far, as text."""
        if not self.path.exists():
            return []
        with open(self.path, newline="") as file:
            return list(csv.DictReader(file))


class RunLog:
    """Training and evaluation tables of a run folder, mirrored to TensorBoard when it is installed."""

    def __init__(self, folder: Path) -> None:
        self._tables = {name: CsvTable(folder / f"{name}.csv") for name in ("train", "eval", "events")}
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._board = None
        else:
            self._board = SummaryWriter(str(folder / "tensorboard"))

    def scalars(self, table: str, step: int, values: dict[str, float]) -> None:
        """One row of ``table`` (train or eval) at agent step ``step``."""
        self._tables[table].add({"step": step, **{name: f"{value:.6g}" for name, value in values.items()}})
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{table}/{name}", value, step)

    def event(self, step: int, what: str) -> None:
        """Start, resume, checkpoint: one line with the step at which it happened."""
        self._tables["events"].add({"step": step, "event": what})
