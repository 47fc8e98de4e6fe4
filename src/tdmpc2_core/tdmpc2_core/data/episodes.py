"""Episode store: an append-only folder of finished episodes, one safetensors file each.

A file appears under its final name only when it is whole (written aside, flushed, renamed), so a killed
process loses at most the episode in progress. The schema is the same for simulation, offline data and bags.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tdmpc2_core.errors import UserError
from tdmpc2_core.files import replacing

SCHEMA_VERSION = 1
_FLOATS = ("observation", "action", "reward", "plan_mean", "plan_std", "value")
_FLAGS = ("terminated", "has_plan")


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

    def __len__(self) -> int:
        return len(self.reward)


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
        for leftover in self.folder.glob("*.partial"):
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
        header = {
            "schema": str(SCHEMA_VERSION),
            "truncated": str(int(episode.truncated)),
            "metadata": json.dumps(metadata),
        }
        path = self.folder / f"{self._next:07d}.safetensors"
        with replacing(path, durable=True) as partial:
            partial.write_bytes(save(tensors, metadata=header))
        self._next += 1
        return path

    def __iter__(self) -> Iterator[tuple[Episode, dict[str, Any]]]:
        for path in self.paths():
            yield read_episode(path)


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
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable episode ({error}); remove the file to go on without it"
        ) from error
    for name in _FLAGS:
        arrays[name] = arrays[name].astype(bool)
    return Episode(**arrays, truncated=header["truncated"] == "1"), json.loads(header["metadata"])
