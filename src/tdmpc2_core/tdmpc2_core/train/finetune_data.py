"""What fine-tuning reads: recorded episodes, checked; the robot's own simulation; what identifies them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tdmpc2_core.agent import Agent
from tdmpc2_core.data.episodes import Episode, EpisodeRecorder, EpisodeStore, read_episode, stored_files
from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.envs.robot.bursts import BurstNoise
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.train.finetune_config import SimulationConfig


def read_stores(paths: Sequence[str | os.PathLike[str]], agent: Agent) -> list[Episode]:
    """All episodes of several episode stores, checked against the agent's sizes.

    Raises:
        UserError: no store, a damaged episode, or one of another robot.
    """
    episodes = list[Episode]()
    for file in (file for path in paths for file in stored_files(Path(path))):
        episode, _ = read_episode(file)
        agent.check_sizes(episode.observation.shape[1], episode.action.shape[1], f"{file}:")
        if not (np.isfinite(episode.observation).all() and np.isfinite(episode.action).all()):
            raise UserError(f"{file}: an observation or action is not finite; remove the file")
        if len(episode):
            episodes.append(episode)
    if not episodes:
        raise UserError("no store is given; give the folder of an episode store")
    return episodes


def digest_of(path: Path) -> str:
    """sha256 over the files of an episode store, hex."""
    total = hashlib.sha256()
    for file in stored_files(path):
        total.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def simulated(
    agent: Agent,
    embodiment: Embodiment,
    store: EpisodeStore,
    config: SimulationConfig,
    seed: int,
    told: Callable[[int], None] = lambda decisions: None,
) -> None:
    """Episodes of a simulated robot that the agent's planner drives, into `store`, with bursts of noise.

    Those of robots that have not fallen end, truncated, with the last decision.

    Args:
        told: called after every step with the decisions so far.
    """
    robots = min(config.robots, config.decisions)
    env, noise = BatchEnv(embodiment, robots, seed), BurstNoise(robots, config.bursts, seed)
    actor = agent.fork(seed=seed)
    observed, first = env.reset(), np.ones(robots, dtype=bool)
    open_ones = [EpisodeRecorder(row) for row in observed]
    steps = -(-config.decisions // robots)
    for step in range(steps):
        found = actor.act(observed, first, evaluate=True)
        sent = noise.disturb(found.action).astype(np.float32)
        result = env.step(sent)
        first = result.terminated | result.truncated
        noise.restart(first)
        for k, recorder in enumerate(open_ones):
            recorder.add(
                result.final_observation[k],
                sent[k],
                float(result.reward[k]),
                bool(result.terminated[k]),
                found.plan_mean[k],
                found.plan_std[k],
                float(found.value[k]),
            )
            if first[k] or step + 1 == steps:
                store.append(recorder.episode(not result.terminated[k]), source="simulation")
                open_ones[k] = EpisodeRecorder(result.observation[k])
        observed = result.observation
        told((step + 1) * robots)
