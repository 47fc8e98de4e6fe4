"""Many robots in arrays against as many single ones: the same bits."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from tdmpc2_core.envs.robot.batch import PRIVILEGED, BatchEnv, BatchStep
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.envs.robot.simulation import READERS
from tdmpc2_core.robots import SOURCES, TERMS, Embodiment, Field, Source, Term
from tdmpc2_core.robots.rotations import yaw
from tdmpc2_core.robots.terms import measured

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


def hard(name: str) -> Embodiment:
    """A busy robot with all that can be drawn: payload, a weak joint, pushes of both kinds, levels that move,
    and for those that walk slopes with blocks or waves."""
    embodiment = busy(name)
    changes = embodiment.to_dict()
    changes["randomisation"] |= {
        "payload": [0.0, 1.0],
        "payload_offset": [0.0, 0.1],
        "weak_joint": [0.3, 0.9],
    }
    # above and below what such actions earn, so that success and failure move the level
    curriculum = {
        "success": 1.0,
        "failure": 0.8,
        "start": 0.6,
        "rise": 0.3,
        "drop": 0.2,
        "delay": [0.01, 0.1],
    }
    if name != "arm":
        changes["randomisation"] |= {"push_force": 40.0, "slope": [0.0, 4.0], "step": [0.0, 0.01]}
        curriculum |= {
            "wave": [0.02, 0.06],
            "step": [0.03, 0.05],
            "friction": [0.2, 1.5],
            "payload": [1.0, 3.0],
        }
    changes["randomisation"]["curriculum"] = curriculum
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


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ROBOTS)
def test_so_are_robots_on_other_ground_with_payloads_weak_joints_and_levels(name, threads):
    embodiment = hard(name)
    batch = BatchEnv(embodiment, 5, 10, threads=threads)
    singles = [RobotEnv(embodiment, seed) for seed in range(10, 15)]
    np.testing.assert_array_equal(batch.reset(), [single.reset() for single in singles])
    fallen, over, levels, grounds, forces = 0, 0, set(), set(), 0
    for action in smooth_actions(300, 5, embodiment.action_dim):
        ends = compare(batch, singles, action[None])
        fallen, over = fallen + ends[0], over + ends[1]
        np.testing.assert_array_equal(batch.level, [single.level for single in singles])
        levels |= set(batch.level.tolist())
        for single in singles:
            terrain = single.simulation.terrain
            grounds |= {terrain.state()[1] is None} if terrain else set()
            forces += single.simulation.base_force.any()
    assert len(levels) > 2 and (over if name == "arm" else fallen) > 0
    assert name == "arm" or (forces > 0 and grounds)


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


@pytest.mark.parametrize("kind", [busy, hard])
@pytest.mark.parametrize("name", ROBOTS)
def test_a_restored_batch_continues_as_before_in_every_bit_also_elsewhere(name, kind):
    embodiment = kind(name)
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


@pytest.mark.parametrize("name", ROBOTS)
def test_what_the_simulator_knows_of_loads_joints_ground_and_pushes(name):
    embodiment = hard(name)
    batch, plain = BatchEnv(embodiment, 4), BatchEnv(busy(name), 1)
    batch.reset()
    for action in smooth_actions(40, 4, embodiment.action_dim):
        batch.step(action)
    places, units = batch.privileged_layout(), {row.name: row.scale for row in PRIVILEGED}
    known = {key: batch.privileged()[:, place] / units[key] for key, place in places.items()}
    more = places.keys() - plain.privileged_layout().keys()
    assert {"payload", "place of the payload", "effort of the joints, a factor"} <= more
    assert len(more) == (3 if name == "arm" else 7)
    for row, robot in enumerate(batch.robots):
        world = robot.simulation
        truth = {"payload": world.payload[:1], "place of the payload": world.payload[1:]}
        truth["effort of the joints, a factor"] = world.effort
        if world.terrain:
            position, heading = world.base_pose()[0][:2], yaw(world.base_pose()[1])
            turn = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
            truth["slope of the ground forward and to the left"] = turn @ world.terrain.slope
            truth["force of a push forward and to the left"] = turn @ world.base_force[:2]
            below = world.ground_height(position)
            feet = world.data.geom_xpos[world.feet, :2]
            truth["ground below the feet, from that below the base"] = world.ground_height(feet) - below
            ahead = world.ground_height(position + turn.T @ (0.4, 0.0)) - below
            np.testing.assert_allclose(
                known["ground around, from that below the base"][row, 6], ahead, atol=1e-6
            )
        for key, values in truth.items():
            np.testing.assert_allclose(known[key][row], values, rtol=1e-5, atol=1e-6, err_msg=key)


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


def test_a_sensor_that_is_read_robot_by_robot_needs_its_row_only(monkeypatch):
    """Contacts lie in no array of one size, so that their reader cannot serve many robots at once."""
    row = Source("contacts", (Field("count", ("number",)),), measured=True)
    monkeypatch.setitem(SOURCES, "contacts", row)
    monkeypatch.setitem(
        TERMS, "contacts", Term("contacts", "contacts", 1, "with the ground", measured("count"))
    )
    monkeypatch.setitem(READERS, "contacts", lambda world: {"count": np.array([float(world.data.ncon)])})
    changes = busy("quadruped").to_dict()
    changes["observation"]["terms"] += ({"name": "contacts", "source": "contacts", "max_age": 0.1},)
    embodiment = Embodiment.from_dict(changes, directory=Embodiment.load("quadruped").directory)
    batch, singles = BatchEnv(embodiment, 2), [RobotEnv(embodiment, seed) for seed in range(2)]
    np.testing.assert_array_equal(batch.reset(), [single.reset() for single in singles])
    compare(batch, singles, smooth_actions(60, 2, embodiment.action_dim))
    assert batch.fleet.read("contacts")["count"].shape == (2, 1)
