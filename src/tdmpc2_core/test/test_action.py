"""Action mapping against hand-computed targets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from small_robot import small_robot

from tdmpc2_core.robots import ActionMapper

ROBOT = small_robot()
MAPPER = ActionMapper(ROBOT)


def test_zero_action_is_the_default_pose():
    assert_array_equal(MAPPER.targets(np.zeros(2)), [0.1, -1.5])


def test_scale_clip_and_limits():
    assert_allclose(MAPPER.targets([0.4, 0.25]), [0.1 + 0.5 * 0.4, -1.5 + 2.0 * 0.25])
    assert_allclose(MAPPER.targets([3.0, 0.1]), [0.1 + 0.5, -1.3])  # action clipped to 1
    assert_allclose(MAPPER.targets([0.0, -1.0]), [0.1, -2.5])  # -3.5 is below the knee's limit


def test_batches_keep_their_shape():
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 3, 2))
    targets = MAPPER.targets(actions)
    assert targets.shape == (4, 3, 2) and targets.dtype == np.float64
    assert_array_equal(targets[2, 1], MAPPER.targets(actions[2, 1]))


def test_float32_actions_are_welcome():
    assert MAPPER.targets(np.zeros(2, np.float32)).dtype == np.float64


@given(st.floats(-1, 1), st.floats(-0.5, 0.5))
def test_action_is_the_inverse_inside_the_limits(hip, knee):
    assert_allclose(MAPPER.action(MAPPER.targets([hip, knee])), [hip, knee], atol=1e-12)


def test_action_of_far_targets_is_clipped():
    assert_array_equal(MAPPER.action([9.0, -9.0]), [1.0, -1.0])


def test_nan_is_not_hidden():
    assert np.isnan(MAPPER.targets([np.nan, 0.0])).tolist() == [True, False]
