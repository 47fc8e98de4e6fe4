"""Episodes as Parquet: a row per decision, and a row per episode with what comes after its last decision."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.data.episodes import Episode, read_episode, stored_files
from tdmpc2_core.errors import UserError, missing_extra
from tdmpc2_core.files import making, replacing

NAMES = {
    "observation": "observation.state",
    "action": "action",
    "reward": "next.reward",
    "terminated": "next.terminated",
    "plan_mean": "plan_mean",
    "plan_std": "plan_std",
    "has_plan": "has_plan",
    "value": "value",
}
"""Columns of an episode's arrays."""
PLANS = ("plan_mean", "plan_std", "has_plan", "value")
RAW = "raw."
OWN = "tdmpc2/"  # before columns of the episodes' table that are this suite's
LAST = OWN + "last/"


def arrow() -> Any:
    """Module `pyarrow` with its `parquet`. Raises UserError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise missing_extra("Parquet", "pyarrow") from None
    return pyarrow


def columns(file: Path, episode: Episode) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Arrays (T, ...) by column, and rows (...) after the last decision of those that have one.

    Raises UserError for images and arrays of other lengths.
    """
    if episode.pixels is not None:
        raise UserError(f"{file}: has images, which are not exported; export a store without them")
    rows, last, steps = dict[str, NDArray[Any]](), dict[str, NDArray[Any]](), len(episode)
    arrays = {column: getattr(episode, name) for name, column in NAMES.items()}
    arrays |= {RAW + name: values for name, values in episode.raw.items()}
    for name, values in arrays.items():
        if len(values) not in (steps, steps + 1) or values.ndim > 2:
            raise UserError(f"{file}: {name} has shape {values.shape}, must have a row per decision")
        rows[name] = values[:steps]
        if len(values) > steps:
            last[name] = values[steps]
    return rows, last


def episode_of(rows: Mapping[str, NDArray[Any]], facts: Mapping[str, Any], place: str) -> Episode:
    """The episode of its rows (T, ...) by column and its row in the episodes' table.

    Of a foreign data set, which lacks the observation after the last action, the last decision is left out;
    unknown rewards and values are NaN.

    Raises UserError where a column is missing.
    """
    for column in (NAMES["observation"], NAMES["action"]):
        if column not in rows:
            raise UserError(f"{place}: has no column {column}; it is needed")
    last = {k.removeprefix(LAST): v for k, v in facts.items() if k.startswith(LAST) and v is not None}
    observed, own = rows[NAMES["observation"]], NAMES["observation"] in last
    steps = len(observed) if own else len(observed) - 1
    if steps < 1:
        raise UserError(f"{place}: an episode has no decision with an observation after it")
    width = rows["action"].reshape(len(observed), -1).shape[1]
    empty = {
        "reward": np.full(steps, np.nan, np.float32),
        "terminated": np.zeros(steps, bool),
        "plan_mean": np.zeros((steps, width), np.float32),
        "plan_std": np.zeros((steps, width), np.float32),
        "has_plan": np.zeros(steps, bool),
        "value": np.full(steps, np.nan, np.float32),
    }
    known = {name: rows[NAMES[name]][:steps] for name in empty if NAMES[name] in rows}
    raw = {
        name.removeprefix(RAW): _with_last(values, last.get(name))
        for name, values in rows.items()
        if name.startswith(RAW) and own
    }
    return Episode(
        observation=_with_last(observed, last[NAMES["observation"]]) if own else observed,
        action=rows["action"][:steps],
        **(empty | known),
        truncated=bool(facts.get(OWN + "truncated", True)),
        task=int(facts.get(OWN + "task", 0)),
        raw=raw,
    )


def _with_last(values: NDArray[Any], last: Any) -> NDArray[Any]:
    if last is None:
        return values
    return np.concatenate([values, np.asarray(last, values.dtype).reshape(1, *values.shape[1:])])


def planned(episode: Episode) -> bool:
    """Whether a planner left anything in the episode."""
    plans = episode.plan_mean.any() or episode.plan_std.any() or episode.has_plan.any()
    return bool(plans or np.isfinite(episode.value).any())


def to_table(rows: Mapping[str, NDArray[Any]]) -> Any:
    """An Arrow table of columns (T,) and (T, D); the latter as lists of D."""
    pa = arrow()
    made = {}
    for name, values in rows.items():
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        made[name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.table(made)


def from_table(table: Any) -> dict[str, NDArray[Any]]:
    """Columns (T,) and (T, D) of an Arrow table; what is neither numbers nor lists of them stays out."""
    pa, found = arrow(), dict[str, NDArray[Any]]()
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        kind = column.type
        if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
            values = column.flatten()
            if pa.types.is_primitive(values.type) and len(table) and len(values) % len(table) == 0:
                found[name] = values.to_numpy(zero_copy_only=False).reshape(len(table), -1)
        elif pa.types.is_primitive(kind):
            found[name] = column.to_numpy(zero_copy_only=False)
    return found


def facts_of(episode: Episode, metadata: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """This suite's own columns of an episode's row."""
    own = {"truncated": episode.truncated, "task": episode.task, "metadata": json.dumps(metadata)}
    # float32 values survive as doubles, which Arrow makes of Python's numbers
    return {OWN + name: value for name, value in own.items()} | {
        LAST + name: np.atleast_1d(values).tolist() for name, values in last.items()
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A Parquet file of plain values."""
    pa = arrow()
    with replacing(path) as partial:
        pa.parquet.write_table(pa.Table.from_pylist(list(rows)), partial)


def export_parquet(store: Path, out: Path) -> None:
    """A store as `decisions.parquet` and `episodes.parquet` in a new folder.

    Raises UserError: nothing to export, a damaged episode, episodes of different columns, `out` exists.
    """
    pa, files, facts, schema, writer = arrow(), stored_files(store), list[dict[str, Any]](), None, None
    with making(out) as folder:
        try:
            for number, file in enumerate(files):
                episode, metadata = read_episode(file)
                rows, last = columns(file, episode)
                table = to_table({"episode_index": np.full(len(episode), number)} | rows)
                writer = writer or pa.parquet.ParquetWriter(folder / "decisions.parquet", table.schema)
                schema = same_schema(file, schema, table.schema)
                writer.write_table(table)
                facts.append(
                    {"episode_index": number, "length": len(episode)} | facts_of(episode, metadata, last)
                )
        finally:
            if writer is not None:
                writer.close()
        write_rows(folder / "episodes.parquet", facts)


def same_schema(file: Path, known: Any, found: Any) -> Any:
    """The schema of all episodes so far. Raises UserError where a file has other columns."""
    if known is not None and not known.equals(found):
        odd = sorted(set(known.names) ^ set(found.names))
        what = f"columns {', '.join(odd)} are not in all episodes" if odd else "columns have other widths"
        raise UserError(f"{file}: {what}; export episodes of one kind from a store of their own")
    return found
