"""Many robots in arrays against as many single ones: the same bits."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from tdmpc2_core.envs.robot.batch import PRIVILEGED, BatchEnv, BatchStep
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.robots import Embodiment

ROBOTS = ["quadruped", "humanoid", "arm"]
CLEAN = EnvOptions(sensor_noise=False, randomise=False, random_reset=False)


def busy(name: str, **action: str) -> Embodiment:
    """A robot with everything that an episode can hold in a second or two: delays of several decisions, many
    pushes, new commands, and its end."""
    embodiment = Embodiment.load(name)
    changes = embodiment.to_dict()
    changes["randomisation"] |= {"delay": [0.0, 0.07], "push_interval": 0.4}
    changes["command"] |= {"resample_seconds": 2.0 if name == "arm" else 0.5}
    changes["action"] |= action
    changes["episode_seconds"] = 2.1
    return Embodiment.from_dict(changes, directory=embodiment.directory)


def smooth_actions(steps: int, robots: int, size: int) -> np.ndarray:
    """Actions (T, N, A) that move a robot and make some fall."""
    rng = np.random.default_rng(0)
    action, result = np.zeros((robots, size)), []
    for _ in range(steps):
        action = 0.8 * action + rng.normal(0.0, 0.2, action.shape)
        result.append(action)
    return np.array(result)


def compare(batch: BatchEnv, singles: list[RobotEnv], actions: np.ndarray) -> tuple[int, int]:
    """Step both and hold them against each other; how many fell and how many ran out of time."""
    fallen = over = 0
    for action in actions:
        step = batch.step(action)
        for row, single in enumerate(singles):
            found = single.step(action[row])
            np.testing.assert_array_equal(step.final_observation[row], found.observation)
            assert step.reward[row] == found.reward
            assert {name: values[row] for name, values in step.info.items()} == found.info
            assert (step.terminated[row], step.truncated[row]) == (found.terminated, found.truncated)
            fallen, over = fallen + found.terminated, over + found.truncated
            after = single.reset() if found.terminated or found.truncated else found.observation
            np.testing.assert_array_equal(step.observation[row], after)
            np.testing.assert_array_equal(batch.fleet.data.qpos[row], single.simulation.data.qpos)
    return fallen, over


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ROBOTS)
def test_robots_of_a_batch_are_single_robots_in_every_bit(name, threads):
    """Observations, rewards and their terms, ends and physics; with noise, randomisation, delays, pushes, new
    commands and resets."""
    embodiment = busy(name)
    batch = BatchEnv(embodiment, 5, 10, threads=threads)
    singles = [RobotEnv(embodiment, seed) for seed in range(10, 15)]
    np.testing.assert_array_equal(batch.reset(), [single.reset() for single in singles])
    fallen, over = compare(batch, singles, smooth_actions(300, 5, embodiment.action_dim))
    assert (fallen > 0 or name == "arm") and (over > 0 or name == "humanoid")


@pytest.mark.parametrize(
    ("kind", "interpolation"), [("delta", "step"), ("position", "step"), ("delta", "linear")]
)
@pytest.mark.parametrize("name", ["quadruped", "arm"])
def test_also_with_other_actions(name, kind, interpolation):
    embodiment = busy(name, kind=kind, interpolation=interpolation)
    batch, singles = BatchEnv(embodiment, 3), [RobotEnv(embodiment, seed) for seed in range(3)]
    np.testing.assert_array_equal(batch.reset(), [single.reset() for single in singles])
    compare(batch, singles, smooth_actions(60, 3, embodiment.action_dim))


@pytest.mark.parametrize("name", ROBOTS)
def test_also_without_noise_and_randomisation_and_with_commands_from_outside(name):
    embodiment = busy(name)
    batch, singles = (
        BatchEnv(embodiment, 3, 0, CLEAN),
        [RobotEnv(embodiment, seed, CLEAN) for seed in range(3)],
    )
    actions = smooth_actions(90, 3, embodiment.action_dim)
    np.testing.assert_array_equal(batch.reset(), [single.reset() for single in singles])
    compare(batch, singles, actions[:20])
    one = {"arm": [0.5, 0.1, 0.4, 0.0, 1.05, 0.0, 0.1]}.get(name, [0.2, 0.01, -2.0])
    held = np.stack([np.array(one), 1.01 * np.array(one), 0.98 * np.array(one)])
    batch.set_command(held)
    for single, command in zip(singles, held, strict=True):
        single.set_command(command)
    compare(batch, singles, actions[20:40])
    for env in (batch, *singles):
        env.set_command(None)
    compare(batch, singles, actions[40:])


@pytest.mark.parametrize("name", ROBOTS)
def test_a_restored_batch_continues_as_before_in_every_bit_also_elsewhere(name):
    embodiment = busy(name)
    batch, other = BatchEnv(embodiment, 4), BatchEnv(embodiment, 4, 77, threads=2)
    actions = smooth_actions(130, 4, embodiment.action_dim)
    batch.reset()
    other.reset()
    for action in actions[:30]:
        batch.step(action)
        other.step(action)
    state = pickle.loads(pickle.dumps(batch.state()))
    first = [arrays(batch.step(action)) for action in actions[30:]]
    for again in (batch, other):
        again.restore(state)
        assert [arrays(again.step(action)) for action in actions[30:]] == first
    assert len(set(map(tuple, first))) == len(first)


def arrays(step: BatchStep) -> list[bytes]:
    """All that a step says."""
    said = {name: value for name, value in vars(step).items() if name != "info"}
    return [np.asarray(values).tobytes() for values in (said | step.info).values()]


def test_states_and_actions_that_do_not_fit_are_refused():
    embodiment = Embodiment.load("arm")
    two, three = BatchEnv(embodiment, 2), BatchEnv(embodiment, 3)
    with pytest.raises(ValueError, match="a state of 2 robots does not fit a batch of 3"):
        three.restore(two.state())
    with pytest.raises(ValueError, match="a state of 'arm' does not fit 'quadruped'"):
        BatchEnv(Embodiment.load("quadruped"), 2).restore(two.state())
    two.reset()
    for wrong in (np.zeros((3, 7)), np.zeros(7), np.full((2, 7), np.nan)):
        with pytest.raises(ValueError, match=r"actions must be \(2, 7\) finite values"):
            two.step(wrong)


def test_an_episode_ends_with_its_time_in_both():
    embodiment = busy("arm")
    batch, single = BatchEnv(embodiment, 1, 3, CLEAN), RobotEnv(embodiment, 3, CLEAN)
    batch.reset()
    single.reset()
    still = np.zeros(embodiment.action_dim)
    for step in range(105):
        found, many = single.step(still), batch.step(still[None])
        assert found.truncated == bool(many.truncated[0]) == (step + 1 == 105)


@pytest.mark.parametrize("name", ROBOTS)
def test_what_the_simulator_knows_is_the_truth_of_each_robot(name):
    embodiment = busy(name)
    batch = BatchEnv(embodiment, 4)
    batch.reset()
    before, places = batch.privileged(), batch.privileged_layout()
    for action in smooth_actions(20, 4, embodiment.action_dim):
        step = batch.step(action)
    units = {row.name: row.scale for row in PRIVILEGED}
    known = {name: step.privileged[:, place] / units[name] for name, place in places.items()}
    assert step.privileged.shape == before.shape == (4, max(place.stop for place in places.values()))
    assert np.isfinite(step.privileged).all() and (before != step.privileged).any(axis=0).mean() > 0.5
    np.testing.assert_array_equal(step.privileged, batch.privileged())
    expected: dict[str, list[np.ndarray]] = {}
    for robot, delay in zip(batch.robots, batch.delay, strict=True):
        world = robot.simulation
        truth = {
            "joint position from the default pose": world.joint_position() - embodiment.default_position,
            "joint velocity": world.joint_velocity(),
            "delay of commands": [delay],
        }
        if world.floating:
            linear, angular = world.base_velocity()
            truth |= {"linear velocity of the base": linear, "angular velocity of the base": angular}
            truth |= {"gravity": world.gravity(), "height of the base": world.data.qpos[2:3]}
            truth |= {"height of the feet": world.foot_height(), "contact of the feet": world.foot_contact()}
            truth |= {"friction": [world.friction], "extra mass": [world.extra_mass]}
        for name, values in truth.items():
            expected.setdefault(name, []).append(np.asarray(values))
    for name, values in expected.items():
        np.testing.assert_allclose(known[name], values, rtol=1e-5, atol=1e-5, err_msg=name)
    kept = ~(step.terminated | step.truncated)
    np.testing.assert_allclose(known["previous action"][kept], np.clip(action, -1, 1)[kept], atol=1e-6)
    if name == "arm":
        offset, turn = np.split(known["error of the tool"], 2, axis=1)
        truths = [r.simulation.tool_error(goal) for r, goal in zip(batch.robots, batch.command, strict=True)]
        np.testing.assert_allclose(np.linalg.norm(offset, axis=1), [t[0] for t in truths], atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(turn, axis=1), [t[1] for t in truths], atol=1e-5)


def test_privileged_values_before_a_reset_are_those_of_the_end():
    embodiment = busy("quadruped")
    batch = BatchEnv(embodiment, 4)
    batch.reset()
    place = batch.privileged_layout()["height of the base"]
    for action in smooth_actions(200, 4, embodiment.action_dim):
        step = batch.step(action)
        if step.terminated.any():
            break
    fell = step.terminated
    np.testing.assert_allclose(step.privileged[fell, place], 3.0 * 0.33, rtol=1e-6)  # where episodes start
    assert (step.final_privileged[fell, place] < 3.0 * 0.32).all()
    np.testing.assert_array_equal(step.privileged[~fell], step.final_privileged[~fell])
