"""What is drawn of a robot and its ground, against mechanics worked out outside the code."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.envs.robot.randomisation import CHANGES, changed, next_level, push, randomise
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.embodiment import CurriculumSpec

DRAWN = EnvOptions(sensor_noise=False, random_reset=False)


def with_ranges(name: str, **ranges: object) -> Embodiment:
    """A shipped robot with other ranges."""
    embodiment = Embodiment.load(name)
    content = embodiment.to_dict()
    content["randomisation"] |= ranges
    return Embodiment.from_dict(content, directory=embodiment.directory)


def on_ground(name: str = "quadruped", seed: int = 0, **ranges: object) -> Simulation:
    """A robot on drawn ground."""
    simulation = Simulation(with_ranges(name, **ranges))
    randomise(simulation, np.random.default_rng(seed))
    simulation.settle()
    return simulation


# ---- loads and joints ----
def test_a_payload_at_the_tool_bends_the_joints_as_its_weight_on_a_lever():
    """Torques of the joints for a weight are J^T m g; the makers' gravity compensation does not know it."""
    simulation = Simulation(with_ranges("arm", payload=[0.0, 2.0], payload_offset=[0.0, 0.1]))
    model, data, offset = simulation.model, simulation.data, np.array([0.05, -0.02, 0.03])

    def torque() -> np.ndarray:
        mujoco.mj_forward(model, data)
        return data.qfrc_bias - data.qfrc_passive

    before = torque()
    simulation.set_payload(1.5, offset)
    site = model.site(simulation.embodiment.command.tool).id
    point = data.site_xpos[site] + data.site_xmat[site].reshape(3, 3) @ offset
    jacobian = np.zeros((3, model.nv))
    mujoco.mj_jac(model, data, jacobian, None, point, model.site_bodyid[site])
    np.testing.assert_allclose(torque() - before, jacobian.T @ [0.0, 0.0, 1.5 * 9.81], atol=1e-9)
    assert np.abs(torque() - before).max() > 3.0


@pytest.mark.parametrize("name", ["quadruped", "humanoid"])
def test_a_payload_moves_the_centre_of_mass_and_adds_inertia(name):
    simulation = Simulation(with_ranges(name, payload=[0.0, 5.0], payload_offset=[0.0, 0.1]))
    model, data = simulation.model, simulation.data
    mass, centre, base = model.body_mass.sum(), data.subtree_com[0].copy(), data.qpos[:3].copy()
    full = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, full, data.qM)
    inertia, offset = full[5, 5], np.array([0.1, 0.05, 0.08])
    simulation.set_payload(3.0, offset)
    mujoco.mj_forward(model, data)
    assert model.body_mass.sum() == pytest.approx(mass + 3.0)
    expected = (mass * centre + 3.0 * (base + offset)) / (mass + 3.0)
    np.testing.assert_allclose(data.subtree_com[0], expected, atol=1e-9)
    mujoco.mj_fullM(model, full, data.qM)
    cube = 3.0 * 0.1**2 / 6.0
    assert full[5, 5] - inertia == pytest.approx(cube + 3.0 * (offset[:2] @ offset[:2]), abs=1e-9)


def test_a_payload_needs_its_range():
    with pytest.raises(ValueError, match="a payload needs a range randomisation.payload"):
        Simulation(Embodiment.load("quadruped")).set_payload(1.0, np.zeros(3))


def test_one_joint_is_weak_and_its_drive_gives_no_more():
    simulation = Simulation(changed(Embodiment.load("quadruped"), "weak joint"))
    limit = simulation.embodiment.effort_limit
    seen = set()
    for seed in range(30):
        randomise(simulation, np.random.default_rng(seed))
        simulation.reset()
        simulation.step(simulation.embodiment.default_position + 2.0)  # far more than the drives can hold
        share = simulation.joint_effort() / limit
        weak = int(np.argmin(share))
        seen.add(weak)
        assert share[weak] == pytest.approx(0.5) and np.delete(share, weak) == pytest.approx(1.0)
    assert len(seen) > 8


