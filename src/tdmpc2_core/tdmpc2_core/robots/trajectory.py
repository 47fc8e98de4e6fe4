"""Playing joint trajectories in time, as joint_trajectory_controller does with positions-only points, and
averaging what was sampled along one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Trajectory(NamedTuple):
    """Joint targets (H, J), rad, in embodiment order and inside the limits; their times (H,), s from now."""

    points: NDArray[np.float64]
    times: NDArray[np.float64]


class TrajectoryPlayer:
    """Linear interpolation from the present target through the points received; then the last one is held.

    A new trajectory replaces the old one and starts from wherever the old one stands.
    """

    def __init__(self, position: np.ndarray) -> None:
        self.reset(position)

    def reset(self, position: np.ndarray) -> None:
        """Hold ``position`` (J,), rad."""
        self._times = np.zeros(1)
        self._points = np.array(position, dtype=np.float64)[None]

    def state(self) -> Trajectory:
        """The points that are played and their times on the caller's clock; no later call changes them."""
        return Trajectory(self._points, self._times)

    def restore(self, state: Trajectory) -> None:
        """Continue from a `state`."""
        self._points, self._times = state

    def set(self, points: np.ndarray, times: np.ndarray, now: float) -> None:
        """Play ``points`` (H, J), rad, reached ``times`` (H,), s after ``now``, increasing and positive."""
        start = self.sample(now)
        self._times = np.concatenate([[now], now + np.asarray(times, dtype=np.float64)])
        self._points = np.concatenate([start[None], points])

    def step_to(self, target: np.ndarray) -> None:
        """Jump to ``target`` (J,) and hold it, as a forward position controller does."""
        self.reset(target)

    def sample(self, now: float) -> np.ndarray:
        """Target (J,) at time ``now``, s."""
        times, points = self._times, self._points
        if now >= times[-1]:
            return points[-1].copy()
        if now <= times[0]:
            return points[0].copy()
        after = int(np.searchsorted(times, now, side="right"))
        share = (now - times[after - 1]) / (times[after] - times[after - 1])
        return points[after - 1] + share * (points[after] - points[after - 1])


def windowed_mean(times: np.ndarray, values: np.ndarray, seconds: float) -> np.ndarray:
    """Mean (T, N) of values (T, N) over a window, s, around each of the increasing times (T,), s."""
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    first = np.searchsorted(times, times - seconds / 2)
    end = np.searchsorted(times, times + seconds / 2, side="right")
    return (total[end] - total[first]) / (end - first)[:, None]
