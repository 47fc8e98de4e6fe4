"""Reward terms name the sources that they read, and are left out where one is missing."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.rewards import FIELD_SOURCES, TERMS, Reward, RobotState


class Watched:
    """A robot's state that notes which of its fields are read."""

    def __init__(self, state: RobotState) -> None:
        self._state, self.read = state, set[str]()

    def __getattr__(self, name: str) -> object:
        self.read.add(name)
        return getattr(self._state, name)


def state(robots: tuple[int, ...] = (), seed: int = 0) -> RobotState:
    """Random values, of one robot or of several."""
    rng = np.random.default_rng(seed)

    def normal(*size: int) -> np.ndarray:
        return rng.normal(size=(*robots, *size))

    def flags() -> np.ndarray:
        return rng.random((*robots, 4)) < 0.5

    return RobotState(
        linear_velocity=normal(3),
        angular_velocity=normal(3),
        mean_velocity=normal(3),
        gravity=normal(3),
        base_height=normal() if robots else float(normal()),
        joint_position=normal(12),
        joint_velocity=normal(12),
        default_position=np.zeros(12),
        effort=normal(12),
        action=normal(12),
        previous_action=normal(12),
        command=normal(3),
        moving=np.zeros(robots, dtype=bool),
        foot_contact=flags(),
        foot_height=np.abs(normal(4)),
        foot_stance=flags(),
        tool_distance=np.abs(normal()),
        tool_angle=np.abs(normal()),
    )


@pytest.mark.parametrize("name", sorted(TERMS))
def test_a_term_needs_the_sources_of_the_fields_that_it_reads(name):
    row, watched = TERMS[name], Watched(state())
    row.function(watched, **dict.fromkeys(list(inspect.signature(row.function).parameters)[1:], 0.5))
    sources = {source for field in watched.read for source in FIELD_SOURCES[field].split()}
    assert sources == set(row.needs)


def test_every_field_of_the_state_has_a_source():
    assert set(FIELD_SOURCES) == set(RobotState.__slots__)


def test_terms_without_their_sources_are_left_out_and_named():
    embodiment = Embodiment.load("quadruped")
    whole, poor = Reward(embodiment), Reward(embodiment, {"joints", "imu", "command", "self", "effort"})
    assert not whole.masked
    assert poor.masked["track_linear_velocity"] == ("odometry",) and poor.masked["gait_contact"] == ("feet",)
    one = state()
    all_parts, some_parts = whole(one)[1], poor(one)[1]
    assert set(some_parts) == set(all_parts) - set(poor.masked) and some_parts
    assert all(some_parts[name] == all_parts[name] for name in some_parts)


@pytest.mark.parametrize("name", ["quadruped", "humanoid", "arm"])
def test_many_robots_at_once_earn_what_each_earns(name):
    reward, many = Reward(Embodiment.load(name)), state((7,), seed=3)
    total, _ = reward(many)
    for index in range(7):
        fields = {key: getattr(many, key) for key in RobotState.__slots__}
        one = RobotState(**{k: v if k == "default_position" else v[index] for k, v in fields.items()})
        assert float(reward(one)[0]) == pytest.approx(float(total[index]), rel=1e-14, abs=1e-14)
