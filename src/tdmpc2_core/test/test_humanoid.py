"""The humanoid's model against published figures and MuJoCo's own kinematics, and its scripted controller."""

import mujoco
import numpy as np
import pytest

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.teachers.biped import Leg
from tdmpc2_core.teachers.demonstrator import Demonstrator

CLEAN = EnvOptions(sensor_noise=False, randomise=False, random_reset=False)
LEG = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")


@pytest.fixture(scope="module")
def embodiment() -> Embodiment:
    return Embodiment.load("humanoid")


@pytest.fixture(scope="module")
def simulation(embodiment) -> Simulation:
    return Simulation(embodiment)


def test_weighs_what_the_class_weighs_and_moves_its_legs_alone(embodiment, simulation):
    model = simulation.model
    assert model.body_mass.sum() == pytest.approx(33.34, abs=0.01)
    assert embodiment.joint_names == tuple(
        f"{side}_{name}_joint" for side in ("left", "right") for name in LEG
    )
    assert model.njnt == 13 and model.nu == 12
    legs = sum(m for i, m in enumerate(model.body_mass) if any(name in model.body(i).name for name in LEG))
    assert legs == pytest.approx(2 * (1.35 + 1.52 + 1.702 + 1.932 + 0.074 + 0.608), abs=1e-9)


def test_limits_of_the_model_are_those_of_the_embodiment(embodiment, simulation):
    for joint in embodiment.joints:
        ranges = simulation.model.joint(joint.name).range
        np.testing.assert_array_equal(ranges, [joint.lower, joint.upper])
        drive = simulation.model.actuator(joint.name.removesuffix("_joint"))
        np.testing.assert_allclose(drive.forcerange, [-joint.effort, joint.effort])


def test_right_side_mirrors_the_left(embodiment, simulation):
    model = simulation.model
    for index in range(model.nbody):
        name = model.body(index).name
        if not name.startswith("left_"):
            continue
        left, right = model.body(index), model.body(name.replace("left_", "right_"))
        mirror = (1.0, -1.0, 1.0)
        assert left.mass == right.mass
        np.testing.assert_allclose(left.pos * mirror, right.pos, atol=1e-12)
        np.testing.assert_allclose(left.ipos * mirror, right.ipos, atol=1e-12)
        np.testing.assert_array_equal(left.inertia, right.inertia)
    lower, upper = embodiment.lower.reshape(2, 6), embodiment.upper.reshape(2, 6)
    sign = np.array([1, -1, -1, 1, 1, -1])
    np.testing.assert_array_equal(np.where(sign > 0, lower[0], -upper[0]), lower[1])


def test_forward_kinematics_and_jacobian_are_mujocos(embodiment, simulation):
    model, data, rng = simulation.model, simulation.data, np.random.default_rng(0)
    legs = [Leg(model, embodiment, foot) for foot in embodiment.clock.feet]
    for _ in range(10):
        joints = rng.uniform(embodiment.lower, embodiment.upper)
        data.qpos[:] = (0, 0, 0, 1, 0, 0, 0, *joints)
        mujoco.mj_forward(model, data)
        for leg in legs:
            sole, turned = leg.forward(joints[leg.joints])
            foot = data.xmat[leg.body].reshape(3, 3)
            np.testing.assert_allclose(turned, foot, atol=1e-9)
            np.testing.assert_allclose(sole, data.xpos[leg.body] + foot @ leg.sole, atol=1e-9)
            ahead, force = rng.normal(size=3), rng.normal(size=3)
            jacobian = np.zeros((3, model.nv))
            mujoco.mj_jac(model, data, jacobian, None, sole + ahead, leg.body)
            efforts = -jacobian[:, 6 + leg.joints].T @ force
            np.testing.assert_allclose(leg.support(joints[leg.joints], ahead, force), efforts, atol=1e-9)


def test_inverse_kinematics_undoes_forward_kinematics(embodiment, simulation):
    rng = np.random.default_rng(1)
    for foot in embodiment.clock.feet:
        leg = Leg(simulation.model, embodiment, foot)
        default = embodiment.default_position[leg.joints]
        for _ in range(20):
            joints = default + (0.0, 0.0, 0.0, 0.2, 0.0, 0.0) + rng.uniform(-0.2, 0.2, 6)
            found = leg.inverse(*leg.forward(joints), default)
            np.testing.assert_allclose(leg.forward(found)[0], leg.forward(joints)[0], atol=1e-4)


