"""Rotations against known geometry and MuJoCo's own quaternion code."""

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tdmpc2_core.robots import rotations as r

ANGLE = st.floats(-3.1, 3.1)
TILT = st.floats(-1.5, 1.5)


def test_converters_reorder_and_invert_each_other():
    assert_array_equal(r.wxyz_to_xyzw([1, 2, 3, 4]), [2, 3, 4, 1])
    assert_array_equal(r.xyzw_to_wxyz([2, 3, 4, 1]), [1, 2, 3, 4])
    batch = np.arange(24.0).reshape(2, 3, 4)
    assert_array_equal(r.xyzw_to_wxyz(r.wxyz_to_xyzw(batch)), batch)


def test_gravity_points_down_when_upright():
    assert_array_equal(r.gravity_direction([0, 0, 0, 1]), [0, 0, -1])


@pytest.mark.parametrize("angle", [0.3, -0.7, 1.2])
def test_nose_down_pitch_tips_gravity_forward(angle):
    """REP-103: y points left, so positive pitch lowers the nose and gravity gains a forward part."""
    assert_allclose(
        r.gravity_direction(r.from_roll_pitch_yaw(0, angle, 0.4)),
        [np.sin(angle), 0, -np.cos(angle)],
        atol=1e-12,
    )


@pytest.mark.parametrize("angle", [0.3, -0.7, 1.2])
def test_roll_to_the_right_tips_gravity_right(angle):
    """Positive roll about x lowers the right side (-y)."""
    assert_allclose(
        r.gravity_direction(r.from_roll_pitch_yaw(angle, 0, -2.0)),
        [0, -np.sin(angle), -np.cos(angle)],
        atol=1e-12,
    )


def test_gravity_ignores_the_length_of_the_quaternion():
    q = r.from_roll_pitch_yaw(0.2, -0.4, 1.0)
    assert_allclose(r.gravity_direction(0.95 * q), r.gravity_direction(q), atol=1e-12)


@given(ANGLE, TILT, ANGLE)
def test_yaw_reads_back_the_heading(roll, pitch, heading):
    assert_allclose(r.yaw(r.from_roll_pitch_yaw(roll / 3, pitch, heading)), heading, atol=1e-9)


@given(ANGLE, TILT, ANGLE)
def test_matches_mujoco(roll, pitch, heading):
    q = r.from_roll_pitch_yaw(roll, pitch, heading)
    vector, rotated = np.array([0.3, -1.2, 0.7]), np.zeros(3)
    mujoco.mju_rotVecQuat(rotated, vector, r.xyzw_to_wxyz(q))
    assert_allclose(r.rotate(q, vector), rotated, atol=1e-12)
    assert_allclose(r.rotate_inverse(q, rotated), vector, atol=1e-12)
    assert_allclose(r.rotate(q, r.gravity_direction(q)), [0, 0, -1], atol=1e-12)


def test_batches_give_the_same_bits_as_single_ones():
    quaternions = np.random.default_rng(0).normal(size=(5, 4))
    batch = r.gravity_direction(quaternions)
    assert all(np.array_equal(batch[i], r.gravity_direction(q)) for i, q in enumerate(quaternions))
    assert_allclose(np.linalg.norm(batch, axis=1), 1.0, atol=1e-12)
