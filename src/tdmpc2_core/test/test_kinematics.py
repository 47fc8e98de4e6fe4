"""Kinematics from the MJCF against MuJoCo's own, inverse kinematics, and goals that are refused."""

import mujoco
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tdmpc2_core.errors import SensorError, UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.kinematics import KinematicChain
from tdmpc2_core.robots.reach import check_goal, solve, tool_error
from tdmpc2_core.robots.rotations import axis_angle_matrix, from_matrix

ARM = Embodiment.load("arm")

BRANCHED = """
<mujoco>
  <compiler angle="{angle}"/>
  <default>
    <joint axis="0 1 0"/>
    <default class="odd"><joint axis="1 2 -1" pos="0.1 -0.05 0.02"/></default>
  </default>
  <worldbody>
    <body name="base" pos="1 2 3" quat="0.8 0 0.6 0">
      <geom size="0.1"/>
      <body name="other"><joint name="aside"/><geom size="0.1"/></body>
      <body name="upper" pos="0.1 0.2 0.3" euler="{euler}" childclass="odd">
        <joint name="b"/><geom size="0.1"/>
        <body name="bracket" pos="0 0 0.2" quat="2 1 0 -1">
          <geom size="0.1"/>
          <body name="lower" pos="0.3 0 0">
            <joint name="a" class="main"/><geom size="0.1"/>
            <site name="tip" pos="0 0.1 0.2" euler="{euler}"/>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


def branched(tmp_path, angle):
    euler = "0.3 -0.4 0.5" if angle == "radian" else "17 -23 29"
    path = tmp_path / "branched.xml"
    path.write_text(BRANCHED.format(angle=angle, euler=euler))
    return path


def in_base(data, base, position, rotation):
    frame = data.body(base).xmat.reshape(3, 3)
    return frame.T @ (position - data.body(base).xpos), frame.T @ rotation.reshape(3, 3)


def test_arm_agrees_with_mujoco_in_pose_and_jacobian():
    model = mujoco.MjModel.from_xml_path(str(ARM.model_path))
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    linear, angular = np.zeros((3, 7)), np.zeros((3, 7))
    for joints in rng.uniform(ARM.lower, ARM.upper, (30, 7)):
        data.qpos[:] = joints
        mujoco.mj_forward(model, data)
        mujoco.mj_jacSite(model, data, linear, angular, model.site("tool").id)
        position, rotation = ARM.chain.forward(joints)
        assert_allclose(position, data.site("tool").xpos, atol=1e-6)
        assert_allclose(rotation.reshape(-1), data.site("tool").xmat, atol=1e-6)
        assert_allclose(ARM.chain.jacobian(joints), np.vstack([linear, angular]), atol=1e-6)


@pytest.mark.parametrize("angle", ["radian", "degree"])
@pytest.mark.parametrize("tool", ["tip", "lower"])
def test_turned_bases_default_classes_anchors_and_branches_agree_with_mujoco(tmp_path, angle, tool):
    path = branched(tmp_path, angle)
    model = mujoco.MjModel.from_xml_path(str(path))
    data, rng = mujoco.MjData(model), np.random.default_rng(1)
    chain = KinematicChain.read(path, "base", tool, ("a", "aside", "b"))
    place = data.site if tool == "tip" else data.body
    for joints in rng.uniform(-2.0, 2.0, (10, 3)):
        for name, value in zip(("a", "aside", "b"), joints, strict=True):
            data.joint(name).qpos[0] = value
        mujoco.mj_kinematics(model, data)
        wanted = in_base(data, "base", place(tool).xpos, place(tool).xmat)
        position, rotation = chain.forward(joints)
        assert_allclose(position, wanted[0], atol=1e-6)
        assert_allclose(rotation, wanted[1], atol=1e-6)
        assert not chain.jacobian(joints)[:, 1].any()


def test_batches_are_single_poses_stacked():
    joints = np.random.default_rng(2).uniform(ARM.lower, ARM.upper, (2, 3, 7))
    position, rotation = ARM.chain.forward(joints)
    assert_allclose(position[1, 2], ARM.chain.forward(joints[1, 2])[0], atol=1e-12)
    assert_allclose(rotation[0, 1], ARM.chain.forward(joints[0, 1])[1], atol=1e-12)
    assert_allclose(ARM.chain.jacobian(joints)[1, 0], ARM.chain.jacobian(joints[1, 0]), atol=1e-12)
    assert_allclose(ARM.chain.origins(joints)[..., -1, :], position, atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ('site name="tip"', 'site name="top"', ["no site or body named 'tip'"]),
        ('body name="base"', 'body name="root"', ["no body named 'base'"]),
        ('<joint name="a"', '<joint name="c"', ["joint 'c'", "hinge of the embodiment"]),
        ('<joint name="a"', '<joint name="a" type="slide"', ["joint 'a'", "hinge"]),
        ('<joint name="a"', '<joint name="x"/><joint name="a"', ["'lower' has 2 joints"]),
        ('quat="2 1 0 -1"', 'zaxis="1 0 0"', ["zaxis of 'bracket'", "quat or euler"]),
        ("<mujoco>", "<mujoco", ["cannot be read as MJCF"]),
    ],
)
def test_chains_that_cannot_be_read_are_refused(tmp_path, old, new, parts):
    path = branched(tmp_path, "radian")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError) as caught:
        KinematicChain.read(path, "base", "tip", ("a", "aside", "b"))
    assert all(part in str(caught.value) for part in parts), caught.value


def test_a_tool_beside_the_base_is_refused(tmp_path):
    with pytest.raises(UserError, match="'upper' does not hang below the body 'other'"):
        KinematicChain.read(branched(tmp_path, "radian"), "other", "upper", ("a", "aside", "b"))


def test_error_is_seen_from_the_tool():
    joints = ARM.default_position
    position, rotation = ARM.chain.forward(joints)
    offset, turn = np.array([0.1, -0.2, 0.05]), np.array([0.2, 0.1, -0.3])
    angle = np.linalg.norm(turn)
    wanted = rotation @ axis_angle_matrix(turn / angle, angle)
    goal = np.concatenate([position + rotation @ offset, from_matrix(wanted)])
    for sign in (1.0, -1.0):  # both quaternions of a rotation
        found = tool_error(ARM.chain, joints, np.concatenate([goal[:3], sign * goal[3:]]))
        assert_allclose(found[0], offset, atol=1e-9)
        assert_allclose(found[1], turn, atol=1e-9)


def goal_at(joints):
    position, rotation = ARM.chain.forward(joints)
    return np.concatenate([position, from_matrix(rotation)])


def test_inverse_kinematics_finds_poses_that_joints_made():
    rng = np.random.default_rng(3)
    for _ in range(5):
        goal = goal_at(ARM.default_position + rng.uniform(-1, 1, 7) * ARM.pose_command.joint_span)
        solution = solve(ARM, goal)
        assert solution.found
        assert (solution.joints >= ARM.lower).all() and (solution.joints <= ARM.upper).all()
        assert_allclose(ARM.chain.forward(solution.joints)[0], goal[:3], atol=0.005)


@pytest.mark.parametrize(
    ("index", "value", "parts"),
    [
        (1, np.nan, ["y is nan", "finite"]),
        (5, np.inf, ["qz is inf", "finite"]),
        (3, 3.0, ["unit quaternion"]),
        (0, 1.2, ["x is 1.200 m", "[0.2, 0.8] m", "base_link"]),
        (2, -0.1, ["z is -0.100 m", "must lie in"]),
    ],
)
def test_goals_that_make_no_sense_are_refused_with_the_reason(index, value, parts):
    goal = goal_at(ARM.default_position)
    check_goal(ARM, goal)
    goal[index] = value
    with pytest.raises(SensorError) as caught:
        check_goal(ARM, goal)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_a_goal_in_the_box_that_no_joints_reach_is_refused():
    corner = [0.79, 0.59, 0.89, *goal_at(ARM.default_position)[3:]]
    with pytest.raises(SensorError, match=r"out of reach; the nearest pose .* cm and .* rad away"):
        check_goal(ARM, corner)
