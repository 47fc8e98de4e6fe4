"""A prefix changes names in messages and nothing that a policy depends on."""

import numpy as np

from tdmpc2_core.robots import Embodiment, SensorState
from tdmpc2_core.robots.messages import prefixed
from tdmpc2_ros.messages import SOURCE_TOPICS, joint_state_message

ROBOT = Embodiment.load("quadruped")


def test_joints_and_frames_get_the_prefix():
    left = prefixed(ROBOT, "left_")
    assert left.joint_names == tuple(f"left_{name}" for name in ROBOT.joint_names)
    assert (left.base_frame, left.imu_frame) == ("left_base_link", "left_imu_link")
    np.testing.assert_array_equal(left.lower, ROBOT.lower)
    assert prefixed(ROBOT, "") is ROBOT


def test_prefixed_messages_fill_the_same_places():
    left, positions = prefixed(ROBOT, "left_"), np.arange(12.0)
    names = list(reversed(left.joint_names))
    state = SensorState(left)
    SOURCE_TOPICS["joint_states"].store(
        joint_state_message(1.0, names, positions[::-1].copy(), np.zeros(12)), state, lambda: 0.0
    )
    np.testing.assert_array_equal(state.snapshot().joints.position, positions)
