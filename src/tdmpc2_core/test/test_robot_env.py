"""Training environment: physics, rewards and termination against numbers worked out outside the code."""

import mujoco
import numpy as np
import pytest

from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment, rewards
from tdmpc2_core.robots.rewards import Reward, RobotState
from tdmpc2_core.robots.safety import SafetyResult

CLEAN = EnvOptions(sensor_noise=False, randomise=False, random_reset=False)


@pytest.fixture(scope="module")
def embodiment() -> Embodiment:
    return Embodiment.load("quadruped")


def state(**changes) -> RobotState:
    values = {
        "linear_velocity": np.array([0.4, 0.1, -0.2]),
        "angular_velocity": np.array([0.3, -0.4, 0.5]),
        "mean_velocity": np.array([0.4, 0.1, 0.4]),
        "gravity": np.array([0.0, 0.0, -1.0]),
        "base_height": 0.3,
        "joint_position": np.full(12, 0.1),
        "joint_velocity": np.zeros(12),
        "default_position": np.zeros(12),
        "effort": np.full(12, 2.0),
        "action": np.full(12, 0.5),
        "previous_action": np.zeros(12),
        "command": np.array([0.5, 0.0, 0.0]),
        "moving": True,
        "foot_contact": np.array([True, False, False, False]),
        "foot_height": np.array([0.0, 0.02, 0.10, 0.0]),
        "foot_stance": np.array([True, False, False, True]),
    }
    return RobotState(**(values | changes))


def test_reward_terms_have_their_hand_computed_values():
    assert rewards.track_linear_velocity(state(), sigma=0.3) == pytest.approx(np.exp(-0.02 / 0.09))
    assert rewards.track_yaw_rate(state(), sigma=0.4) == pytest.approx(np.exp(-1.0))
    tilted = state(gravity=np.array([0.2, 0.0, -0.98]))
    assert rewards.upright(tilted, sigma=0.2) == pytest.approx(np.exp(-1.0))
    assert rewards.base_height(state(base_height=0.25), target=0.3, sigma=0.05) == pytest.approx(np.exp(-1.0))
    assert rewards.gait_contact(state()) == pytest.approx(0.75)
    assert rewards.foot_clearance(state(), target=0.05) == pytest.approx((0.4 + 1.0) / 2)
    assert rewards.vertical_velocity(state()) == pytest.approx(0.04)
    assert rewards.roll_pitch_rate(state()) == pytest.approx(0.25)
    assert rewards.action_rate(state()) == pytest.approx(3.0)
    assert rewards.effort(state()) == pytest.approx(48.0)
    assert rewards.stand_pose(state(moving=False)) == pytest.approx(0.12)
    assert rewards.stand_pose(state()) == 0.0


def test_reward_is_the_weighted_sum_and_unknown_terms_are_named(embodiment):
    total, parts = Reward(embodiment)(state())
    assert total == pytest.approx(sum(parts.values()))
    assert parts["action_rate"] == pytest.approx(-0.04 * 3.0)
    changed = embodiment.to_dict()
    changed["reward"]["terms"][0]["name"] = "track_linear_velocty"
    with pytest.raises(UserError, match="did you mean 'track_linear_velocity'"):
        Reward(Embodiment.from_dict(changed, embodiment.model_path.parent))
    changed["reward"]["terms"][0] = {"name": "track_linear_velocity", "weight": 1.0, "sigmaa": 0.3}
    with pytest.raises(UserError, match="sigma"):
        Reward(Embodiment.from_dict(changed, embodiment.model_path.parent))


def test_robot_weighs_what_the_class_weighs_and_stands_on_its_own_weight(embodiment):
    simulation = Simulation(embodiment)
    assert simulation.model.body_mass.sum() == pytest.approx(15.02, abs=0.02)
    for _ in range(1000):
        simulation.step(embodiment.default_position)
    assert 0.25 < simulation.data.qpos[2] < 0.33
    assert simulation.gravity()[2] < -0.995
    assert np.abs(simulation.joint_velocity()).max() < 0.05
    contact = sum(simulation.data.contact[i].dist < 0 for i in range(simulation.data.ncon))
    assert contact >= 4 and simulation.foot_contact().all()
    assert np.all(np.abs(simulation.joint_effort()) <= embodiment.effort_limit + 1e-9)


