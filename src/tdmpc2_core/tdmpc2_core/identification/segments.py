"""Short stretches of recorded motion that a simulation can replay open loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.data.episodes import Episode, read_episode, stored_files
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment

Array = NDArray[np.float64]
_REGULAR = 0.3  # of a control period that decisions may come early or late
_UPRIGHT = 0.5  # cosine of the largest tilt of the base


@dataclass(frozen=True)
class Segments:
    """S stretches of K decisions, measured at their K + 1 ends; all of a robot's own frames and units.

    Attributes:
        position, velocity: (S, K + 1, J) rad, rad/s.
        gyro, gravity: (S, K + 1, 3) rad/s, unit vector down; of the base, in its frame.
        times: (S, K + 1) s from the start of the segment.
        targets: (S, L + K, J) rad, commands from L decisions before the start on.
        sent: (S, L + K) s from the start of the segment, when they were sent.
        base_velocity: (S, 3) m/s at the start, base frame; NaN where unknown.
    """

    position: Array
    velocity: Array
    gyro: Array
    gravity: Array
    times: Array
    targets: Array
    sent: Array
    base_velocity: Array

    def __len__(self) -> int:
        return len(self.position)

    def take(self, rows: NDArray[np.intp]) -> Segments:
        """These segments alone."""
        return Segments(*(getattr(self, field.name)[rows] for field in fields(self)))


def stored_episodes(stores: Iterable[Path]) -> Iterator[tuple[Path, Episode]]:
    """Every episode of these folders; they are only read. Raises UserError for a folder without episodes."""
    for store in stores:
        for path in stored_files(store):
            yield path, read_episode(path)[0]


def cut(
    episodes: Iterable[tuple[Path, Episode]], robot: Embodiment, seconds: float, lead: float, count: int
) -> Segments:
    """At most `count` segments that do not overlap, evenly spread over the episodes.

    Args:
        episodes: with the files that they are from.
        robot: whose joints and control rate they are of.
        seconds: length of a segment, s.
        lead: largest delay of commands, s: so much before a segment its commands are needed.
        count: most segments.

    Raises:
        UserError: an episode lacks its raw arrays or is another robot's, or no segment can be used.
    """
    steps = max(1, round(seconds * robot.control_rate))
    before = int(np.ceil(lead * robot.control_rate)) + 2
    found = []
    for path, episode in episodes:
        _check(path, episode, robot)
        for start in range(before, len(episode) - steps + 1, steps):
            one = _segment(episode.raw, start, before, steps)
            if _usable(one, robot):
                found.append(one)
    if len(found) < 2:
        raise UserError(
            f"the episodes hold {len(found)} segments of {seconds:g} s that are whole, upright and "
            f"regular in time at {robot.control_rate:g} Hz; two or more are needed, some hundred are good"
        )
    chosen = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int))
    parts = zip(*(found[index] for index in chosen), strict=True)
    return Segments(*(np.stack(part) for part in parts))


def _check(path: Path, episode: Episode, robot: Embodiment) -> None:
    needed = ["joint_position", "joint_velocity", "target", "stamp"]
    needed += ["gyro", "gravity"] if robot.imu_frame else []
    missing = [name for name in needed if name not in episode.raw]
    if missing:
        raise UserError(
            f"{path}: lacks raw/{', raw/'.join(missing)}, from which a robot is identified; read the bag "
            "anew, or record with raw arrays (docs/reference/episode-store.md)"
        )
    joints = episode.raw["target"].shape[-1]
    if joints != robot.num_joints:
        raise UserError(f"{path}: is of a robot with {joints} joints, {robot.name} has {robot.num_joints}")


def _segment(raw: dict[str, Array], start: int, before: int, steps: int) -> tuple[Array, ...]:
    seen, asked = slice(start, start + steps + 1), slice(start - before, start + steps)
    stamp = raw["stamp"] - raw["stamp"][start]
    nothing = np.zeros((len(stamp), 3))
    velocity = raw.get("base_velocity")
    return (
        raw["joint_position"][seen],
        raw["joint_velocity"][seen],
        raw.get("gyro", nothing)[seen],
        raw.get("gravity", nothing - (0.0, 0.0, 1.0))[seen],
        stamp[seen],
        raw["target"][asked],
        stamp[asked],
        np.full(3, np.nan) if velocity is None else velocity[start, :3],
    )


def _usable(segment: tuple[Array, ...], robot: Embodiment) -> bool:
    *measured, _ = segment
    gravity, times, sent = segment[3], segment[4], segment[6]
    if not all(np.isfinite(part).all() for part in measured) or (-gravity[:, 2]).min() < _UPRIGHT:
        return False
    gaps = np.concatenate([np.diff(times), np.diff(sent)]) * robot.control_rate
    return bool(np.abs(gaps - 1.0).max() <= _REGULAR)
