"""Finished episodes in the rings of a replay memory, for draws that give every episode the same weight."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor


class EpisodeIndex:
    """Where finished episodes lie in rings of `capacity` rows, one ring per lane.

    The official code draws an episode first and a start inside it second, among episodes that hold a whole
    window: decisions of short episodes are seen more often than those of long ones.
    """

    def __init__(self, lanes: int, capacity: int) -> None:
        self.capacity = capacity
        self._written = np.zeros(lanes, dtype=np.int64)  # rows ever written
        self._open = np.zeros(lanes, dtype=np.int64)  # decisions of the episode in progress
        self._episodes: list[deque[tuple[int, int]]] = [
            deque() for _ in range(lanes)
        ]  # (first row, decisions)

    def add(self, lane: int, decisions: int = 1) -> None:
        """`decisions` more rows of the episode in progress were written."""
        self._written[lane] += decisions
        self._open[lane] += decisions

    def close(self, lane: int) -> None:
        """The episode in progress got its closing row."""
        length = int(self._open[lane])
        self._episodes[lane].append((int(self._written[lane]) - length, length))
        self._written[lane] += 1
        self._open[lane] = 0
        while self._episodes[lane] and self._episodes[lane][0][0] < self._written[lane] - self.capacity:
            self._episodes[lane].popleft()

    def usable(self, window: int) -> np.ndarray:
        """Rows (lane, first row, decisions) of the episodes that are whole and hold a window."""
        found = [
            (lane, first, length)
            for lane, episodes in enumerate(self._episodes)
            for first, length in episodes
            if length >= window and first >= self._written[lane] - self.capacity
        ]
        return np.array(found, dtype=np.int64).reshape(-1, 3)

    def draw(self, count: int, window: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Lanes and columns (count,) of starts: a uniform episode, then a uniform start inside it."""
        episodes = torch.from_numpy(self.usable(window))
        lane, first, length = episodes[torch.randint(len(episodes), (count,), generator=generator)].unbind(1)
        offset = (torch.rand(count, generator=generator, dtype=torch.float64) * (length - window + 1)).long()
        return lane, (first + offset) % self.capacity
