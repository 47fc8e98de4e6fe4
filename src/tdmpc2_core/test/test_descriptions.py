"""The kinematic tree of an MJCF, and the URDF that MuJoCo reads back from it."""

import mujoco
import numpy as np
import pytest
import yaml
from numpy.testing import assert_allclose

from tdmpc2_core.descriptions import read_stance, read_tree, urdf_text
from tdmpc2_core.descriptions.from_urdf import import_urdf
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots import rotations as r

MJCF = """
<mujoco><compiler angle="radian" autolimits="true"/>
  <worldbody>
    <body name="base" pos="0.1 0 0.2">
      <inertial pos="0 0 0.1" mass="2" diaginertia="0.1 0.2 0.25"/>
      <geom type="box" size="0.1 0.2 0.05" mass="0"/>
      <body name="slider" pos="0 0 0.3" euler="0.3 -1.5707963 0.7">
        <inertial pos="0.1 0 0" mass="1" diaginertia="0.01 0.02 0.02"/>
        <joint name="lift" type="slide" axis="0 0.6 0.8" range="0 0.4" damping="3"/>
        <geom type="capsule" size="0.03" fromto="0 0 0 0.2 0 0" mass="0" contype="0" conaffinity="0"/>
        <body name="hand" pos="0.2 0 0">
          <inertial pos="0 0 0" mass="0.5" diaginertia="0.001 0.001 0.001"/>
          <geom type="ellipsoid" size="0.02 0.04 0.01" mass="0"/>
          <site name="tool" pos="0 0 0.05"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator><position joint="lift" kp="100"/></actuator>
</mujoco>
"""
EMBODIMENT = {
    "format": 1,
    "name": "lifter",
    "model": "lifter.xml",
    "control_rate": 50.0,
    "physics_rate": 250.0,
    "base_frame": "base",
    "joints": {
        "defaults": {"kp": 100.0, "kd": 1.0, "velocity": 2.0, "effort": 30.0},
        "list": [{"name": "lift", "default": 0.1, "lower": 0.0, "upper": 0.4, "action_scale": 0.1}],
    },
    "observation": {"terms": [{"name": "joint_position", "source": "joints", "max_age": 0.1}]},
}


def lifter(folder, mjcf=MJCF, **changes):
    (folder / "lifter.xml").write_text(mjcf)
    (folder / "embodiment.yaml").write_text(yaml.safe_dump(EMBODIMENT | changes))
    return Embodiment.load(folder)


def test_a_fixed_robot_hangs_on_the_world(tmp_path):
    tree = read_tree(lifter(tmp_path))
    assert tree.root == "world"
    assert [joint.name for joint in tree.joints] == ["base_fixed", "lift", "hand_fixed", "tool_fixed"]
    lift = tree.joints[1]
    assert (lift.kind, lift.parent, lift.child) == ("prismatic", "base", "slider")
    assert (lift.lower, lift.upper, lift.effort, lift.velocity, lift.damping) == (0.0, 0.4, 30.0, 2.0, 3.0)
    assert_allclose(lift.axis, [0, 0.6, 0.8], atol=1e-12)
    assert read_stance(lifter(tmp_path)).free_joint == ""


def test_a_floating_robot_has_its_base_as_root():
    robot = Embodiment.load("quadruped")
    assert read_tree(robot).root == "base_link"
    stance = read_stance(robot)
    assert (stance.free_joint, stance.height) == ("floating_base", 0.33)
    assert stance.feet == ("FL_foot", "FR_foot", "RL_foot", "RR_foot")


def test_shapes_without_a_urdf_form_become_others(tmp_path):
    links = {link.name: link for link in read_tree(lifter(tmp_path)).links}
    cylinder, *ends = links["slider"].shapes
    assert (cylinder.kind, [end.kind for end in ends]) == ("cylinder", ["sphere", "sphere"])
    assert_allclose(sorted(end.pose.position[0] for end in ends), [0.0, 0.2], atol=1e-12)
    assert not cylinder.collides
    (ball,) = links["hand"].shapes
    assert ball.size[0] == pytest.approx(0.02)  # volume of the ellipsoid: 0.02 * 0.04 * 0.01 = 0.02^3


