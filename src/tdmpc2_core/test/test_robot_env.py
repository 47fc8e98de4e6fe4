"""Training environment: physics, rewards and termination against numbers worked out outside the code."""

import re

import mujoco
import numpy as np
import pytest

from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.safety import SafetyResult

CLEAN = EnvOptions(sensor_noise=False, randomise=False, random_reset=False)


@pytest.fixture(scope="module")
def embodiment() -> Embodiment:
    return Embodiment.load("quadruped")


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


@pytest.mark.parametrize("name", ["quadruped", "humanoid", "arm"])
@pytest.mark.parametrize("delay", [0.016, 0.02, 0.05, 0.1])
def test_a_delay_of_any_length_shifts_the_response_by_itself(name, delay):
    """The drives' targets are those without delay, later by `delay`: none is lost, none comes early."""

    embodiment = Embodiment.load(name)

    def targets_seen(delay: float) -> np.ndarray:
        env, rng, seen = RobotEnv(embodiment, 0, CLEAN), np.random.default_rng(1), []
        env.reset()
        env._delay = delay
        # the safety filter looks at the joints, which feel the delay; its limits are not what this is about
        env.safety.filter = lambda wanted, position, dt: SafetyResult(np.array(wanted), ())
        step = env.simulation.step
        env.simulation.step = lambda target: (seen.append(target.copy()), step(target))
        for _ in range(20):
            env.step(rng.uniform(-0.1, 0.1, embodiment.action_dim))
        return np.stack(seen)

    late = int(np.ceil(delay * embodiment.physics_rate - 1e-9))
    prompt, delayed = targets_seen(0.0), targets_seen(delay)
    np.testing.assert_allclose(delayed[late:], prompt[:-late], atol=1e-9)
    np.testing.assert_array_equal(delayed[:late], np.tile(embodiment.default_position, (late, 1)))
    assert np.abs(np.diff(prompt, axis=0)).max() > 0.001


@pytest.mark.parametrize("case", ["as it is", "another order of joints", "forces", "diverging"])
@pytest.mark.parametrize("name", ["quadruped", "humanoid", "arm"])
def test_steps_in_one_call_are_single_steps_in_every_bit(name, case):
    embodiment = Embodiment.load(name)
    if case == "another order of joints":
        changes = embodiment.to_dict()
        changes["joints"]["list"] = changes["joints"]["list"][::-1]
        embodiment = Embodiment.from_dict(changes, directory=embodiment.directory)
    one, other = Simulation(embodiment), Simulation(embodiment)
    rng = np.random.default_rng(0)
    for world in (one, other):
        if case == "forces":
            world.set_force("base_link" if name != "arm" else "link4", np.array([20.0, 5.0, 0.0]))
            world.data.qfrc_applied[-1] = 0.3
            if name == "arm":
                world.show_goal(np.array([0.5, 0.1, 0.4, 0.0, 0.0, 0.0, 1.0]))
    for turn in range(6):
        if case == "diverging" and turn == 2:
            one.data.qvel[-2] = other.data.qvel[-2] = 1e13
        targets = embodiment.default_position + rng.uniform(-0.3, 0.3, (7, embodiment.num_joints))
        one.play(targets)
        for row in targets:
            other.step(row)
        for name in (
            *one.state().left,
            "qpos",
            "qvel",
            "qacc_warmstart",
            "ctrl",
            "xfrc_applied",
            "mocap_pos",
        ):
            np.testing.assert_array_equal(getattr(one.data, name), getattr(other.data, name), err_msg=name)
        assert one.time == other.time
    assert (one.time < 0.9 * 6 * 7 / embodiment.physics_rate) == (case == "diverging")


def test_missing_joint_of_the_robot_model_is_named(embodiment, tmp_path):
    text = embodiment.model_path.read_text().replace('name="FL_hip_joint"', 'name="FL_hip_jnt"')
    (tmp_path / "quadruped.xml").write_text(text.replace('joint="FL_hip_joint"', 'joint="FL_hip_jnt"'))
    (tmp_path / "embodiment.yaml").write_text((embodiment.model_path.parent / "embodiment.yaml").read_text())
    with pytest.raises(UserError, match="FL_hip_joint"):
        Simulation(Embodiment.load(tmp_path))


