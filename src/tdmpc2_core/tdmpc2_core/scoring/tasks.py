"""Evaluation on a benchmark task: undiscounted returns of whole episodes, as they are published."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.registry import make_env


@dataclass(frozen=True)
class TaskEvaluation:
    """Returns of the evaluation episodes."""

    mean_return: float
    std_return: float  # over episodes, population
    lowest_return: float
    return_per_step: float
    episodes: int


def evaluate_task(agent: Agent, task: str, episodes: int = 10, seed: int = 0) -> TaskEvaluation:
    """Run `episodes` environments of `task` side by side to their time limit; no exploration noise.

    Args:
        agent: acts; its plans are forgotten first.
        task: name of a benchmark task, see `envs.registry.make_env`.
        episodes: environments; environment i has seed `seed` + i.
        seed: of the first environment.

    Raises:
        UserError: there is no such task, or its package is not installed.
    """
    environments = [make_env(task, seed + index) for index in range(episodes)]
    observations = np.stack([env.reset() for env in environments])
    first = np.ones(episodes, dtype=bool)
    returns, running = np.zeros(episodes), np.ones(episodes, dtype=bool)
    steps = 0
    agent.reset()
    while running.any():
        actions = agent.act(observations, first, evaluate=True).action
        first[:] = False
        for index in np.flatnonzero(running):
            result = environments[index].step(actions[index])
            observations[index] = result.observation
            returns[index] += result.reward
            steps += 1
            running[index] = not (result.terminated or result.truncated)
    return TaskEvaluation(
        mean_return=float(returns.mean()),
        std_return=float(returns.std()),
        lowest_return=float(returns.min()),
        return_per_step=float(returns.sum()) / steps,
        episodes=episodes,
    )
