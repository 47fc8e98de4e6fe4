"""What training and evaluation know about an environment: its sizes, and how it is reset and stepped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tdmpc2_core.robots.embodiment import Embodiment


@dataclass(frozen=True)
class EnvSpec:
    """Sizes and times of a task; the same for every environment of it.

    Attributes:
        name: the name `make_env` takes.
        observation_dim: O.
        action_dim: A.
        episode_length: decisions until the time limit; the discount heuristic takes it
            (`learning.returns.discount_for`).
        control_period: s between decisions.
        terminates: whether an episode can end in a terminal state.
        embodiment: the robot; None for a benchmark task.
    """

    name: str
    observation_dim: int
    action_dim: int
    episode_length: int
    control_period: float
    terminates: bool
    embodiment: Embodiment | None = None


@dataclass
class StepResult:
    """One decision's outcome."""

    observation: np.ndarray  # (O,) float32
    reward: float
    terminated: bool  # a terminal state, such as a fall
    truncated: bool  # the episode's time is over
    info: dict[str, float] = field(default_factory=dict)  # of a robot: reward terms, tool errors


class Environment(Protocol):
    """One environment; its random numbers come from the seed it was made with."""

    @property
    def spec(self) -> EnvSpec:
        """Sizes and times."""
        ...

    def reset(self) -> np.ndarray:
        """New episode; returns the first observation (O,) float32."""
        ...

    def step(self, action: np.ndarray) -> StepResult:
        """Apply `action` (A,), entries in [-1, 1], for one control period."""
        ...
