"""Evaluation of a pose command: how many random goals a tool reaches in time and holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.robots.embodiment import Embodiment

HOLD_SECONDS = 0.5
"""The error of holding is the mean over this end of a goal's time."""


@dataclass(frozen=True)
class ReachEvaluation:
    """Over all goals of the evaluation episodes; errors are means while holding."""

    return_per_step: float
    success: float  # share of goals: reached in time and held at the end
    reached: float  # share of goals that the tool came to within the tolerance in time
    position_error: float  # m
    rotation_error: float  # rad
    falls: int
    goals: int
    episodes: int


def evaluate_reach(
    agent: Agent,
    embodiment: Embodiment,
    seconds: float,
    episodes: int = 8,
    seed: int = 0,
    randomise: bool = True,
) -> ReachEvaluation:
    """Run ``episodes`` robots side by side, each with random goals one after the other.

    A goal stands for ``command.resample_seconds``; at least one is given. No exploration noise.
    """
    spec = embodiment.pose_command
    assert spec is not None
    environments = [
        RobotEnv(embodiment, seed + index, EnvOptions(randomise=randomise)) for index in range(episodes)
    ]
    rate = embodiment.control_rate
    per_goal = max(1, round(spec.resample_seconds * rate))
    goals = max(1, round(seconds * rate) // per_goal)
    observations = np.stack([env.reset() for env in environments])
    first, alive = np.ones(episodes, dtype=bool), np.ones(episodes, dtype=bool)
    errors = np.full((goals * per_goal, episodes, 2), np.inf)  # m, rad
    rewards = np.zeros((goals * per_goal, episodes))
    agent.reset()
    for step in range(goals * per_goal):
        actions = agent.act(observations, first, evaluate=True).action
        first[:] = False
        for index in np.flatnonzero(alive):
            result = environments[index].step(actions[index])
            observations[index], rewards[step, index] = result.observation, result.reward
            errors[step, index] = result.info["position_error"], result.info["rotation_error"]
            alive[index] = not result.terminated
    by_goal = errors.reshape(goals, per_goal, episodes, 2)
    in_time, holding = round(spec.reach_seconds * rate), round(HOLD_SECONDS * rate)
    reached = by_goal[:, :in_time, :, 0].min(axis=1) <= spec.position_tolerance
    held = by_goal[:, -holding:].mean(axis=1)
    return ReachEvaluation(
        return_per_step=float(rewards.mean()),
        success=float((reached & (held[..., 0] <= spec.position_tolerance)).mean()),
        reached=float(reached.mean()),
        position_error=float(held[..., 0].mean()),
        rotation_error=float(held[..., 1].mean()),
        falls=int((~alive).sum()),
        goals=goals * episodes,
        episodes=episodes,
    )
