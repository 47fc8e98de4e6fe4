"""Bursts of action noise for collecting data: robots are thrown off their course now and then, and come back.

Between bursts the policy is left alone, so that the data also hold its recoveries; lengths are drawn.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc2_core.config import setting


@dataclass(frozen=True)
class BurstConfig:
    """How strong and how long bursts are; ranges hold both ends."""

    std: tuple[float, float] = setting(
        (0.05, 1.0), unit="normalised action", low=0, why="drawn per robot and episode: 1 is the whole range"
    )
    on: tuple[int, int] = setting((1, 50), unit="decisions", low=1, why="length of a burst")
    off: tuple[int, int] = setting((25, 500), unit="decisions", low=1, why="from a burst to the next")
    correlation: tuple[float, float] = setting(
        (0.0, 0.95),
        low=0,
        below=1,
        why="of the noise from decision to decision, drawn per burst: what is held moves a robot further",
    )
    clean_share: float = setting(
        0.025, low=0, high=1, why="episodes without noise: what the policy does alone"
    )

    def __post_init__(self) -> None:
        for name in ("std", "on", "off", "correlation"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be [lowest, highest], got [{low:g}, {high:g}]")


class BurstNoise:
    """The bursts of N robots.

    ::

        action = noise.disturb(action)
        step = batch.step(action)
        noise.restart(step.terminated | step.truncated)
    """

    def __init__(self, count: int, config: BurstConfig | None = None, seed: int = 0) -> None:
        self.config = config or BurstConfig()
        self._rng = np.random.default_rng(seed)
        self._std = np.zeros(count)  # of the episode; 0: it stays clean
        self._active = np.zeros(count, dtype=bool)
        self._left = np.zeros(count, dtype=np.int64)  # decisions until this burst or pause ends
        self._kept = np.zeros(count)  # correlation of the present burst
        self._noise: NDArray[np.float64] | None = None  # (N, A) of the last decision, unit variance
        self.restart(np.ones(count, dtype=bool))

    @property
    def active(self) -> NDArray[np.bool_]:
        """Whose next action is disturbed (N,)."""
        return self._active & (self._std > 0.0)

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviations of the episodes (N,); 0 where one stays clean."""
        return self._std.copy()

    def restart(self, began: ArrayLike) -> None:
        """New episodes of the robots (N,) bool: another strength, and a pause first."""
        rows = np.flatnonzero(began)
        noisy = self._rng.random(len(rows)) >= self.config.clean_share
        self._std[rows] = noisy * self._rng.uniform(*self.config.std, len(rows))
        self._active[rows] = False
        self._left[rows] = self._rng.integers(*self.config.off, len(rows), endpoint=True)

    def disturb(self, action: ArrayLike) -> NDArray[np.float64]:
        """What is sent for actions (N, A): clipped to [-1, 1], with Gaussian noise in a burst. Counts a
        decision."""
        sent = np.array(action, dtype=np.float64)
        if self._noise is None:
            self._noise = np.zeros_like(sent)
        rows = np.flatnonzero(self.active)
        kept, fresh = self._kept[rows, None], self._rng.normal(size=(len(rows), sent.shape[1]))
        self._noise[rows] = kept * self._noise[rows] + np.sqrt(1.0 - kept**2) * fresh
        sent[rows] += self._std[rows, None] * self._noise[rows]
        self._left -= 1
        over = self._left == 0
        self._active ^= over
        rows = np.flatnonzero(over & self._active)
        self._kept[rows] = self._rng.uniform(*self.config.correlation, len(rows))
        self._noise[rows] = self._rng.normal(size=(len(rows), sent.shape[1]))
        rows = np.flatnonzero(over)
        low, high = np.where(self._active[rows, None], self.config.on, self.config.off).T
        self._left[rows] = self._rng.integers(low, high, endpoint=True)
        return np.clip(sent, -1.0, 1.0)

    def state(self) -> dict[str, Any]:
        """Everything that the noise to come depends on."""
        return copy.deepcopy({name: getattr(self, name) for name in _CHANGES})

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`, bit for bit."""
        vars(self).update(copy.deepcopy(state))


_CHANGES = ("_rng", "_std", "_active", "_left", "_kept", "_noise")
