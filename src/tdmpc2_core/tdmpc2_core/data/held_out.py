"""Recorded episodes split by time: what is learned from, what decides when to stop, and what judges.

Neighbouring decisions are nearly alike, so whole stretches are held out, not windows: the end of every period
of the recording. Stretches for stopping and for judging take turns; none is used for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tdmpc2_core.data.episodes import Episode
from tdmpc2_core.errors import UserError

MIN_STRETCHES = 4
"""Stretches to judge on, below which chance cannot be told from gain."""

_PERIOD = (50, 500)  # decisions: bounds of a period
_PERIODS = 40  # of a recording that is long enough
_ROWS = ("action", "reward", "terminated", "plan_mean", "plan_std", "has_plan", "value")


@dataclass(frozen=True)
class Split:
    """Parts of episodes; those of `stop` and `judge` are stretches that nothing is learned from."""

    learn: list[Episode]
    stop: list[Episode]
    judge: list[Episode]


def part(episode: Episode, begin: int, end: int) -> Episode:
    """Decisions [begin, end) of an episode as one of its own; arrays are views."""
    rows = {name: getattr(episode, name)[begin:end] for name in _ROWS}
    whole = end == len(episode)
    pixels = None if episode.pixels is None else episode.pixels[begin : end + 1]
    return Episode(
        observation=episode.observation[begin : end + 1],
        **rows,
        truncated=episode.truncated if whole else True,
        task=episode.task,
        pixels=pixels,
    )


def split_by_time(episodes: Sequence[Episode], share: float, history: int = 1) -> Split:
    """Hold out the last `share` of every period of the recording.

    Args:
        episodes: in the order of recording.
        share: in (0, 1).
        history: decisions that one observation tells of; as many lie between parts.

    Raises:
        UserError: the recording is too short for `MIN_STRETCHES` stretches to judge on.
    """
    total = sum(len(episode) for episode in episodes)
    period = min(max(total // _PERIODS, _PERIOD[0]), _PERIOD[1])
    found, held = Split([], [], []), 0
    for episode in episodes:
        edges = np.linspace(0, len(episode), max(1, len(episode) // period) + 1).round().astype(int).tolist()
        for begin, end in zip(edges[:-1], edges[1:], strict=True):
            cut = end - round(share * (end - begin))
            start, stop = begin + (history if begin else 0), cut - history
            if stop - start < 2 or end - cut < 2:
                found.learn.append(part(episode, begin, end))
                continue
            found.learn.append(part(episode, start, stop))
            (found.stop if held % 2 else found.judge).append(part(episode, cut, end))
            held += 1
    if len(found.judge) < MIN_STRETCHES:
        needed = 2 * MIN_STRETCHES * _PERIOD[0]
        raise UserError(
            f"{total} recorded decisions in {len(episodes)} episodes are too few to tell a gain from chance; "
            f"record at least {needed} decisions, in episodes of {_PERIOD[0]} or more"
        )
    return found