def test_mujoco_reads_the_urdf_as_the_same_mechanism(tmp_path):
    """The URDF reader of MuJoCo against its MJCF reader."""
    robot = lifter(tmp_path)
    models = (
        mujoco.MjModel.from_xml_path(str(robot.model_path)),
        mujoco.MjModel.from_xml_string(urdf_text(robot)),
    )
    places = []
    for model in models:
        data = mujoco.MjData(model)
        data.qpos[model.joint("lift").qposadr[0]] = 0.3
        mujoco.mj_forward(model, data)
        places.append((data.body("slider").xpos, data.body("slider").xmat, model.jnt_range[0]))
    for ours, theirs in zip(*places, strict=True):
        assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "broken", "words"),
    [
        ('<body name="base"', '<body name="trunk"', "base_frame"),
        ('name="lift" type', 'name="raise" type', "'raise' is not in the embodiment"),
        ('range="0 0.4"', 'range="0 0.4" pos="0 0 0.1"', "pos or ref"),
        ('<joint name="lift"', '<joint name="turn" type="hinge"/><joint name="lift"', "2 joints"),
        ('type="slide"', 'type="ball"', "neither a hinge nor a slide"),
        ("<mujoco>", "<mujoco", "MuJoCo cannot read it"),
    ],
)
def test_what_a_urdf_cannot_hold_is_one_sentence(tmp_path, text, broken, words):
    assert text in MJCF
    mjcf = MJCF.replace(text, broken)
    if "ball" in broken:
        mjcf = mjcf.replace('axis="0 0.6 0.8" range="0 0.4"', "")
    if "raise" in broken:
        mjcf = mjcf.replace('joint="lift"', 'joint="raise"')
    with pytest.raises(UserError, match=words) as caught:
        read_tree(lifter(tmp_path, mjcf))
    assert "\n" not in str(caught.value)


def test_a_coupled_joint_is_a_mimic(tmp_path):
    """MuJoCo's equality and the URDF's mimic: position = 0.01 - 0.5 * that of the leader."""
    slide = '<joint name="close" type="slide" range="-1 1"/>'
    finger = f'<body name="pad">{slide}<geom size="0.01" mass="0.1"/></body>'
    coupling = '<equality><joint joint1="close" joint2="lift" polycoef="0.01 -0.5 0 0 0"/></equality>'
    mjcf = MJCF.replace('<site name="tool"', f'{finger}<site name="tool"')
    robot = lifter(tmp_path, mjcf.replace("<actuator>", f"{coupling}<actuator>"))
    joint = next(joint for joint in read_tree(robot).joints if joint.name == "close")
    assert (joint.mimic.joint, joint.mimic.multiplier, joint.mimic.offset) == ("lift", -0.5, 0.01)
    assert '<mimic joint="a_lift" multiplier="-0.5" offset="0.01" />' in urdf_text(robot, "a_")
    (tmp_path / "lifter.urdf").write_text(urdf_text(robot))
    again = Embodiment.load(import_urdf(tmp_path / "lifter.urdf", tmp_path / "again"))
    assert again.joint_names == ("lift",)
    model = mujoco.MjModel.from_xml_path(str(again.model_path))
    assert_allclose(model.eq_data[0, :2], [0.01, -0.5])


@pytest.mark.parametrize(
    "angles", [(0.3, -0.7, 2.9), (-3.0, 1.2, 0.1), (0.4, np.pi / 2, 0.0), (1, -np.pi / 2, 0)]
)
def test_roll_pitch_yaw_inverts_its_counterpart(angles):
    assert_allclose(r.to_roll_pitch_yaw(r.from_roll_pitch_yaw(*angles)), angles, atol=1e-7)