def run(embodiment, command, seconds, force=0.0, angle=0.0) -> tuple[RobotEnv, np.ndarray]:
    """The scripted controller, pushed at the torso for 0.1 s after 1 s; base velocities (T, 3)."""
    env, demonstrator = RobotEnv(embodiment, 0, CLEAN), Demonstrator(embodiment)
    env.set_command(np.array(command))
    env.reset()
    velocities = []
    for step in range(round(seconds * embodiment.control_rate)):
        pushed = force * np.array([np.cos(angle), np.sin(angle), 0.0]) * (50 <= step < 55)
        env.simulation.set_force("torso_link", pushed)
        assert not env.step(demonstrator.action(env)).terminated
        linear, angular = env.simulation.base_velocity()
        velocities.append([linear[0], linear[1], angular[2]])
    return env, np.array(velocities)


def test_stands_on_its_own_weight_for_five_seconds(embodiment):
    env, velocities = run(embodiment, (0.0, 0.0, 0.0), 5.0)
    assert np.abs(velocities[-50:]).max() < 0.02
    assert env.simulation.foot_contact().all()
    weight = 33.34 * 9.81
    force = np.zeros(6)
    total = 0.0
    for index in range(env.simulation.data.ncon):
        mujoco.mj_contactForce(env.simulation.model, env.simulation.data, index, force)
        total += force[0]
    assert total == pytest.approx(weight, rel=0.02)


def test_default_pose_alone_stands_when_nobody_commands(embodiment, simulation):
    simulation.reset()
    for _ in range(2000):
        simulation.step(embodiment.default_position)
    assert not simulation.fallen() and simulation.gravity()[2] < -0.99


@pytest.mark.parametrize("angle", [0.0, 0.5 * np.pi, np.pi, 1.3 * np.pi])
def test_teacher_survives_a_push_of_100_newtons(embodiment, angle):
    run(embodiment, (0.0, 0.0, 0.0), 3.0, force=100.0, angle=angle)


@pytest.mark.parametrize("command", [(0.3, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 0.4)])
def test_teacher_steps_the_way_it_is_told(embodiment, command):
    env, velocities = run(embodiment, command, 4.0)
    np.testing.assert_allclose(velocities[100:].mean(axis=0), command, atol=0.06)


@pytest.mark.parametrize("seed", range(4))
def test_teacher_walks_and_turns_with_another_mass_gains_and_friction(embodiment, seed):
    content = embodiment.to_dict()
    del content["randomisation"]["push_interval"]
    calm = Embodiment.from_dict(content, directory=embodiment.directory)
    env, demonstrator = RobotEnv(calm, seed), Demonstrator(calm)
    env.set_command(np.array([0.3, 0.0, 0.4]))
    env.reset()
    start, _ = env.simulation.base_pose()
    for _ in range(400):
        assert not env.step(demonstrator.action(env)).terminated
    assert np.linalg.norm(env.simulation.base_pose()[0][:2] - start[:2]) > 0.8  # a curve of 0.75 m radius


def follow(embodiment, seed, course) -> list[np.ndarray]:
    """The shipped bundle under commands of (seconds, command); mean base velocity (3,) over each."""
    agent = Agent.load("humanoid", embodiment=embodiment)
    env = RobotEnv(embodiment, seed, EnvOptions(randomise=False))
    env.set_command(np.array(course[0][1]))
    observation, first, means = env.reset(), np.ones(1, dtype=bool), []
    for seconds, command in course:
        env.set_command(np.array(command))
        velocities = []
        for _ in range(round(seconds * embodiment.control_rate)):
            result = env.step(agent.act(observation[None], first, evaluate=True).action[0])
            observation, first = result.observation, np.zeros(1, dtype=bool)
            assert not result.terminated
            linear, angular = env.simulation.base_velocity()
            velocities.append([linear[0], linear[1], angular[2]])
        means.append(np.mean(velocities, axis=0))
    assert env.simulation.gravity()[2] < -0.98
    return means


@pytest.mark.parametrize("seed", range(3))
def test_shipped_bundle_stands(embodiment, seed):
    follow(embodiment, seed, [(4.0, (0.0, 0.0, 0.0))])


@pytest.mark.parametrize("seed", range(3))
def test_shipped_bundle_walks_turns_and_stops(embodiment, seed):
    walk, turn, rest = (0.3, 0.0, 0.0), (0.3, 0.0, 0.4), (0.0, 0.0, 0.0)
    means = follow(embodiment, seed, [(1.0, walk), (4.0, walk), (4.0, turn), (1.5, rest), (1.5, rest)])
    np.testing.assert_allclose(means[1], walk, atol=0.08)
    np.testing.assert_allclose(means[2], turn, atol=0.12)
    np.testing.assert_allclose(means[4], rest, atol=0.1)  # the quickstart's bar of having stopped
