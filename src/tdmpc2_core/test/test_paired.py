"""Pairs of policies on the same robots: what is equal cancels, what differs is found, falls are counted."""

from __future__ import annotations

import numpy as np
import pytest

from tdmpc2_core.envs.robot.env import RobotEnv
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.paired import Act, gain, outcomes


def constant(embodiment: Embodiment, value: float) -> Act:
    return lambda observed, first: np.full((len(observed), embodiment.action_dim), value, np.float32)


def test_equal_policies_gain_nothing_on_equal_robots() -> None:
    arm = Embodiment.load("arm")
    found = gain(*(outcomes(constant(arm, 0.1), arm, 3, 1.5, seed=4) for _ in range(2)))
    assert found.reward.mean == found.error.mean == found.shake.mean == 0.0
    assert found.falls == (0, 0) and found.robots == 3 and found.base_error > 0.0


def test_reward_error_and_falls_are_those_of_the_environment() -> None:
    robot, seconds = Embodiment.load("quadruped"), 3.0
    act = constant(robot, 1.0)
    found = outcomes(act, robot, 2, seconds, seed=9)
    for index in range(2):
        env = RobotEnv(robot, 9 + index)
        observed, total, falls = env.reset(), 0.0, 0
        for _ in range(round(seconds * robot.control_rate)):
            result = env.step(act(observed[None], np.zeros(1, bool))[0])
            total, falls = total + result.reward, falls + result.terminated
            observed = env.reset() if result.terminated or result.truncated else result.observation
        assert found.falls[index] == falls
        assert found.reward[index] == pytest.approx(total / 150, rel=1e-6)
    assert found.falls.sum() >= 2 and (found.shake == 0.0).all()


def test_shaking_is_seen() -> None:
    arm, step = Embodiment.load("arm"), iter(range(1000))
    shaking: Act = lambda observed, first: np.full((len(observed), arm.action_dim), (-1) ** next(step) * 0.1)  # noqa: E731
    found = outcomes(shaking, arm, 2, 1.0)
    np.testing.assert_allclose(found.shake, 0.4 * 48 / 50)