# ---- pushes ----
def test_a_push_of_the_base_is_a_momentum_and_ends():
    simulation = Simulation(Embodiment.load("quadruped"))
    mass = simulation.model.body_mass.sum()
    simulation.data.qpos[2] = 5.0

    def momentum() -> np.ndarray:
        mujoco.mj_subtreeVel(simulation.model, simulation.data)
        return mass * simulation.data.subtree_linvel[0, :2]

    simulation.push_base(np.array([30.0, -20.0, 0.0]), 0.1)
    for _ in range(4):  # in one call and in single steps
        simulation.play(np.tile(simulation.embodiment.default_position, (5, 1)))
    for _ in range(6):
        simulation.step(simulation.embodiment.default_position)
    mujoco.mj_forward(simulation.model, simulation.data)
    np.testing.assert_allclose(momentum(), [3.0, -2.0], atol=0.02)
    assert not simulation.base_force.any() and not simulation.data.xfrc_applied.any()


def test_a_robot_with_both_kinds_of_push_gets_both():
    simulation = Simulation(with_ranges("quadruped", push_force=50.0))
    rng = np.random.default_rng(0)
    kinds = [len(push(simulation, rng)) for _ in range(200)]
    assert 70 < kinds.count(3) < 130
    only = Simulation(with_ranges("quadruped", push_force=50.0, push_velocity=0.0))
    forces = np.array([push(only, rng) for _ in range(200)])
    assert forces.shape == (200, 3) and not forces[:, 2].any()
    assert 45.0 < np.linalg.norm(forces, axis=1).max() <= 50.0


# ---- ground ----
@pytest.mark.parametrize(
    "ranges",
    [
        {"slope": [8.0, 8.0]},
        {"slope": [3.0, 6.0], "step": [0.03, 0.06]},
        {"wave": [0.05, 0.1]},
        {"slope": [10.0, 10.0], "wave": [0.1, 0.1], "wave_length": 0.8},
        {"step": [0.05, 0.05], "step_length": 0.25},
    ],
)
@pytest.mark.parametrize("far", [0.0, 37.0])
def test_ground_is_where_rays_from_above_end_also_far_away(ranges, far):
    simulation = on_ground(**ranges)
    model, data = simulation.model, simulation.data
    middle = np.array([far, -0.6 * far])
    data.qpos[:2] = middle
    simulation.follow()
    data.qpos[:3] = 200.0  # the robot is out of the way
    points = middle + np.random.default_rng(0).uniform(-1.0, 1.0, (60, 2))
    heights = simulation.ground_height(points)
    mujoco.mj_forward(model, data)
    shown, hit = np.array([1, 1, 1, 1, 1, 0], dtype=np.uint8), np.zeros(1, dtype=np.int32)
    assert np.ptp(heights) > 0.02
    for point, height in zip(points, heights, strict=True):
        above, down = np.append(point, 90.0), np.array([0.0, 0.0, -1.0])
        distance = mujoco.mj_ray(model, data, above, down, shown, 1, -1, hit)
        assert model.geom_contype[hit[0]] > 0
        assert height == pytest.approx(90.0 - distance, abs=2e-6)


def test_slopes_steps_and_waves_have_the_size_that_the_file_says():
    rng = np.random.default_rng(0)
    points = rng.uniform(-8.0, 8.0, (4000, 2))
    slope = on_ground(slope=[5.0, 5.0], seed=1)
    plane = np.linalg.lstsq(np.column_stack([points, np.ones(4000)]), slope.ground_height(points))[0]
    assert np.degrees(np.arctan(np.hypot(*plane[:2]))) == pytest.approx(5.0, abs=1e-6)
    steps = on_ground(step=[0.04, 0.04]).ground_height(points)
    low, high = np.isclose(steps, 0.0), np.isclose(steps, 0.04)
    assert 0.3 < low.mean() < 0.55 and 0.3 < high.mean() < 0.55  # the rest are edges
    assert 0.055 < np.ptp(on_ground(wave=[0.06, 0.06]).ground_height(points)) <= 0.06 + 1e-9


def test_the_window_of_the_ground_does_not_matter_to_a_robot():
    """The same robot on the same blocks, once where it started and once some periods away."""
    tracks = []
    for periods in (0, 11):
        simulation = on_ground(slope=[4.0, 4.0], step=[0.04, 0.04])
        shift = 3.2 * np.array([periods, -2 * periods])
        simulation.data.qpos[:2] += shift
        rise = simulation.terrain.slope @ shift
        simulation.data.qpos[2] += rise
        simulation.follow()
        for step in range(150):
            wave = 0.3 * np.sin(0.1 * step) * np.tile([0.0, 0.6, 1.0], 4)
            simulation.step(simulation.embodiment.default_position + wave)
        tracks.append(simulation.data.qpos - np.concatenate([shift, [rise], np.zeros(16)]))
        assert simulation.foot_contact().any()
    np.testing.assert_allclose(*tracks, atol=1e-5)


