"""State of environments: what follows a restored state is what followed it the first time, bit for bit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from tdmpc2_core.envs.dmcontrol import TASKS, DMControlEnv
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.robots import Embodiment

ROBOTS = ["quadruped", "humanoid", "arm"]


def busy(name: str) -> Embodiment:
    """A robot with everything that an episode can hold in a second: delays of several decisions, many
    pushes, new commands, and its end."""
    embodiment = Embodiment.load(name)
    changes = embodiment.to_dict()
    changes["randomisation"] |= {"delay": [0.0, 0.07], "push_interval": 0.2}
    changes["command"] |= {"resample_seconds": 2.0 if name == "arm" else 0.5}
    changes["episode_seconds"] = 1.2
    return Embodiment.from_dict(changes, directory=embodiment.directory)


def hard(name: str) -> Embodiment:
    """A busy robot with payload, a weak joint, pushes as forces, levels and, where it walks, other ground."""
    embodiment = busy(name)
    changes = embodiment.to_dict()
    changes["randomisation"] |= {
        "payload": [0.5, 2.0],
        "payload_offset": [0.0, 0.1],
        "weak_joint": [0.3, 0.9],
    }
    curriculum = {
        "success": 1.0,
        "failure": 0.8,
        "start": 0.5,
        "rise": 0.3,
        "drop": 0.2,
        "delay": [0.01, 0.1],
    }
    if name != "arm":
        changes["randomisation"] |= {"push_force": 40.0, "slope": [2.0, 6.0], "step": [0.01, 0.04]}
        curriculum |= {"wave": [0.02, 0.06], "friction": [0.2, 1.5]}
    changes["randomisation"]["curriculum"] = curriculum
    return Embodiment.from_dict(changes, directory=embodiment.directory)


def run(env: RobotEnv, actions: np.ndarray) -> list[list[np.ndarray]]:
    """What each action leads to, in arrays; a new episode where one ended."""
    rows = []
    for action in actions:
        result = env.step(action)
        row = [
            result.observation,
            [result.reward, *result.info.values()],
            [result.terminated, result.truncated],
        ]
        if result.terminated or result.truncated:
            row.append(env.reset())
        rows.append([np.asarray(part) for part in row])
    return rows


def same(one: list[list[np.ndarray]], other: list[list[np.ndarray]]) -> bool:
    """Equal in every bit."""
    return [[p.tobytes() for p in row] for row in one] == [[p.tobytes() for p in row] for row in other]


def started(
    name: str, kind: Callable[[str], Embodiment] = busy, steps: int = 30
) -> tuple[RobotEnv, np.ndarray]:
    """A robot in the middle of an episode, and 100 actions to go on with."""
    env, rng = RobotEnv(kind(name), 3), np.random.default_rng(0)
    env.reset()
    run(env, rng.uniform(-0.4, 0.4, (steps, env.spec.action_dim)))
    return env, rng.uniform(-0.4, 0.4, (100, env.spec.action_dim))


@pytest.mark.parametrize("kind", [busy, hard])
@pytest.mark.parametrize("name", ROBOTS)
def test_a_restored_robot_continues_as_before_in_every_bit(name, kind):
    env, actions = started(name, kind)
    state = env.state()
    first = run(env, actions)
    assert any(len(row) == 4 for row in first), "no episode ended: resets are not part of the test"
    assert not same(first, run(env, actions)), "the test cannot see a difference"
    env.restore(state)
    assert same(first, run(env, actions))
    env.restore(state)  # the state has not changed with the robot
    assert same(first, run(env, actions))


@pytest.mark.parametrize("kind", [busy, hard])
@pytest.mark.parametrize("name", ROBOTS)
def test_another_robot_of_the_embodiment_continues_from_a_state_that_went_through_a_file(name, kind):
    env, actions = started(name, kind)
    state = pickle.loads(pickle.dumps(env.state()))
    first = run(env, actions)
    other = RobotEnv(kind(name), 99)
    other.reset()
    other.restore(state)
    assert same(first, run(other, actions))


@pytest.mark.parametrize("kind", [busy, hard])
@pytest.mark.parametrize("name", ROBOTS)
def test_a_deep_copy_is_a_robot_of_its_own_in_the_same_state(name, kind):
    env, actions = started(name, kind)
    env.max_steps = 45
    twin = copy.deepcopy(env)
    assert twin.max_steps == 45
    first = run(env, actions)
    assert same(first, run(twin, actions))


@pytest.mark.parametrize("name", ROBOTS)
def test_what_a_simulation_says_of_the_last_step_is_part_of_its_state(name):
    env, actions = started(name)
    simulation = env.simulation

    def readings() -> list[np.ndarray]:
        said = [simulation.joint_effort(), *simulation.imu(), *simulation.base_velocity()]
        return [*said, simulation.foot_height(), *simulation.base_pose(), simulation.data.subtree_com.copy()]

    state, before = env.state(), readings()
    env.step(actions[0])
    assert any(not np.array_equal(a, b) for a, b in zip(before, readings(), strict=True))
    env.restore(state)
    for one, other in zip(before, readings(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_force_marker_and_held_command_are_part_of_the_state():
    env = RobotEnv(busy("arm"), 0, EnvOptions(randomise=False))
    env.reset()
    goal = np.array([0.5, 0.1, 0.4, 0.0, 1.0, 0.0, 0.0])
    env.set_command(goal)
    env.simulation.push_tool(np.array([30.0, 0.0, 0.0]), 0.5)
    env.simulation.show_goal(goal)
    env.step(np.zeros(7))
    state = env.state()
    first = run(env, np.zeros((40, 7)))
    marker = env.simulation.data.mocap_pos.copy()
    env.set_command(None)
    env.reset()
    env.simulation.show_goal(np.array([0.1, 0.1, 0.1, 0.0, 0.0, 0.0, 1.0]))
    env.restore(state)
    np.testing.assert_array_equal(env.simulation.data.mocap_pos, marker)
    assert same(first, run(env, np.zeros((40, 7))))


def test_a_push_ends_with_its_episode():
    embodiment = Embodiment.load("arm")
    env = RobotEnv(embodiment, 0, EnvOptions(randomise=False))
    env.reset()
    for _ in range(20):
        env.step(np.zeros(7))
    env.simulation.push_tool(np.array([30.0, 0.0, 0.0]), 0.2)
    env.step(np.zeros(7))
    assert np.abs(env.simulation.data.xfrc_applied).max() > 1.0
    env.reset()
    env.step(np.zeros(7))
    assert not env.simulation.data.xfrc_applied.any()


def test_a_state_of_another_robot_is_refused():
    arm, quadruped = RobotEnv(Embodiment.load("arm")), RobotEnv(Embodiment.load("quadruped"))
    with pytest.raises(ValueError, match="a state of 'arm' does not fit 'quadruped'"):
        quadruped.restore(arm.state())


@pytest.mark.parametrize("task", TASKS)
def test_a_restored_benchmark_task_continues_as_before_in_every_bit_also_elsewhere(task):
    pytest.importorskip("dm_control")
    env, other, rng = DMControlEnv(task, 3), DMControlEnv(task, 4), np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (24, env.spec.action_dim))

    def run(env: DMControlEnv) -> list[bytes]:
        seen: list[np.ndarray] = []
        for action in actions[:12]:
            result = env.step(action)
            seen += [result.observation, np.array([result.reward, result.truncated])]
        seen.append(env.reset())
        return [
            part.tobytes() for part in [*seen, *(env.step(action).observation for action in actions[12:])]
        ]

    env.reset()
    fresh = env.state()
    first = run(env)
    env._steps = env._env._step_count = 494  # the end of an episode within the steps to come
    late = pickle.loads(pickle.dumps(env.state()))
    second = run(env)
    assert first != second
    for again in (env, other):
        again.reset()
        again.restore(fresh)
        assert run(again) == first
        again.restore(late)
        assert run(again) == second


def test_a_state_of_another_task_is_refused():
    pytest.importorskip("dm_control")
    with pytest.raises(ValueError, match="a state of 'cup-catch' does not fit 'finger-spin'"):
        DMControlEnv("finger-spin").restore(DMControlEnv("cup-catch").state())
