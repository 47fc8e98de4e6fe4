"""Replay memory: one ring of rows per environment, inserted per decision and sampled as windows.

An episode of T decisions takes T + 1 rows: T rows (observation, action taken there, its outcome) and one
closing row that holds only the final observation. Start rows are uniform over decisions, or over episodes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tdmpc2_core.data.episodes import Episode
from tdmpc2_core.learning.batch import Batch


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


Sampling = Literal["decisions", "episodes"]


class ReplayBuffer:
    """Rings of ``capacity`` rows for each of ``lanes`` environments.

    Args:
        lanes: environments that insert side by side.
        capacity: rows per lane.
        device: where rows live and batches are made.
        generator: draws start rows; on the CPU.
        observation_dim: O; 0 where observations are images alone.
        sampling: "decisions": every stored decision alike; "episodes": every finished episode alike, whole
            windows alone, as the official code does.
        several_tasks: batches name the task of every window.
        images: shape (C, H, W) of the images that observations have, kept as bytes; None without.
        privileged_dim: P of what a simulator knows beside every observation; 0 without.
    """

    def __init__(
        self,
        lanes: int,
        capacity: int,
        observation_dim: int,
        action_dim: int,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
        sampling: Sampling = "decisions",
        several_tasks: bool = False,
        images: tuple[int, int, int] | None = None,
        privileged_dim: int = 0,
    ) -> None:
        self.lanes, self.capacity, self.device = lanes, capacity, torch.device(device)
        self.generator = generator or torch.Generator().manual_seed(0)
        # one row holds all of a decision, so that a window is read from one place in memory
        sizes = (observation_dim, action_dim, action_dim, action_dim, 5, privileged_dim)
        self._rows = torch.zeros(lanes * capacity, sum(sizes), device=self.device)
        self._sizes = sizes
        (
            self._observation,
            self._action,
            self._plan_mean,
            self._plan_std,
            self._scalars,  # reward, terminated, is a decision (not a closing row), has a plan, task
            self._privileged,
        ) = self._rows.split(sizes, 1)
        self._several_tasks = several_tasks
        self._images: Tensor | None = None
        if images is not None:
            self._images = torch.zeros(lanes * capacity, *images, dtype=torch.uint8, device=self.device)
        self._is_decision = torch.zeros(lanes, capacity, dtype=torch.bool)  # host copy, for drawing starts
        self._head = np.zeros(lanes, dtype=np.int64)  # next row to write
        self._filled = np.zeros(lanes, dtype=np.int64)
        self._index = EpisodeIndex(lanes, capacity) if sampling == "episodes" else None

    def __len__(self) -> int:
        return int(self._filled.sum())

    def _next_row(self, lane: int) -> int:
        row = int(self._head[lane])
        self._head[lane] = (row + 1) % self.capacity
        self._filled[lane] = min(self._filled[lane] + 1, self.capacity)
        return row

    def add(
        self,
        lane: int,
        observation: np.ndarray,
        action: np.ndarray,
        reward: float,
        terminated: bool,
        plan_mean: np.ndarray | None = None,
        plan_std: np.ndarray | None = None,
        task: int = 0,
        pixels: np.ndarray | None = None,
    ) -> None:
        """Insert one decision of environment ``lane``.

        Observation (O,), action (A,), its outcome, the planner's mean and std (A,) of that action, the task's
        index, and the image (C, H, W) where observations have one.
        """
        column = self._next_row(lane)
        row = lane * self.capacity + column
        self._observation[row] = torch.from_numpy(observation)
        self._action[row] = torch.from_numpy(np.asarray(action, dtype=np.float32))
        has_plan = plan_mean is not None
        if has_plan:
            self._plan_mean[row] = torch.from_numpy(np.asarray(plan_mean, dtype=np.float32))
            self._plan_std[row] = torch.from_numpy(np.asarray(plan_std, dtype=np.float32))
        self._scalars[row] = torch.tensor([reward, float(terminated), 1.0, float(has_plan), task])
        self._put_images(row, pixels)
        self._is_decision[lane, column] = True
        if self._index is not None:
            self._index.add(lane)

    def add_step(
        self,
        observation: Tensor,
        action: Tensor,
        reward: Tensor,
        terminated: Tensor,
        plan_mean: Tensor,
        plan_std: Tensor,
        privileged: Tensor,
    ) -> None:
        """Insert one decision of every lane, of state observations.

        Observations (N, O), actions (N, A), rewards and terminated (N,), plans (N, A), privileged (N, P).
        """
        lanes = np.arange(self.lanes)
        rows = self._next_rows(lanes, decision=True)
        self._observation[rows], self._action[rows] = observation, action
        self._plan_mean[rows], self._plan_std[rows] = plan_mean, plan_std
        ones = torch.ones_like(reward)
        flags = [reward, terminated.to(reward.dtype), ones, ones, torch.zeros_like(reward)]
        self._scalars[rows] = torch.stack(flags, 1)
        self._privileged[rows] = privileged

    def close_lanes(self, lanes: np.ndarray, observation: Tensor, privileged: Tensor) -> None:
        """End the episodes of these lanes (n,) with their final observations (n, O), privileged (n, P)."""
        rows = self._next_rows(lanes, decision=False)
        self._observation[rows], self._privileged[rows] = observation, privileged
        self._scalars[rows] = 0.0

    def _next_rows(self, lanes: np.ndarray, decision: bool) -> Tensor:
        """Rows to write of these lanes."""
        columns = self._head[lanes]
        self._head[lanes] = (columns + 1) % self.capacity
        self._filled[lanes] = np.minimum(self._filled[lanes] + 1, self.capacity)
        self._is_decision[lanes, columns] = decision
        return torch.from_numpy(lanes * self.capacity + columns).to(self.device)

    def _put_images(self, rows: int | Tensor, pixels: np.ndarray | None) -> None:
        if self._images is not None and pixels is not None:
            self._images[rows] = torch.from_numpy(pixels).to(self.device)

    def close(self, lane: int, observation: np.ndarray, pixels: np.ndarray | None = None) -> None:
        """End the episode of ``lane`` with its final observation (O,), and image where it has one."""
        column = self._next_row(lane)
        row = lane * self.capacity + column
        self._observation[row] = torch.from_numpy(observation)
        self._scalars[row] = 0.0
        self._put_images(row, pixels)
        self._is_decision[lane, column] = False
        if self._index is not None:
            self._index.close(lane)

    def add_episode(self, lane: int, episode: Episode) -> None:
        """Insert a whole episode, oldest rows of the lane falling out when it is full."""
        count = min(len(episode), self.capacity - 1)
        columns = (self._head[lane] + np.arange(count + 1)) % self.capacity
        rows = torch.from_numpy(lane * self.capacity + columns)
        keep = slice(len(episode) - count, None)
        self._observation[rows] = torch.from_numpy(episode.observation[keep]).to(self.device)
        body = rows[:-1]
        for target, source in (
            (self._action, episode.action),
            (self._plan_mean, episode.plan_mean),
            (self._plan_std, episode.plan_std),
        ):
            target[body] = torch.from_numpy(source[keep]).to(self.device)
        scalars = (episode.reward[keep], episode.terminated[keep], np.ones(count), episode.has_plan[keep])
        flags = np.stack([*scalars, np.full(count, episode.task)], axis=1)
        self._put_images(rows, None if episode.pixels is None else episode.pixels[keep])
        self._scalars[body] = torch.from_numpy(flags.astype(np.float32)).to(self.device)
        self._scalars[rows[-1]] = 0.0
        self._is_decision[lane, columns[:-1]] = True
        self._is_decision[lane, columns[-1]] = False
        self._head[lane] = (self._head[lane] + count + 1) % self.capacity
        self._filled[lane] = min(self._filled[lane] + count + 1, self.capacity)
        if self._index is not None:
            self._index.add(lane, count)
            self._index.close(lane)

    def can_sample(self, window: int) -> bool:
        """Whether some lane holds more rows than a window of ``window`` decisions needs.

        With sampling over episodes: whether some finished episode holds a window.
        """
        if self._index is not None:
            return len(self._index.usable(window)) > 0
        return bool((self._filled > window + 1).any())

    def _draw_starts(self, count: int, window: int) -> tuple[Tensor, Tensor]:
        """Lanes and columns of ``count`` decisions that have ``window`` rows written after them."""
        usable = torch.from_numpy(np.maximum(self._filled - window, 0))
        ends = torch.cumsum(usable, 0)
        heads = torch.from_numpy(self._head)
        filled = torch.from_numpy(self._filled)
        lanes = torch.empty(0, dtype=torch.int64)
        columns = torch.empty(0, dtype=torch.int64)
        while len(lanes) < count:
            draw = torch.randint(int(ends[-1]), (count + count // 4 + 8,), generator=self.generator)
            lane = torch.searchsorted(ends, draw, right=True)
            age = draw - (ends[lane] - usable[lane])  # rows after the oldest one
            column = (heads[lane] - filled[lane] + age) % self.capacity
            good = self._is_decision[lane, column]
            lanes, columns = torch.cat([lanes, lane[good]]), torch.cat([columns, column[good]])
        return lanes[:count], columns[:count]

    def sample(self, batch_size: int, window: int) -> Batch:
        """``batch_size`` windows of ``window`` decisions; steps after an episode's end are marked invalid.

        Raises:
            ValueError: fewer rows are stored than one window needs.
        """
        if not self.can_sample(window):
            raise ValueError(
                f"the replay buffer holds {len(self)} rows; a window needs {window + 2} in one lane"
            )
        if self._index is None:
            lane, column = self._draw_starts(batch_size, window)
        else:
            lane, column = self._index.draw(batch_size, window, self.generator)
        columns = (column[None] + torch.arange(window + 1)[:, None]) % self.capacity
        rows = (lane[None] * self.capacity + columns).to(self.device, non_blocking=True)
        drawn = self._rows.index_select(0, rows.view(-1)).view(*rows.shape, -1)
        observation, action, plan_mean, plan_std, scalars, privileged = drawn.split(self._sizes, -1)
        scalars = scalars[:-1]
        valid = torch.cumprod(scalars[..., 2:3], dim=0)
        images = None
        if self._images is not None:
            images = self._images.index_select(0, rows.view(-1)).view(*rows.shape, *self._images.shape[1:])
        alone = images is not None and not self._sizes[0]
        return Batch(
            obs=observation if images is None or not alone else images,
            action=action[:-1],
            reward=torch.where(valid > 0, scalars[..., 0:1], 0.0),  # NaN, unknown, stays in its row
            terminated=scalars[..., 1:2] * valid,
            valid=valid,
            plan_mean=plan_mean[:-1],
            plan_std=plan_std[:-1],
            has_plan=scalars[..., 3:4] * valid,
            task=scalars[0, :, 4].long() if self._several_tasks else None,
            pixels=None if alone else images,
            privileged=privileged if self._sizes[-1] else None,
        )


def concatenate(batches: list[Batch]) -> Batch:
    """Join batches of the same window along the batch dimension (dim 1)."""
    if len(batches) == 1:
        return batches[0]
    joined: dict[str, Any] = {}
    for name in (field.name for field in fields(Batch)):
        parts = [getattr(batch, name) for batch in batches]
        joined[name] = None if parts[0] is None else torch.cat(parts, dim=0 if name == "task" else 1)
    return Batch(**joined)