@pytest.mark.parametrize("name", ["quadruped", "humanoid"])
def test_centre_of_mass_counts_the_extra_mass_wherever_the_robot_stands(name):
    simulation = Simulation(Embodiment.load(name))
    model, data = simulation.model, simulation.data
    simulation.set_extra_mass(2.0)
    data.qpos[:2] = (5.0, -3.0)
    mujoco.mj_forward(model, data)
    expected = model.body_mass @ data.xipos / model.body_mass.sum()
    np.testing.assert_allclose(data.subtree_com[0], expected, atol=1e-9)


def test_free_fall_is_gravity(embodiment):
    simulation = Simulation(embodiment)
    simulation.data.qpos[2] = 5.0
    simulation.data.qvel[:] = 0.0
    for _ in range(50):
        simulation.step(embodiment.default_position)
    duration = 50 / embodiment.physics_rate
    assert simulation.data.qvel[2] == pytest.approx(-9.81 * duration, rel=0.02)


def test_same_seed_and_actions_give_the_same_episode_bit_for_bit(embodiment):
    def run() -> list[np.ndarray]:
        env, rng = RobotEnv(embodiment, 7), np.random.default_rng(0)
        observations = [env.reset()]
        for _ in range(40):
            result = env.step(rng.uniform(-0.3, 0.3, 12))
            observations.append(result.observation)
            if result.terminated:
                break
        return observations

    for one, other in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_toppled_robot_ends_the_episode_and_standing_robot_runs_out_of_time(embodiment):
    env = RobotEnv(embodiment, 0, CLEAN)
    env.set_command(np.zeros(3))
    env.reset()
    env.simulation.data.qpos[3:7] = (np.cos(0.8), np.sin(0.8), 0.0, 0.0)
    assert env.step(np.zeros(12)).terminated
    env.reset()
    env.max_steps = 60
    results = [env.step(np.zeros(12)) for _ in range(60)]
    assert results[-1].truncated and not any(r.terminated for r in results)
    assert not any(r.truncated for r in results[:-1])


def test_command_delay_shifts_the_motion(embodiment):
    moved = []
    for delay in (0.0, 0.012):
        env = RobotEnv(embodiment, 0, CLEAN)
        env.set_command(np.zeros(3))
        env.reset()
        env._delay = delay
        env.step(np.full(12, 0.5))
        moved.append(np.abs(env.player.sample(env.simulation.time) - embodiment.default_position).max())
    assert moved[1] < 0.6 * moved[0]


@pytest.mark.parametrize("delay", [0.016, 0.02, 0.05, 0.1])
def test_a_delay_of_any_length_shifts_the_response_by_itself(embodiment, delay):
    """The drives' targets are those without delay, later by `delay`: none is lost, none comes early."""

    def targets_seen(delay: float) -> np.ndarray:
        env, rng, seen = RobotEnv(embodiment, 0, CLEAN), np.random.default_rng(1), []
        env.set_command(np.zeros(3))
        env.reset()
        env._delay = delay
        # the safety filter looks at the joints, which feel the delay; its limits are not what this is about
        env.safety.filter = lambda wanted, position, dt: SafetyResult(np.array(wanted), ())
        step = env.simulation.step
        env.simulation.step = lambda target: (seen.append(target.copy()), step(target))
        for _ in range(20):
            env.step(rng.uniform(-0.1, 0.1, 12))
        return np.stack(seen)

    late = int(np.ceil(delay * embodiment.physics_rate - 1e-9))
    prompt, delayed = targets_seen(0.0), targets_seen(delay)
    np.testing.assert_allclose(delayed[late:], prompt[:-late], atol=1e-9)
    np.testing.assert_array_equal(delayed[:late], np.tile(embodiment.default_position, (late, 1)))
    assert np.abs(np.diff(prompt, axis=0)).max() > 0.005


def test_missing_joint_of_the_robot_model_is_named(embodiment, tmp_path):
    text = embodiment.model_path.read_text().replace('name="FL_hip_joint"', 'name="FL_hip_jnt"')
    (tmp_path / "quadruped.xml").write_text(text.replace('joint="FL_hip_joint"', 'joint="FL_hip_jnt"'))
    (tmp_path / "embodiment.yaml").write_text((embodiment.model_path.parent / "embodiment.yaml").read_text())
    with pytest.raises(UserError, match="FL_hip_joint"):
        Simulation(Embodiment.load(tmp_path))
