"""The scripted trot against the robot model's own kinematics, and in simulation."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.teachers.demonstrator import Demonstrator, demonstrate
from tdmpc2_core.teachers.trot import TrotGait


@pytest.fixture(scope="module")
def embodiment() -> Embodiment:
    return Embodiment.load("quadruped")


def test_leg_kinematics_agree_with_the_robot_model(embodiment):
    gait, simulation = TrotGait(embodiment), Simulation(embodiment)
    rng = np.random.default_rng(0)
    for _ in range(20):
        joints = rng.uniform(embodiment.lower, embodiment.upper)
        simulation.data.qpos[:7] = (0, 0, 0, 1, 0, 0, 0)
        simulation.data.qpos[7:] = joints
        mujoco.mj_kinematics(simulation.model, simulation.data)
        feet = np.array([simulation.data.body(f"{leg}_foot").xpos for leg in ("FL", "FR", "RL", "RR")])
        hips = np.array([simulation.data.body(f"{leg}_hip").xpos for leg in ("FL", "FR", "RL", "RR")])
        np.testing.assert_allclose(gait.forward_kinematics(joints.reshape(4, 3)), feet - hips, atol=1e-9)


def test_inverse_kinematics_undoes_forward_kinematics(embodiment):
    gait, rng = TrotGait(embodiment), np.random.default_rng(1)
    for _ in range(50):
        joints = embodiment.default_position.reshape(4, 3) + rng.uniform(-0.4, 0.4, (4, 3))
        feet = gait.forward_kinematics(joints)
        np.testing.assert_allclose(gait.inverse_kinematics(feet), joints, atol=1e-9)


@pytest.mark.parametrize("command", [(0.5, 0.0, 0.0), (-0.4, 0.0, 0.0), (0.0, 0.25, 0.0), (0.0, 0.0, 0.8)])
def test_trot_moves_the_way_it_is_told_and_stays_up(embodiment, command):
    env = RobotEnv(embodiment, 0, EnvOptions(sensor_noise=False, randomise=False, random_reset=False))
    demonstrator = Demonstrator(embodiment)
    env.set_command(np.array(command))
    env.reset()
    velocities = []
    for step in range(250):
        assert not env.step(demonstrator.action(env)).terminated
        if step >= 100:
            linear, angular = env.simulation.base_velocity()
            velocities.append([linear[0], linear[1], angular[2]])
    np.testing.assert_allclose(np.mean(velocities, axis=0), command, atol=0.25)


def test_zero_command_is_the_default_pose(embodiment):
    targets = TrotGait(embodiment).targets(np.zeros(3), 0.3)
    np.testing.assert_array_equal(targets, embodiment.default_position)


def test_missing_section_is_named(embodiment):
    terms = tuple(term for term in embodiment.observation.terms if term.name != "gait_phase")
    clockless = replace(embodiment, clock=None, observation=replace(embodiment.observation, terms=terms))
    with pytest.raises(UserError, match="needs the sections `demonstration` and `clock`"):
        Demonstrator(clockless)
    with pytest.raises(UserError, match="no `demonstration` section"):
        Demonstrator(replace(embodiment, demonstration=None))


def test_unknown_controller_and_misspelt_setting_are_named(embodiment):
    spec = embodiment.demonstration
    with pytest.raises(UserError, match=r"unknown 'trott' .*did you mean 'trot'.*accepted: .*trot"):
        Demonstrator(replace(embodiment, demonstration=replace(spec, kind="trott")))
    params = {"swing_hight" if name == "swing_height" else name: v for name, v in spec.params.items()}
    with pytest.raises(UserError, match="did you mean 'swing_height'"):
        Demonstrator(replace(embodiment, demonstration=replace(spec, params=params)))


def test_demonstrations_are_complete_episodes_with_the_clean_action_as_plan(embodiment):
    env = RobotEnv(embodiment, 0)
    env.max_steps = 120
    episode = demonstrate(env, Demonstrator(embodiment), np.random.default_rng(3), plan_std=0.1)
    assert len(episode) <= 120 and episode.observation.shape == (len(episode) + 1, embodiment.observation_dim)
    assert episode.has_plan.all() and np.all(episode.plan_std == np.float32(0.1))
    assert np.abs(episode.action).max() <= 1.0 and np.isfinite(episode.observation).all()
