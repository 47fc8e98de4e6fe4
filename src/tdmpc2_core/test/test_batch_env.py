"""Many robots in arrays against as many single ones: the same bits, and the same physics."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.robots import Embodiment

ROBOTS = ["quadruped", "humanoid", "arm"]


def smooth_actions(steps: int, robots: int, size: int) -> np.ndarray:
    """Actions (T, N, A) that move a robot and make some fall."""
    rng = np.random.default_rng(0)
    action, result = np.zeros((robots, size)), []
    for _ in range(steps):
        action = 0.8 * action + rng.normal(0.0, 0.2, action.shape)
        result.append(action)
    return np.array(result)


@pytest.mark.parametrize("name", ROBOTS)
def test_observations_equal_those_of_single_robots_bit_for_bit(name):
    """With noise, randomisation, delays, pushes, new commands and resets."""
    embodiment, seeds = Embodiment.load(name), range(10, 16)
    batch = BatchEnv(embodiment, seeds, EnvOptions(), threads=2)
    singles = [RobotEnv(embodiment, seed, EnvOptions()) for seed in seeds]
    assert np.array_equal(batch.reset(), [single.reset() for single in singles])
    ended = 0
    for action in smooth_actions(300, len(seeds), embodiment.action_dim):
        step = batch.step(action)
        for row, single in enumerate(singles):
            found = single.step(action[row])
            assert np.array_equal(step.final[row], found.observation)
            assert step.reward[row] == pytest.approx(found.reward, rel=1e-13, abs=1e-13)
            assert (step.terminated[row], step.truncated[row]) == (found.terminated, found.truncated)
            if found.terminated or found.truncated:
                ended += 1
                assert np.array_equal(step.observation[row], single.reset())
    assert ended > 0 or name == "arm"


def test_an_episode_ends_with_its_time_in_both():
    embodiment = Embodiment.load("arm")
    options = EnvOptions(sensor_noise=False, randomise=False, random_reset=False)
    batch, single = BatchEnv(embodiment, [3], options), RobotEnv(embodiment, 3, options)
    batch.reset()
    single.reset()
    still = np.zeros(embodiment.action_dim)
    for step in range(embodiment_steps := batch.spec.episode_length):
        found, many = single.step(still), batch.step(still[None])
        assert found.truncated == bool(many.truncated[0]) == (step + 1 == embodiment_steps)


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05])
def test_a_delay_shifts_the_response_by_itself(delay):
    """Also one that is longer than a control period: commands under way arrive in order."""
    embodiment = Embodiment.load("arm")
    spec = dataclasses.replace(embodiment.randomisation, delay=(delay, delay))
    late = dataclasses.replace(embodiment, randomisation=spec)
    object.__setattr__(late, "directory", embodiment.directory)
    options = EnvOptions(sensor_noise=False, randomise=False, random_reset=False)
    env = RobotEnv(late, 0, options)
    env.reset()
    moved = []
    for _ in range(12):
        env.step(np.full(late.action_dim, 1.0))
        moved.append(float(np.abs(env.player.sample(1e9) - late.default_position).max()))
    first = next(step for step, distance in enumerate(moved) if distance > 0.0)
    assert first == int(delay * late.control_rate + 1e-9)
    assert all(later > earlier for earlier, later in zip(moved[first:6], moved[first + 1 : 7], strict=True))


@pytest.mark.parametrize("name", ROBOTS)
def test_what_the_simulator_knows_is_finite_and_follows_the_robot(name):
    embodiment = Embodiment.load(name)
    batch = BatchEnv(embodiment, range(4), EnvOptions(sensor_noise=False))
    batch.reset()
    before = batch.privileged()
    for action in smooth_actions(20, 4, embodiment.action_dim):
        step = batch.step(action)
    assert np.isfinite(step.privileged).all() and step.privileged.shape == before.shape
    assert (np.abs(step.privileged - before).max(axis=0) > 0).mean() > 0.5
    position = step.final_privileged[:, : embodiment.num_joints] + embodiment.default_position
    true = np.stack([lane.simulation.joint_position() for lane in batch.lanes])
    kept = ~(step.terminated | step.truncated)
    np.testing.assert_allclose(position[kept], true[kept], atol=1e-6)


def test_commands_can_be_held():
    embodiment = Embodiment.load("quadruped")
    batch = BatchEnv(embodiment, range(3), EnvOptions(randomise=False))
    batch.set_command(np.array([0.3, 0.0, 0.0]))
    batch.reset()
    for _ in range(3):
        batch.step(np.zeros((3, embodiment.action_dim)))
    assert np.allclose(batch.lanes[1].next_command(500), [0.3, 0.0, 0.0])
