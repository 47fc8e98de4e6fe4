"""Good runs that a `TrustCalibration` is fitted to: recorded ones, or the robot of a bundle in simulation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tdmpc2_core.control.gate_fit import BLOCK_SECONDS, Run
from tdmpc2_core.data.episodes import read_episode, stored_files
from tdmpc2_core.errors import UserError

if TYPE_CHECKING:
    from tdmpc2_core.agent import Agent

_ROBOTS = 60  # that run side by side


def recorded_runs(agent: Agent, folders: Sequence[Path]) -> list[Run]:
    """Runs of episode stores that did not end in a fall.

    Raises:
        UserError: a folder holds no episodes, or those of another robot.
    """
    runs = []
    for file in (file for folder in folders for file in stored_files(folder)):
        episode, _ = read_episode(file)
        agent.check_sizes(episode.observation.shape[1], episode.action.shape[1], str(file))
        if not episode.terminated.any():
            runs.append(Run(episode.observation[: len(episode)], episode.action))
    return runs


def simulated_runs(agent: Agent, hours: float, randomise: bool, seed: int = 0) -> Iterator[Run]:
    """Runs of `BLOCK_SECONDS` under the policy prior on drawn commands; those with a fall are left out.

    Args:
        hours: of all runs together, about.
        randomise: whether each robot is drawn from the embodiment's ranges and pushed, as in training.
        seed: of the first robot.
    """
    from tdmpc2_core.envs.robot.batch import BatchEnv
    from tdmpc2_core.envs.robot.env import EnvOptions

    robot = agent.embodiment
    if robot is None:
        raise UserError("calibration: trust is calibrated for bundles of one robot and one task")
    length = round(BLOCK_SECONDS * robot.control_rate)
    env = BatchEnv(robot, _ROBOTS, seed, EnvOptions(randomise=randomise))
    for _ in range(math.ceil(hours * 3600.0 / (_ROBOTS * BLOCK_SECONDS))):
        observation = env.reset()
        agent.reset()
        seen = np.empty((_ROBOTS, length, robot.observation_dim), np.float32)
        done = np.empty((_ROBOTS, length, robot.action_dim), np.float32)
        fell = np.zeros(_ROBOTS, bool)
        for t in range(length):
            first = np.full(_ROBOTS, t == 0)
            action = agent.act(observation, first, evaluate=True, use_prior=True).action
            seen[:, t], done[:, t] = observation, action
            step = env.step(action)
            observation = step.observation
            fell |= step.terminated | (step.truncated & (t + 1 < length))
        yield from (Run(seen[k], done[k]) for k in np.flatnonzero(~fell))
