"""Episode stores to and from data sets of LeRobot, v3.0 on disk, without LeRobot.

Layout: https://huggingface.co/docs/lerobot/lerobot-dataset-v3. What the layout has no place for is kept in
columns `tdmpc2/...` of the episodes' table, so that a data set written here comes back equal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2_core.data.episodes import Episode, EpisodeStore, read_episode, stored_files
from tdmpc2_core.data.exchange.tables import (
    OWN,
    PLANS,
    arrow,
    columns,
    episode_of,
    facts_of,
    from_table,
    planned,
    same_schema,
    to_table,
    write_rows,
)
from tdmpc2_core.data.statistics import Statistics
from tdmpc2_core.errors import UserError
from tdmpc2_core.files import making, replacing, write_json

_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_EPISODES = "meta/episodes/chunk-000/file-000.parquet"
_CHUNK, _FILE_BYTES = 1000, 100 * 2**20  # files of a chunk, bytes of a file, as LeRobot's own defaults
_KINDS = {"float": "float32", "double": "float64"}


def export_lerobot(store: Path, out: Path, fps: int | None, robot: str = "") -> None:
    """Write a store as a data set in a new folder.

    Args:
        fps: decisions per second; None: of the stamps that episodes from bags have.

    Raises:
        UserError: nothing to export, a damaged episode, an unknown rate, `out` exists.
    """
    files = stored_files(store)
    rate = fps or _rate(read_episode(files[0])[0], files[0])
    with making(out) as folder:
        export = _Export(folder, rate, any(planned(read_episode(file)[0]) for file in files))
        try:
            for file in files:
                export.add(file, *read_episode(file))
        finally:
            export.close()
        export.write_meta(robot)


def _rate(episode: Episode, file: Path) -> int:
    stamps = episode.raw.get("stamp")
    if stamps is None or len(stamps) < 2:
        raise UserError(f"{file}: does not say how often decisions were made; give --fps")
    return max(1, round(1.0 / float(np.median(np.diff(stamps)))))


class _Export:
    """A data set that grows episode by episode."""

    def __init__(self, folder: Path, fps: int, plans: bool) -> None:
        self._folder, self._fps, self._plans = folder, fps, plans
        self._frames, self._number, self._bytes = 0, -1, _FILE_BYTES
        self._writer: Any = None
        self._schema: Any = None
        self._episodes: list[dict[str, Any]] = []
        self._statistics: dict[str, Statistics] = {}
        self._shapes: dict[str, list[int]] = {}
        self._tasks: set[int] = set()

    def add(self, file: Path, episode: Episode, metadata: dict[str, Any]) -> None:
        """One more episode."""
        steps, number = len(episode), len(self._episodes)
        rows, last = columns(file, episode)
        if not self._plans:  # columns of nothing but NaN and zero would count as broken sensors
            rows = {name: values for name, values in rows.items() if name not in PLANS}
        frames = np.arange(steps)
        done = frames == steps - 1
        rows |= {
            "next.done": done,
            "timestamp": (frames / self._fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(steps, number),
            "index": self._frames + frames,
            "task_index": np.full(steps, episode.task),
        }
        table = to_table(rows)
        self._schema = same_schema(file, self._schema, table.schema)
        self._roll(table)
        for name, values in rows.items():
            width = 1 if values.ndim == 1 else values.shape[1]
            self._shapes[name] = [width]
            self._statistics.setdefault(name, Statistics(width)).add(values)
        self._tasks.add(episode.task)
        self._episodes.append(
            {
                "episode_index": number,
                "tasks": [_task(episode.task)],
                "length": steps,
                "data/chunk_index": self._number // _CHUNK,
                "data/file_index": self._number % _CHUNK,
                "dataset_from_index": self._frames,
                "dataset_to_index": self._frames + steps,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
            | facts_of(episode, metadata, last)
        )
        self._frames += steps

    def _roll(self, table: Any) -> None:
        """Write the table, to a new file where the last one is full."""
        if self._bytes >= _FILE_BYTES:
            self.close()
            self._number, self._bytes = self._number + 1, 0
            place = _DATA.format(chunk_index=self._number // _CHUNK, file_index=self._number % _CHUNK)
            path = self._folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = arrow().parquet.ParquetWriter(path, table.schema)
        self._writer.write_table(table)
        self._bytes += table.nbytes

    def close(self) -> None:
        """Finish the file that is being written."""
        if self._writer is not None:
            self._writer.close()

    def write_meta(self, robot: str) -> None:
        """Everything but the decisions."""
        (self._folder / _EPISODES).parent.mkdir(parents=True)
        write_rows(self._folder / _EPISODES, self._episodes)
        _write_tasks(self._folder / "meta/tasks.parquet", sorted(self._tasks))
        stats = {name: found.summary() for name, found in self._statistics.items()}
        write_json(self._folder / "meta/stats.json", stats)
        features = {}
        for name, shape in self._shapes.items():
            kind = self._schema.field(name).type
            kind = str(getattr(kind, "value_type", kind))
            features[name] = {"dtype": _KINDS.get(kind, kind), "shape": shape, "names": None}
        info = {
            "codebase_version": "v3.0",
            "robot_type": robot or None,
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": _CHUNK,
            "data_files_size_in_mb": _FILE_BYTES // 2**20,
            "video_files_size_in_mb": 200,
            "fps": self._fps,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": _DATA,
            "video_path": None,
            "features": features,
        }
        write_json(self._folder / "meta/info.json", info)


def _task(index: int) -> str:
    return f"task {index}"


def _write_tasks(path: Path, tasks: list[int]) -> None:
    """The table of tasks, whose index is the task's text: pandas reads it so."""
    pa = arrow()
    table = pa.table({"task_index": pa.array(tasks, pa.int64()), "task": [_task(index) for index in tasks]})
    described = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, kind, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": described, "pandas_version": "2.2"}
    with replacing(path) as partial:
        pa.parquet.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), partial)


def import_lerobot(folder: Path, out: Path) -> int:
    """Write a data set as a new store; returns the number of episodes.

    Raises UserError: no data set of v3, a missing column, `out` exists.
    """
    pa = arrow()
    try:
        info = json.loads((folder / "meta/info.json").read_text("utf-8"))
        version, data_path = str(info["codebase_version"]), str(info["data_path"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise UserError(f"{folder}: is no data set of LeRobot (meta/info.json: {problem})") from None
    if not version.startswith("v3"):
        raise UserError(
            f"{folder}: is of version {version}, v3 is read; convert it with LeRobot's own script"
        )
    with making(out) as made:
        store = EpisodeStore(made)
        try:
            for path in sorted((folder / "meta/episodes").rglob("*.parquet")):
                for facts in pa.parquet.read_table(path).to_pylist():
                    place = {"chunk_index": facts["data/chunk_index"], "file_index": facts["data/file_index"]}
                    file = folder / data_path.format(**place)
                    number = facts["episode_index"]
                    table = pa.parquet.read_table(file, filters=[("episode_index", "=", number)])
                    episode = episode_of(from_table(table), facts, f"{file}: episode {number}")
                    metadata = json.loads(facts.get(OWN + "metadata") or '{"source": "lerobot"}')
                    store.append(episode, **metadata)
        except (OSError, KeyError, pa.ArrowException) as problem:
            raise UserError(f"{folder}: is not a whole data set ({problem})") from None
        if not len(store):
            raise UserError(f"{folder}: holds no episodes")
        return len(store)
