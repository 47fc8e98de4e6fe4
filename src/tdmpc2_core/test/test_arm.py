"""A robot with a fixed base and a pose command: simulation, rewards, goals, contract, scripted controller."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.envs.robot.goals import GoalSampler
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import SensorError, UserError
from tdmpc2_core.robots import ActionMapper, Embodiment, ObservationAssembler, SensorState
from tdmpc2_core.robots.rotations import pose_error, to_matrix
from tdmpc2_core.teachers.demonstrator import Demonstrator
from tdmpc2_core.teachers.resolved_rate import ResolvedRate

ARM = Embodiment.load("arm")
CLEAN = EnvOptions(sensor_noise=False, randomise=False, random_reset=False)


def block(observation, name):
    place = next(b for b in ARM.observation_layout if b.name == name)
    return observation[place.start : place.stop]


def test_bundles_made_before_pose_commands_still_fit():
    # the fingerprint stored in the shipped bundle of that time, whose observations had a history of 3
    made_before = "5e4840727723f40e2834fb4441e799aae46a169624d032b799d8f9cdfd820bc7"
    robot = Embodiment.load("quadruped")
    robot = replace(robot, observation=replace(robot.observation, history=3))
    assert robot.fingerprint == made_before


def test_fingerprint_depends_on_the_tool_and_not_on_where_goals_are_drawn():
    def changed(**keys):
        return replace(ARM, command=replace(ARM.pose_command, **keys)).fingerprint

    assert changed(tool="hand") != ARM.fingerprint
    assert changed(joint_span=(0.1,) * 7, lower=(0.0, 0.0, 0.0)) == ARM.fingerprint


@pytest.mark.parametrize(
    ("section", "change", "parts"),
    [
        ("command", {"kind": "posture"}, ["command.kind", "twist, pose", "posture"]),
        ("command", {"terms": []}, ["command", "unknown key 'terms'"]),
        ("command", {"tool": ""}, ["tool must not be empty"]),
        ("command", {"joint_span": [0.1] * 6}, ["command.joint_span must hold 7 values"]),
        ("command", {"upper": [0.1, 0.6, 0.9]}, ["lower x must be below upper x"]),
        ("command", {"resample_seconds": 1.0}, ["resample_seconds must be at least reach_seconds"]),
        ("action", {"kind": "velocity"}, ["action.kind", "position, delta"]),
    ],
)
def test_mistakes_in_the_file_are_named(section, change, parts):
    mapping = ARM.to_dict()
    mapping[section] = {**mapping[section], **change}
    with pytest.raises(UserError) as caught:
        Embodiment.from_dict(mapping)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_terms_need_the_command_kind_they_are_made_from():
    mapping = ARM.to_dict()
    mapping["observation"]["terms"].append({"name": "command", "source": "command"})
    with pytest.raises(UserError, match=r"command, which needs command\.kind twist, got pose"):
        Embodiment.from_dict(mapping)
    quadruped = Embodiment.load("quadruped").to_dict()
    term = {"name": "goal_position", "source": "joints", "max_age": 0.06}
    quadruped["observation"]["terms"].append(term)
    with pytest.raises(UserError, match=r"goal_position, which needs command\.kind pose, got twist"):
        Embodiment.from_dict(quadruped)


def test_steps_of_a_plan_continue_from_each_other_and_stop_at_the_limits():
    mapper, start = ActionMapper(ARM), ARM.default_position
    rows = mapper.targets(np.full((3, 7), 0.5), start)
    assert_allclose(rows, start + np.outer([1, 2, 3], 0.5 * ARM.action_scale))
    assert_allclose(mapper.targets(np.full(7, 9.0), start), start + ARM.action_scale)
    assert_allclose(mapper.action(rows[0], start), 0.5)
    assert_allclose(mapper.targets(np.ones((2, 7)), ARM.upper), [ARM.upper, ARM.upper])
    with pytest.raises(ValueError, match="targets before"):
        mapper.targets(np.zeros(7))


def test_goal_in_the_observation_is_what_the_simulation_measures():
    env = RobotEnv(ARM, 0, CLEAN)
    goal = GoalSampler(ARM).draw(np.random.default_rng(5))
    env.set_command(goal)
    env.reset()
    observation = env.step(np.full(7, 0.3)).observation
    tool = env.simulation.tool_pose()
    offset, turn = pose_error(tool[:3], to_matrix(tool[3:]), goal)
    assert_allclose(block(observation, "goal_position"), 3.0 * offset, atol=1e-5)
    assert_allclose(block(observation, "goal_rotation"), turn, atol=1e-5)
    lag = env.targets - env.simulation.joint_position()
    assert_allclose(block(observation, "target_error"), 5.0 * lag, atol=1e-5)
    assert (lag > 0.0).all()


def test_without_a_goal_the_error_is_zero_and_a_goal_needs_a_unit_quaternion():
    sensors, assembler = SensorState(ARM), ObservationAssembler(ARM)
    sensors.set_joints(0.0, ARM.joint_names, ARM.default_position, np.zeros(7))
    with pytest.raises(SensorError, match="unit quaternion"):
        sensors.set_command(0.0, [0.4, 0, 0.4, 0, 0, 0, 2])
    sensors.set_command(0.0, [0.4, 0, 0.4, 0, 0, 0, 1.05])
    assembler.reset(sensors, 0.0)
    assert block(assembler.assemble(sensors, 0.0), "goal_position").any()
    assert_allclose(assembler.command[3:], [0, 0, 0, 1])
    sensors.clear_command()
    observation = assembler.assemble(sensors, 0.0)
    assert not block(observation, "goal_position").any() and not block(observation, "goal_rotation").any()
    assert not assembler.command.any()


def test_goals_are_in_the_box_clear_of_the_table_and_vary():
    rng, sampler = np.random.default_rng(0), GoalSampler(ARM)
    goals = np.array([sampler.draw(rng) for _ in range(100)])
    spec = ARM.pose_command
    assert (goals[:, :3] >= spec.lower).all() and (goals[:, :3] <= spec.upper).all()
    assert goals[:, 2].min() >= spec.clearance
    assert (np.ptp(goals[:, :3], axis=0) > 0.3).all()
    nothing = replace(ARM, command=replace(spec, clearance=2.0))
    object.__setattr__(nothing, "directory", ARM.directory)
    with pytest.raises(UserError, match="none had its tool in the box"):
        GoalSampler(nothing).draw(rng)


def test_base_is_fixed_and_the_arm_holds_against_gravity():
    simulation = Simulation(ARM)
    simulation.reset(randomise=True)
    start = simulation.joint_position()
    for _ in range(250):
        simulation.step(start)
    assert_allclose(simulation.joint_position(), start, atol=2e-3)
    assert_allclose(simulation.base_pose()[0], 0.0)
    assert_allclose(simulation.gravity(), [0, 0, -1])
    assert not simulation.base_velocity()[0].any() and not simulation.fallen()
    assert simulation.imu()[2] == pytest.approx([0, 0, 9.81])


def test_a_force_on_the_tool_moves_it_that_way_for_its_time():
    simulation = Simulation(ARM)
    before = simulation.tool_pose()[:3]
    simulation.push_tool(np.array([0.0, 30.0, 0.0]), 0.2)
    for _ in range(50):
        simulation.step(ARM.default_position)
    pushed = simulation.tool_pose()[:3] - before
    assert 0.005 < pushed[1] < 0.2 and abs(pushed[1]) > 2 * abs(pushed[2])
    for _ in range(500):
        simulation.step(ARM.default_position)
    assert_allclose(simulation.tool_pose()[:3], before, atol=2e-3)
    assert not simulation.data.xfrc_applied.any()


def test_scripted_controller_reaches_goals_in_time_and_recovers_from_a_push():
    env, controller = RobotEnv(ARM, 1, EnvOptions(randomise=False)), Demonstrator(ARM)
    env.reset()
    controller.reset()
    errors = np.array([env.step(controller.action(env)).info["position_error"] for _ in range(599)])
    assert (errors[99::200] < 0.02).all() and (errors[199::200] < 0.02).all()
    env.set_command(env.assembler.command)
    env.simulation.push_tool(np.array([0.0, 0.0, -30.0]), 0.2)
    errors = np.array([env.step(controller.action(env)).info["position_error"] for _ in range(60)])
    assert errors.max() > 0.005 and errors[-1] < 0.005


def test_scripted_controller_says_what_it_needs():
    with pytest.raises(UserError, match="needs the section `demonstration`, command.kind pose"):
        ResolvedRate(Embodiment.load("quadruped"))


def test_the_quick_tool_pose_is_the_tool_pose():
    simulation, rng = Simulation(ARM), np.random.default_rng(0)
    for _ in range(50):
        simulation.place(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), rng.uniform(ARM.lower, ARM.upper))
        np.testing.assert_allclose(simulation.quick_tool_pose(), simulation.tool_pose(), atol=1e-12)
        assert simulation.quick_tool_pose()[6] >= 0.0