@pytest.mark.parametrize("name", ["quadruped", "humanoid"])
def test_robots_start_on_their_ground_and_stand_there(name):
    embodiment = with_ranges(name, slope=[0.0, 5.0], step=[0.0, 0.04], wave=[0.0, 0.04])
    env = RobotEnv(embodiment, 0, DRAWN)
    clearance = np.array([env.reset() is not None and env.simulation.foot_height() for _ in range(40)])
    flat = Simulation(Embodiment.load(name)).foot_height().min()
    assert clearance.min() > flat - 2e-3  # a sphere on a slope touches beside its lowest point
    pinned = RobotEnv(changed(Embodiment.load("quadruped"), "slope"), 0, DRAWN)
    pinned.set_command(np.zeros(3))
    for _ in range(4):
        pinned.reset()
        results = [pinned.step(np.zeros(12)) for _ in range(50)]
        assert not results[-1].terminated and pinned.simulation.foot_contact().all()
        assert 0.24 < pinned.simulation.base_height() < 0.34


def test_flat_ground_where_nothing_is_drawn():
    env = RobotEnv(with_ranges("quadruped", slope=[5.0, 9.0], payload=[2.0, 3.0], weak_joint=[0.5, 0.5]), 0)
    env.reset()
    assert env.simulation.terrain.slope.any() and env.simulation.payload[0] >= 2.0
    clean = RobotEnv(env.embodiment, 0, EnvOptions(False, randomise=False, random_reset=False))
    plain = RobotEnv(Embodiment.load("quadruped"), 0, EnvOptions(False, randomise=False, random_reset=False))
    np.testing.assert_array_equal(clean.reset(), plain.reset())
    for _ in range(30):
        np.testing.assert_allclose(
            clean.step(np.full(12, 0.2)).observation, plain.step(np.full(12, 0.2)).observation, atol=1e-5
        )


def test_ground_that_a_robot_cannot_have_is_refused(tmp_path):
    with pytest.raises(UserError, match="slope, step and wave need a base with a free joint, and a level pl"):
        Simulation(with_ranges("arm", slope=[0.0, 5.0]))
    simulation = Simulation(with_ranges("quadruped", step=[0.0, 0.02]))
    with pytest.raises(ValueError, match="steeper or higher than the ranges"):
        simulation.terrain.shape(np.zeros(2), np.full(simulation.terrain.heights.shape, 0.2))


# ---- levels ----
def test_ranges_of_a_level_lie_between_easy_and_hard():
    ranges = with_ranges(
        "quadruped",
        friction=[0.5, 1.0],
        slope=[0.0, 2.0],
        curriculum={"success": 1.5, "friction": [0.3, 1.2], "slope": [0.0, 10.0], "push_force": 80.0},
    ).randomisation
    assert ranges.at(0.0) == ranges
    half = ranges.at(0.5)
    assert half.friction == pytest.approx((0.4, 1.1)) and half.slope == (0.0, 6.0)
    assert half.push_force == 40.0 and half.delay == ranges.delay
    assert ranges.at(1.0).friction == (0.3, 1.2) and ranges.hardest.friction == (0.3, 1.2)
    assert ranges.terrain and not Embodiment.load("quadruped").randomisation.terrain


def test_success_raises_the_level_and_falls_lower_it():
    spec = CurriculumSpec(success=1.5, failure=0.5, rise=0.1, drop=0.3)
    assert next_level(spec, 0.5, 1.6, fell=False) == pytest.approx(0.6)
    assert next_level(spec, 0.5, 1.6, fell=True) == pytest.approx(0.2)
    assert next_level(spec, 0.5, 1.0, fell=False) == 0.5
    assert next_level(spec, 0.5, 0.4, fell=False) == pytest.approx(0.2)
    assert next_level(spec, 0.95, 2.0, fell=False) == 1.0 and next_level(spec, 0.1, 2.0, fell=True) == 0.0


