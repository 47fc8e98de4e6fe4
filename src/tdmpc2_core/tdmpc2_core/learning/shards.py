"""The published multi-task data sets, mt30 and mt80, and others of their layout: ``chunk_*.pt`` in a folder.

A chunk holds episodes of one length in tensors obs (n, T + 1, O), action (n, T + 1, A), reward (n, T + 1) and
task (n, T + 1); row t has the action that led to observation t and what it earned, row 0 of both is filler.
Chunks are mapped into memory, so that a set may be larger than it, and nothing that a pickle names is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmpc2_core.errors import UserError
from tdmpc2_core.learning.batch import Batch
from tdmpc2_core.learning.replay import concatenate

FIELDS = {"obs": 3, "action": 3, "reward": 2, "task": 2}
"""Tensors of a chunk, and their dimensions."""


class _Table:
    """Stands for a TensorDict in a file, of which only the tensors are wanted."""

    tensors: Any = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.tensors = state.get("_tensordict")


def _make_table(kind: type, state: dict[str, Any]) -> _Table:
    table = _Table()
    table.__setstate__(state)
    return table


_ALLOWED: list[Any] = [
    (_make_table, "tensordict._reductions._make_td"),
    (_Table, "tensordict._td.TensorDict"),
    (_Table, "tensordict.tensordict.TensorDict"),
    torch.Size,
]


def read_chunk(path: Path) -> dict[str, Tensor]:
    """The tensors of a chunk, mapped into memory: a tensordict as published, or a dictionary.

    Raises:
        UserError: the file is no such chunk.
    """
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as problem:  # torch names a damaged or foreign file in a dozen ways
        reason = str(problem).splitlines()[0][:200]
        raise UserError(f"{path}: is no chunk of episodes ({reason})") from None
    tensors = loaded.tensors if isinstance(loaded, _Table) else loaded
    if not isinstance(tensors, dict) or not FIELDS.keys() <= tensors.keys():
        raise UserError(f"{path}: a chunk has the tensors {', '.join(FIELDS)}")
    chunk = {name: tensors[name] for name in FIELDS}
    for name, dims in FIELDS.items():
        value = chunk[name]
        if not isinstance(value, Tensor) or value.ndim != dims or value.shape[:2] != chunk["obs"].shape[:2]:
            raise UserError(f"{path}: {name} is no tensor of {dims} dimensions as long as obs")
    return chunk


class Shards:
    """Windows from the chunks of a folder, every whole window of every episode alike.

    Raises:
        UserError: the folder holds no chunk, a chunk is damaged, or chunks differ in their sizes.
    """

    def __init__(self, folder: Path, generator: torch.Generator) -> None:
        paths = sorted(folder.glob("chunk_*.pt"), key=lambda path: (len(path.name), path.name))
        if not paths:
            raise UserError(f"{folder}: holds no chunk_*.pt; give the folder of a multi-task data set")
        self._chunks, self._generator = [read_chunk(path) for path in paths], generator
        sizes = {(chunk["obs"].shape[2], chunk["action"].shape[2]) for chunk in self._chunks}
        if len(sizes) > 1:
            raise UserError(f"{folder}: its chunks have different sizes of obs and action: {sorted(sizes)}")
        ((self.observation_dim, self.action_dim),) = sizes
        self.tasks = 1 + max(int(chunk["task"][:, 0].max()) for chunk in self._chunks)

    def __len__(self) -> int:
        """Decisions."""
        return sum(chunk["obs"].shape[0] * (chunk["obs"].shape[1] - 1) for chunk in self._chunks)

    def longest(self) -> int:
        """Decisions of the longest episode."""
        return max(chunk["obs"].shape[1] - 1 for chunk in self._chunks)

    def sample(self, batch_size: int, window: int) -> Batch:
        """`batch_size` windows of `window` decisions. Raises ValueError when no episode is as long."""
        starts = [chunk["obs"].shape[0] * max(chunk["obs"].shape[1] - window, 0) for chunk in self._chunks]
        if not any(starts):
            raise ValueError(f"no episode is as long as a window of {window} decisions")
        ends = torch.tensor(starts).cumsum(0)
        drawn = torch.randint(int(ends[-1]), (batch_size,), generator=self._generator).sort().values
        which = torch.searchsorted(ends, drawn, right=True)
        parts = [
            _windows(chunk, drawn[which == k] - (ends[k] - starts[k]), window)
            for k, chunk in enumerate(self._chunks)
            if bool((which == k).any())
        ]
        return concatenate(parts)


def _windows(chunk: dict[str, Tensor], drawn: Tensor, window: int) -> Batch:
    """Those of a chunk whose numbers, over episodes and starts in each, are `drawn` (n,)."""
    per_episode = chunk["obs"].shape[1] - window
    episode, start = drawn // per_episode, drawn % per_episode
    rows = start[None] + torch.arange(window + 1)[:, None]
    led = rows[1:]
    reward = chunk["reward"][episode[None], led].unsqueeze(-1)
    return Batch(
        obs=chunk["obs"][episode[None], rows],
        action=chunk["action"][episode[None], led],
        reward=reward,
        terminated=torch.zeros_like(reward),
        valid=torch.ones_like(reward),
        task=chunk["task"][episode, start].long(),
    )
