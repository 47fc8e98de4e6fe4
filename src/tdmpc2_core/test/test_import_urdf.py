"""A robot folder made from a URDF compiles, stands, and is that robot; mistakes are one sentence."""

import struct

import mujoco
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tdmpc2_core import cli
from tdmpc2_core.descriptions.from_urdf import import_urdf
from tdmpc2_core.envs.robot.env import EnvOptions, RobotEnv
from tdmpc2_core.envs.robot.simulation import Simulation
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment

INERTIA = '<inertia ixx="0.01" iyy="0.01" izz="0.01" ixy="0" ixz="0" iyz="0"/>'
LINK = '<link name="{}"><inertial><mass value="{}"/>' + INERTIA + "</inertial>"
LIMIT = '<limit lower="{}" upper="{}" effort="8" velocity="9"/>'
URDF = f"""
<robot name="hopper">
  {LINK.format("trunk", 3)}
    <collision><geometry><box size="0.3 0.3 0.1"/></geometry></collision></link>
  {LINK.format("leg", 0.5)}
    <visual><geometry><mesh filename="package://nowhere/leg.dae"/></geometry></visual>
    <collision><origin xyz="0 0 -0.3"/><geometry><box size="0.3 0.3 0.02"/></geometry></collision></link>
  <link name="sole"/>
  <joint name="knee" type="revolute"><parent link="trunk"/><child link="leg"/><axis xyz="0 1 0"/>
    {LIMIT.format(-0.5, 1.0)}<dynamics damping="0.2"/></joint>
  <joint name="ankle" type="fixed"><parent link="leg"/><child link="sole"/><origin xyz="0 0 -0.31"/></joint>
</robot>
"""


@pytest.fixture
def write(tmp_path):
    def write(text=URDF):
        (tmp_path / "hopper.urdf").write_text(text)
        return tmp_path / "hopper.urdf"

    return write


def test_a_floating_robot_stands_where_its_lowest_shape_touches(write, tmp_path):
    robot = Embodiment.load(import_urdf(write(), tmp_path / "hopper"))
    assert robot.joint_names == ("knee",)
    assert (robot.lower[0], robot.upper[0], robot.effort_limit[0], robot.velocity_limit[0]) == (
        -0.5,
        1.0,
        8,
        9,
    )
    assert robot.reset.base_height == pytest.approx(0.31)
    assert (robot.base_frame, robot.imu_frame) == ("trunk", "trunk")
    simulation = Simulation(robot)
    assert simulation.model.body_mass.sum() == pytest.approx(3.5)
    for _ in range(100):
        simulation.step(robot.default_position)
    orientation, rate, acceleration = simulation.imu()
    assert acceleration[2] == pytest.approx(9.81, abs=0.2)
    assert not simulation.fallen()
    assert np.abs(simulation.joint_position()).max() < 0.05


def test_rewards_take_the_command_by_name(write, tmp_path):
    """The draft's command has no lateral term: the turn is its second one."""
    robot = Embodiment.load(import_urdf(write(), tmp_path / "hopper"))
    assert robot.twist_command.names == ("linear_x", "angular_z")
    assert_allclose(robot.twist_command.velocity([0.2, 0.4]), [0.2, 0.0, 0.4])
    rewards = []
    for turn in (0.0, 0.5):
        env = RobotEnv(robot, 0, EnvOptions(sensor_noise=False, randomise=False, random_reset=False))
        env.set_command(np.array([0.0, turn]))
        env.reset()
        rewards.append(env.step(np.zeros(1)).reward)
    assert rewards[1] < rewards[0] - 0.2  # standing still earns the whole term only without a turn


def test_a_root_link_named_world_bolts_the_robot_down(write, tmp_path):
    joint = '<joint name="bolt" type="fixed"><parent link="world"/><child link="trunk"/>'
    origin = '<origin xyz="0 0 1" rpy="0 0 1.5707963"/></joint>'
    text = URDF.replace('<robot name="hopper">', f'<robot name="hopper"><link name="world"/>{joint}{origin}')
    robot = Embodiment.load(import_urdf(write(text), tmp_path / "hopper"))
    model = mujoco.MjModel.from_xml_path(str(robot.model_path))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert model.njnt == 1
    assert_allclose(data.body("trunk").xpos, [0, 0, 1], atol=1e-6)
    assert_allclose(data.body("trunk").xmat.reshape(3, 3)[:, 0], [0, 1, 0], atol=1e-6)
    assert not robot.observation.has("gravity")


def test_collision_meshes_come_along(write, tmp_path):
    corners = [(0, 0, 0), (0.2, 0, 0), (0, 0.2, 0), (0, 0, 0.2)]
    faces = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
    triangles = [struct.pack("<12fH", 0, 0, 0, *(c for i in face for c in corners[i]), 0) for face in faces]
    (tmp_path / "foot.stl").write_bytes(b" " * 80 + struct.pack("<I", 4) + b"".join(triangles))
    text = URDF.replace('<box size="0.3 0.3 0.02"/>', '<mesh filename="package://{}/foot.stl"/>')
    robot = Embodiment.load(import_urdf(write(text.replace("{}", tmp_path.name)), tmp_path / "hopper"))
    assert Simulation(robot).model.nmesh == 1


@pytest.mark.parametrize(
    ("text", "broken", "words"),
    [
        ("</robot>", "", "cannot be read as XML"),
        ('type="revolute"', 'type="continuous"', "'knee' is continuous"),
        ('effort="8"', 'effort="0"', "'knee' needs lower, upper, effort and velocity"),
        ('<box size="0.3 0.3 0.02"/>', '<mesh filename="foot.stl"/>', "'foot.stl' is missing"),
        ('<parent link="leg"/>', '<parent link="foot"/>', "MuJoCo cannot read it"),
        ('type="revolute"', 'type="fixed"', "no joint moves"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_folder(write, tmp_path, text, broken, words):
    assert text in URDF
    with pytest.raises(UserError, match=words) as caught:
        import_urdf(write(URDF.replace(text, broken)), tmp_path / "hopper")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hopper").exists()


def test_the_command_says_what_to_do_next_and_spares_a_folder(write, tmp_path, capsys):
    arguments = ["import-urdf", str(write()), str(tmp_path / "hopper")]
    assert cli.main(arguments) == 0
    assert "tdmpc2 train robot=" in capsys.readouterr().out
    assert cli.main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
