"""Reward terms against numbers worked out by hand and recorded ones, and what is left without a sensor."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from tdmpc2_core.envs.robot.env import RobotEnv
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import SOURCES, Embodiment
from tdmpc2_core.robots.rewards import REWARD_TERMS, Reward, RobotState, StateTracker

RECORDED = np.load(Path(__file__).parent / "fixtures" / "rewards.npz")
ROBOTS = ("quadruped", "humanoid", "arm")
MEASURED = (
    "joint_position",
    "joint_velocity",
    "effort",
    "gravity",
    "angular_velocity",
    "linear_velocity",
    "base_height",
    "foot_contact",
    "foot_height",
    "action",
    "previous_action",
    "tool_pose",
)


@pytest.fixture(scope="module")
def embodiment() -> Embodiment:
    return Embodiment.load("quadruped")


def state(**changes) -> RobotState:
    values = {
        "linear_velocity": np.array([0.4, 0.1, -0.2]),
        "angular_velocity": np.array([0.3, -0.4, 0.5]),
        "mean_velocity": np.array([0.4, 0.1]),
        "mean_yaw_rate": 0.4,
        "gravity": np.array([0.0, 0.0, -1.0]),
        "base_height": 0.3,
        "joint_position": np.full(12, 0.1),
        "joint_velocity": np.zeros(12),
        "default_position": np.zeros(12),
        "effort": np.full(12, 2.0),
        "action": np.full(12, 0.5),
        "previous_action": np.zeros(12),
        "velocity_command": np.array([0.5, 0.0, 0.0]),
        "moving": True,
        "foot_contact": np.array([True, False, False, False]),
        "foot_height": np.array([0.0, 0.02, 0.10, 0.0]),
        "foot_stance": np.array([True, False, False, True]),
    }
    return RobotState(**(values | changes))


def test_reward_terms_have_their_hand_computed_values():
    assert REWARD_TERMS["track_linear_velocity"](state(), sigma=0.3) == pytest.approx(np.exp(-0.02 / 0.09))
    assert REWARD_TERMS["track_yaw_rate"](state(), sigma=0.4) == pytest.approx(np.exp(-1.0))
    tilted = state(gravity=np.array([0.2, 0.0, -0.98]))
    assert REWARD_TERMS["upright"](tilted, sigma=0.2) == pytest.approx(np.exp(-1.0))
    low = state(base_height=0.25)
    assert REWARD_TERMS["base_height"](low, target=0.3, sigma=0.05) == pytest.approx(np.exp(-1.0))
    assert REWARD_TERMS["gait_contact"](state()) == pytest.approx(0.75)
    assert REWARD_TERMS["foot_clearance"](state(), target=0.05) == pytest.approx((0.4 + 1.0) / 2)
    assert REWARD_TERMS["vertical_velocity"](state()) == pytest.approx(0.04)
    assert REWARD_TERMS["roll_pitch_rate"](state()) == pytest.approx(0.25)
    assert REWARD_TERMS["action_rate"](state()) == pytest.approx(3.0)
    assert REWARD_TERMS["effort"](state()) == pytest.approx(48.0)
    assert REWARD_TERMS["stand_pose"](state(moving=False)) == pytest.approx(0.12)
    assert REWARD_TERMS["stand_pose"](state()) == 0.0


def test_reach_rewards_have_their_hand_computed_values():
    near = RobotState(joint_velocity=np.full(7, 0.5), tool_distance=0.1, tool_angle=0.2)
    kernels = np.exp([-1 / 25, -1.0, -25.0]).mean()
    assert REWARD_TERMS["tool_position"](near, coarse=0.5, middle=0.1, fine=0.02) == pytest.approx(kernels)
    kernels = np.exp([-0.04, -1.0, -4.0]).mean()
    assert REWARD_TERMS["tool_orientation"](near, coarse=1.0, middle=0.2, fine=0.1) == pytest.approx(kernels)
    assert REWARD_TERMS["joint_velocity"](near) == pytest.approx(7 * 0.25)


def test_reward_is_the_weighted_sum_and_unknown_terms_are_named(embodiment):
    total, parts, masked = Reward(embodiment)(state())
    assert total == pytest.approx(sum(parts.values())) and not masked
    assert parts["action_rate"] == pytest.approx(-0.04 * 3.0)
    changed = embodiment.to_dict()
    changed["reward"]["terms"][0]["name"] = "track_linear_velocty"
    with pytest.raises(UserError, match="did you mean 'track_linear_velocity'"):
        Reward(Embodiment.from_dict(changed, embodiment.model_path.parent))
    changed["reward"]["terms"][0] = {"name": "track_linear_velocity", "weight": 1.0, "sigmaa": 0.3}
    with pytest.raises(UserError, match="sigma"):
        Reward(Embodiment.from_dict(changed, embodiment.model_path.parent))
    changed["reward"]["terms"][0] = {
        "name": "tool_position",
        "weight": 1.0,
        "coarse": 1.0,
        "middle": 0.1,
        "fine": 0.1,
    }
    with pytest.raises(UserError, match=r"reward\.terms\.tool_position: the robot has no pose_command"):
        Reward(Embodiment.from_dict(changed, embodiment.model_path.parent))


def recorded(name: str):
    """States (in order), commands in force, phases and starts of episodes of a recorded robot."""
    rows = {key.split(".")[1]: RECORDED[key] for key in RECORDED.files if key.startswith(f"{name}.")}
    for step in range(len(rows["total"])):
        measured = {key: rows[key][step] for key in MEASURED}
        if not measured["tool_pose"].size:
            measured["tool_pose"] = None
        phase = rows["phase"][step]
        yield {
            "state": RobotState(**measured),
            "command": rows["command"][step],
            "phase": None if np.isnan(phase) else phase,
            "start": rows["start"][step],
            "total": rows["total"][step],
            "parts": dict(zip(rows["names"], rows["parts"][step], strict=True)),
        }


@pytest.mark.parametrize("name", ROBOTS)
def test_recorded_states_have_their_recorded_rewards(name):
    robot = Embodiment.load(name)
    tracker, reward, count = StateTracker(robot), Reward(robot), 0
    for row in recorded(name):
        if row["start"]:
            tracker.reset()
        total, parts, masked = reward(tracker.advance(row["state"], row["command"], row["phase"]))
        # the last bits of numpy's exp and sums of products differ between processors, nothing else may
        np.testing.assert_allclose([*parts.values()], [*row["parts"].values()], rtol=1e-14, atol=0.0)
        assert list(parts) == list(row["parts"]) and not masked
        assert total == pytest.approx(row["total"], rel=1e-14)
        count += 1
    assert count == 26


@pytest.mark.parametrize("name", ROBOTS)
def test_environment_gives_the_reward_of_the_state_that_it_is_in_bit_for_bit(name):
    env, seen = RobotEnv(Embodiment.load(name), 0), []
    complete = env._tracker.complete
    env._tracker.complete = lambda *args: seen.append(complete(*args)) or seen[-1]
    env.reset()
    rng = np.random.default_rng(1)
    for _ in range(20):
        result = env.step(rng.uniform(-0.2, 0.2, env.spec.action_dim))
        total, parts, masked = Reward(env.embodiment)(seen[-1])
        assert (result.reward, not masked) == (total, True)
        assert parts == {key: result.info[key] for key in parts}


def without(row: RobotState, *sources: str) -> RobotState:
    """The state before it is completed, as a robot without these sources knows it."""
    told = {f.name: f.metadata["sources"] for f in fields(RobotState)}
    return replace(row, **{name: None for name in MEASURED if set(told[name]) & set(sources)})


@pytest.mark.parametrize(
    ("missing", "masked"),
    [
        (("odometry", "feet"), {"track_linear_velocity", "base_height", "vertical_velocity", "gait_contact",
                                "foot_clearance"}),
        (("imu",), {"track_yaw_rate", "upright", "roll_pitch_rate"}),
        (("joints",), {"effort", "stand_pose"}),
        (("command",), {"track_linear_velocity", "track_yaw_rate", "stand_pose"}),
    ],
)  # fmt: skip
def test_terms_that_a_missing_source_hides_are_named_and_the_others_stay(embodiment, missing, masked):
    reward = Reward(embodiment)
    for row in recorded("quadruped"):
        tracker = StateTracker(embodiment)
        full = tracker.advance(row["state"], row["command"], row["phase"])
        whole = reward(full)
        command = None if "command" in missing else row["command"]
        bare = RobotState(**{name: getattr(row["state"], name) for name in MEASURED})
        found = reward(StateTracker(embodiment).advance(without(bare, *missing), command, row["phase"]))
        assert (
            set(found.masked)
            == masked
            == {name for name, sources in reward.sources.items() if set(sources) & set(missing)}
        )
        assert found.terms == {name: share for name, share in whole.terms.items() if name not in masked}
        assert found.total == pytest.approx(sum(found.terms.values()))


def test_goal_of_a_tool_is_known_from_joints_alone():
    arm = Embodiment.load("arm")
    for row in recorded("arm"):
        true = StateTracker(arm).complete(row["state"], row["command"], None)
        bare = replace(true, tool_pose=None, tool_distance=None, tool_angle=None)
        found = StateTracker(arm).complete(bare, row["command"], None)
        assert found.tool_distance == pytest.approx(true.tool_distance, abs=1e-6)
        assert found.tool_angle == pytest.approx(true.tool_angle, abs=1e-6)
        lost = StateTracker(arm).complete(RobotState(action=true.action), row["command"], None)
        assert lost.tool_distance is None
        assert set(Reward(arm)(lost).masked) == {term.name for term in arm.reward.terms}


def test_every_source_of_a_term_has_a_name():
    known = {*SOURCES, "odometry", "feet"}
    assert all(row.sources and set(row.sources) <= known for row in REWARD_TERMS.values())
    assert all(set(field.metadata["sources"]) <= known for field in fields(RobotState))


@pytest.mark.parametrize("name", ROBOTS)
def test_many_robots_at_once_earn_what_each_earns_bit_for_bit(name):
    robot, rng = Embodiment.load(name), np.random.default_rng(3)
    reward, count = Reward(robot), 7
    many, singles = StateTracker(robot, count), [StateTracker(robot) for _ in range(count)]
    rows = list(recorded(name))
    for step in range(3):
        drawn = [rows[k] for k in rng.integers(len(rows), size=count)]
        fields = {key: [getattr(row["state"], key) for row in drawn] for key in MEASURED}
        together = RobotState(**{k: None if v[0] is None else np.array(v) for k, v in fields.items()})
        phases = np.array([np.nan if row["phase"] is None else row["phase"] for row in drawn])
        many.advance(together, np.array([row["command"] for row in drawn]), phases)
        total, parts, _ = reward(together)
        for index, (row, single) in enumerate(zip(drawn, singles, strict=True)):
            alone = RobotState(**{key: getattr(row["state"], key) for key in MEASURED})
            found = reward(single.advance(alone, row["command"], row["phase"]))
            assert found.total == total[index]
            assert all(share == parts[term][index] for term, share in found.terms.items())
        if step == 1:
            many.reset(np.array([2, 5]))
            singles[2].reset()
            singles[5].reset()