TERRAINS = {
    "slope": '<geom type="plane" size="0 0 0.05" pos="1 0 0.2" euler="0 -0.1 0.05" contype="1"/>',
    "waves": '<geom type="hfield" hfield="waves" pos="0.1 0.2 0.3" contype="1"/>',
    "step": '<geom type="plane" size="2 2 1" contype="1"/>'
    '<geom type="box" size="0.3 2 0.05" pos="0.2 0 0.05" contype="1"/>',
    "mound": '<geom type="plane" size="2 2 1" contype="1"/>'
    '<geom type="ellipsoid" size="2 2 0.4" contype="1"/>',
    "pyramid": '<geom type="plane" size="2 2 1" contype="1"/>'
    '<geom type="mesh" mesh="pyramid" pos="0.1 0 0.05" euler="0 0 0.3" contype="1"/>',
}


def on_terrain(embodiment, folder, ground) -> Simulation:
    """The robot on other ground, from files in a folder."""
    heights = " ".join(f"{0.5 + 0.5 * np.sin(0.45 * i + 0.2 * j):.4f}" for i in range(24) for j in range(16))
    asset = f'<asset><hfield name="waves" nrow="24" ncol="16" size="3 4 0.12 0.1" elevation="{heights}"/>'
    asset += '<mesh name="pyramid" vertex="1 1 0  -1 1 0  1 -1 0  -1 -1 0  0 0 0.5"/>'
    text, changes = re.subn(r'<geom name="ground"[^>]*/>', ground, embodiment.model_path.read_text())
    assert changes == 1
    (folder / "quadruped.xml").write_text(text.replace("<asset>", asset, 1))
    (folder / "embodiment.yaml").write_text((embodiment.model_path.parent / "embodiment.yaml").read_text())
    return Simulation(Embodiment.load(folder))


@pytest.mark.parametrize("terrain", TERRAINS)
def test_ground_is_where_rays_from_above_end(embodiment, tmp_path, terrain):
    simulation = on_terrain(embodiment, tmp_path, TERRAINS[terrain])
    model, data = simulation.model, simulation.data
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (40, 2))
    heights = simulation.ground_height(points)
    assert np.ptp(heights) > 0.05
    data.qpos[:3] = 50.0  # the robot is out of the way
    mujoco.mj_forward(model, data)
    for point, height in zip(points, heights, strict=True):
        above, down = np.append(point, 9.0), np.array([0.0, 0.0, -1.0])
        distance = mujoco.mj_ray(model, data, above, down, None, 1, -1, np.zeros(1, dtype=np.int32))
        assert height == pytest.approx(9.0 - distance, abs=1e-9)


@pytest.mark.parametrize(
    ("ground", "height"),
    [
        ('<geom type="plane" size="0 0 1" pos="0 0 -0.5" contype="1"/>', -0.5),
        ('<geom type="box" size="2 2 0.5" pos="0 0 0.2" contype="1"/>', 0.7),
        ('<geom type="hfield" hfield="waves" pos="0 0 -0.7" contype="1"/>', None),
        (
            '<geom type="plane" size="0 0 1" contype="1"/>'
            '<geom type="box" size="2 2 0.5" contype="0" conaffinity="0"/>',
            0.0,
        ),
    ],
)
def test_robot_stands_and_falls_at_any_height_of_the_ground(embodiment, tmp_path, ground, height):
    simulation = on_terrain(embodiment, tmp_path, ground)
    if height is not None:
        assert simulation.ground_height(np.zeros((2, 2))) == pytest.approx(height)
        assert simulation.data.qpos[2] == pytest.approx(height + embodiment.reset.base_height)
    for _ in range(1000):
        simulation.step(embodiment.default_position)
    assert 0.25 < simulation.base_height() < 0.34 and not simulation.fallen()
    assert simulation.foot_contact().all()
    simulation.data.qpos[2] -= 0.2
    assert simulation.fallen()
