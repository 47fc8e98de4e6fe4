"""What fine-tuning reads: recorded episodes, checked; what identifies them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tdmpc2_core.agent import Agent
from tdmpc2_core.data.episodes import Episode, read_episode, stored_files
from tdmpc2_core.errors import UserError


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
