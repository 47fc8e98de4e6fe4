"""Episode store: an append-only folder of finished episodes, one safetensors file each.

A file appears under its final name only when it is whole (written aside, flushed, renamed), so a killed
process loses at most the episode in progress. The schema is the same for simulation, offline data and bags.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tdmpc2_core.errors import UserError
from tdmpc2_core.files import write_bytes

SCHEMA_VERSION = 1
_FLOATS = ("observation", "action", "reward", "plan_mean", "plan_std", "value")
_FLAGS = ("terminated", "has_plan")
_RAW = "raw/"  # before the names of raw arrays in a file


@dataclass
class Episode:
    """A stretch of one robot's experience, numpy, float32 unless said otherwise.

    ``observation`` has one row more than the others: the last is the observation after the last action.
    """

    observation: np.ndarray  # (T + 1, O)
    action: np.ndarray  # (T, A)
    reward: np.ndarray  # (T,)
    terminated: np.ndarray  # (T,) bool
    plan_mean: np.ndarray  # (T, A)
    plan_std: np.ndarray  # (T, A)
    has_plan: np.ndarray  # (T,) bool
    value: np.ndarray  # (T,) the planner's estimate, NaN where no planner acted
    truncated: bool  # the last step was cut by time, not by failure
    task: int = 0  # index among the tasks of the agent that learns from it
    pixels: np.ndarray | None = None  # (T + 1, C, 64, 64) uint8, where the observation has images
    raw: dict[str, np.ndarray] = field(default_factory=dict)  # what the observation was made from, by name

    def __len__(self) -> int:
        return len(self.reward)


class _Row(NamedTuple):
    """One decision; `plan_mean` and `plan_std` are None where no planner acted."""

    action: np.ndarray
    reward: float
    terminated: bool
    plan_mean: np.ndarray | None
    plan_std: np.ndarray | None
    value: float


class EpisodeRecorder:
    """Collects one episode row by row; task: its index among the agent's tasks."""

    def __init__(self, first_observation: np.ndarray, task: int = 0) -> None:
        self._observations = [first_observation]
        self._rows: list[_Row] = []
        self._task = task

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        observation: np.ndarray,
        action: np.ndarray,
        reward: float,
        terminated: bool,
        plan_mean: np.ndarray | None = None,
        plan_std: np.ndarray | None = None,
        value: float = np.nan,
    ) -> None:
        """One decision: the action taken and the observation it led to."""
        self._observations.append(observation)
        self._rows.append(_Row(action, reward, terminated, plan_mean, plan_std, value))

    def episode(self, truncated: bool) -> Episode:
        """The episode so far."""
        rows, nothing = self._rows, np.zeros_like(self._rows[0].action)

        def planned(name: str) -> np.ndarray:
            values = [getattr(row, name) for row in rows]
            return np.asarray([nothing if value is None else value for value in values], np.float32)

        return Episode(
            observation=np.asarray(self._observations, dtype=np.float32),
            action=np.asarray([row.action for row in rows], dtype=np.float32),
            reward=np.asarray([row.reward for row in rows], dtype=np.float32),
            terminated=np.asarray([row.terminated for row in rows], dtype=bool),
            plan_mean=planned("plan_mean"),
            plan_std=planned("plan_std"),
            has_plan=np.asarray([row.plan_mean is not None for row in rows]),
            value=np.asarray([row.value for row in rows], dtype=np.float32),
            truncated=truncated,
            task=self._task,
        )


class EpisodeStore:
    """Numbered episodes in a folder; several readers and one writer.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"{self.folder}: episodes cannot be written here ({error.strerror}); choose a writable folder"
            ) from error
        for leftover in self.folder.glob(".*.partial*"):
            leftover.unlink()
        paths = self.paths()
        self._next = int(paths[-1].stem) + 1 if paths else 0

    def paths(self) -> list[Path]:
        """Files of the finished episodes, oldest first."""
        return sorted(self.folder.glob("[0-9]*.safetensors"))

    def __len__(self) -> int:
        return len(self.paths())

    def append(self, episode: Episode, **metadata: str | int | float) -> Path:
        """Write ``episode``; ``metadata`` (source, lane, model version, ...) is kept with it as JSON."""
        tensors = {name: np.ascontiguousarray(getattr(episode, name), dtype=np.float32) for name in _FLOATS}
        tensors |= {name: getattr(episode, name).astype(np.uint8) for name in _FLAGS}
        if episode.pixels is not None:
            tensors["pixels"] = np.ascontiguousarray(episode.pixels, dtype=np.uint8)
        tensors |= {_RAW + name: np.ascontiguousarray(values) for name, values in episode.raw.items()}
        header = {
            "schema": str(SCHEMA_VERSION),
            "truncated": str(int(episode.truncated)),
            "task": str(episode.task),
            "metadata": json.dumps(metadata),
        }
        path = self.folder / f"{self._next:07d}.safetensors"
        write_bytes(path, save(tensors, metadata=header), durable=True)
        self._next += 1
        return path

    def __iter__(self) -> Iterator[tuple[Episode, dict[str, Any]]]:
        for path in self.paths():
            yield read_episode(path)


def stored_files(path: Path) -> list[Path]:
    """Files of an episode store. Raises UserError without any."""
    files = sorted(path.glob("[0-9]*.safetensors"))
    if not files and (path / "metadata.yaml").is_file():
        raise UserError(f"{path}: is a rosbag2; give the folder of an episode store")
    if not files:
        raise UserError(f"{path}: holds no episodes; give the folder of an episode store")
    return files


def read_episode(path: Path) -> tuple[Episode, dict[str, Any]]:
    """One stored episode and its metadata.

    Raises:
        UserError: the file is not a whole episode of a schema this version reads.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if int(header.get("schema", "-1")) != SCHEMA_VERSION:
                raise UserError(
                    f"{path}: episode schema {header.get('schema')!r}, this version reads {SCHEMA_VERSION}"
                )
            arrays = {name: file.get_tensor(name) for name in (*_FLOATS, *_FLAGS)}
            names = file.keys()
            pixels = file.get_tensor("pixels") if "pixels" in names else None
            raw = {name.removeprefix(_RAW): file.get_tensor(name) for name in names if name.startswith(_RAW)}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable episode ({error}); remove the file to go on without it"
        ) from error
    for name in _FLAGS:
        arrays[name] = arrays[name].astype(bool)
    episode = Episode(
        **arrays,
        truncated=header["truncated"] == "1",
        task=int(header.get("task", 0)),  # episodes from before tasks have none
        pixels=pixels,
        raw=raw,
    )
    return episode, json.loads(header["metadata"])
