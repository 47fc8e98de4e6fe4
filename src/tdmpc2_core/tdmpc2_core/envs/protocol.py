"""What training and evaluation know about an environment: its sizes, and how it is reset and stepped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from tdmpc2_core.robots.embodiment import Embodiment

ObservationKind = Literal["state", "pixels", "both"]


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
        observation_kind: state, pixels (images alone), or both.
        task: index among the tasks of an agent that knows several; 0 for one that knows one.
        embodiment: the robot; None for a benchmark task.
    """

    name: str
    observation_dim: int
    action_dim: int
    episode_length: int
    control_period: float
    terminates: bool
    embodiment: Embodiment | None = None
    observation_kind: ObservationKind = "state"
    task: int = 0


@dataclass
class StepResult:
    """One decision's outcome."""

    observation: np.ndarray  # (O,) float32; empty where there are images alone
    reward: float
    terminated: bool  # a terminal state, such as a fall
    truncated: bool  # the episode's time is over
    info: dict[str, float] = field(default_factory=dict)  # of a robot: reward terms, tool errors
    pixels: np.ndarray | None = None  # (C, 64, 64) uint8, where the observation has images


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