def test_an_episode_moves_the_level_of_its_robot():
    curriculum = {"success": 0.5, "rise": 0.25, "drop": 0.5, "slope": [4.0, 4.0]}
    embodiment = with_ranges("quadruped", curriculum=curriculum, push_interval=None)
    env = RobotEnv(embodiment, 0, DRAWN)
    env.max_steps = 10
    env.set_command(np.zeros(3))

    def slope() -> float:
        return float(np.degrees(np.arctan(np.linalg.norm(env.simulation.terrain.slope))))

    def episode(decisions: int) -> None:
        for _ in range(decisions):
            env.step(np.zeros(12))
        env.reset()

    env.reset()
    assert env.level == 0.0 and slope() == 0.0
    episode(10)
    assert env.level == 0.25 and slope() == pytest.approx(1.0)
    episode(4)  # given up
    assert env.level == 0.25
    env.simulation.data.qpos[3:7] = (0.0, 1.0, 0.0, 0.0)  # on its back
    episode(1)
    assert env.level == 0.0 and slope() == 0.0
    held = RobotEnv(embodiment, 0, EnvOptions(sensor_noise=False, random_reset=False, level=1.0))
    held.reset()
    assert held.level == 1.0
    assert np.degrees(np.arctan(np.linalg.norm(held.simulation.terrain.slope))) == pytest.approx(4.0)
    many = BatchEnv(embodiment, 2, 0, EnvOptions(sensor_noise=False, random_reset=False))
    many.level = [0.5, 1.0]
    many.reset()
    np.testing.assert_array_equal(many.level, [0.5, 1.0])
    np.testing.assert_allclose(
        np.degrees(np.arctan(np.linalg.norm(many.fleet.terrains.slopes, axis=1))), [2.0, 4.0], atol=1e-9
    )


# ---- changed robots ----
@pytest.mark.parametrize("name", ["quadruped", "humanoid", "arm"])
def test_changed_robots_run_and_take_the_same_policies(name):
    embodiment = Embodiment.load(name)
    names = [known for known, row in CHANGES.items() if row.applies(embodiment)]
    assert len(names) == (4 if name == "arm" else 7)
    for known in names:
        robot = changed(embodiment, known)
        assert robot != embodiment and robot.fingerprint == embodiment.fingerprint
        batch = BatchEnv(robot, 2, 0)
        batch.reset()
        batch.step(np.zeros((2, robot.action_dim)))
        world = batch.robots[0].simulation
        found = {
            "slope": lambda w=world: (
                np.degrees(np.arctan(np.linalg.norm(w.terrain.slope))) == pytest.approx(5)
            ),
            "steps": lambda w=world: np.ptp(w.terrain.heights) == pytest.approx(0.04),
            "payload": lambda w=world: w.payload[0] == (1.0 if name == "arm" else 3.0),
            "weak joint": lambda w=world: sorted(w.effort)[:2] == [0.5, 1.0],
            "friction": lambda w=world: w.sliding_friction == 0.3,
            "gains": lambda w=world: (w.gains == 0.8).all(),
            "delay": lambda b=batch: (b.delay >= 0.02).all() and (b.delay <= 0.032).all(),
        }
        assert found[known](), known


def test_changes_that_do_not_concern_a_robot_are_refused():
    with pytest.raises(
        UserError, match="no change 'slope' of arm; accepted: payload, weak joint, delay, gains"
    ):
        changed(Embodiment.load("arm"), "slope")
    with pytest.raises(UserError, match="did you mean 'payload'"):
        changed(Embodiment.load("quadruped"), "paylod")


@pytest.mark.parametrize("delay", [0.017, 0.032, 0.05])
def test_commands_reach_the_drives_of_a_batch_after_any_delay(delay):
    """A joint moves with the first physics step after the delay, not before, and reaches its target."""
    embodiment = with_ranges("quadruped", delay=[delay, delay])
    batch = BatchEnv(embodiment, 1, 0, DRAWN)
    batch.reset()
    played: list[np.ndarray] = []
    play = batch.fleet.play
    batch.fleet.play = lambda targets: (played.append(targets[0].copy()), play(targets))
    start = batch.targets[0].copy()
    for _ in range(10):
        batch.step(np.full((1, 12), 0.1))
    seen = np.concatenate(played)
    late = int(np.ceil(delay * embodiment.physics_rate - 1e-9))
    np.testing.assert_array_equal(seen[:late], np.tile(start, (late, 1)))
    assert (seen[late] != start).all()
    np.testing.assert_allclose(
        seen[-1], embodiment.default_position + 0.1 * embodiment.action_scale, atol=1e-9
    )
