"""What is done about faults on a running robot: the table, and the supervisor that acts by it."""

from pathlib import Path

import numpy as np
import pytest

from tdmpc2_core.control.events import BY_NAME, EVENTS, Action, page, simulation, worst
from tdmpc2_core.control.supervision import BLOCKED, COMMANDING, ESTOP, IDLE, Supervision
from tdmpc2_core.robots import Embodiment

ROBOT = Embodiment.load("quadruped")
DOCS = Path(__file__).parents[3] / "docs/reference"
TARGETS = ROBOT.default_position + 0.1


def walking(robot: Embodiment = ROBOT) -> Supervision:
    """Of a robot whose planner commands it at time 0."""
    supervision = Supervision(robot)
    supervision.joints(np.array(robot.default_position), np.zeros(robot.num_joints))
    supervision.command(0.0, np.array(robot.default_position) + 0.1)
    supervision.tilt(0.0, 0.0)
    supervision.heartbeat(0.0, COMMANDING)
    return supervision


def test_the_pages_of_the_documentation_are_those_of_the_table():
    assert (DOCS / "safety-events.md").read_text("utf-8") == page()
    assert (DOCS / "safety-events.html").read_text("utf-8") == simulation()
    assert "http" not in simulation()  # one file, that loads nothing


def test_the_most_severe_event_decides():
    actions = [event.action for event in EVENTS]
    assert actions == sorted(actions) and len(BY_NAME) == len(EVENTS)
    assert worst(["estop", "fallen", "late_plan"]).action is Action.LIE
    assert worst([]) is None


def test_a_planner_that_lives_is_left_alone_and_one_that_falls_silent_is_not():
    supervision = walking()
    for tick in range(200):
        supervision.heartbeat(0.02 * tick, COMMANDING)
        assert supervision.decide(0.02 * tick + 0.019) is None
    assert supervision.decide(3.98 + 0.099) is None
    found = supervision.decide(3.98 + 0.101)
    assert found.name == "planner_silent"


def test_a_planner_that_has_just_begun_may_be_silent_for_longer():
    supervision = walking()
    supervision.heartbeat(0.5, COMMANDING)
    assert supervision.decide(1.49) is None
    assert supervision.decide(1.51).name == "planner_silent"


def test_what_a_supervisor_that_stood_still_did_not_hear_says_nothing():
    supervision = walking()
    for tick in range(200):  # past the planner's beginning
        supervision.heartbeat(0.02 * tick, COMMANDING)
        supervision.tilt(0.02 * tick, 0.0)
    supervision.stood_still(2.0)  # from 4 s to 6 s
    supervision.tilt(6.0, 1.5)
    assert supervision.decide(6.05) is None
    assert supervision.decide(6.09).name == "planner_silent"
    supervision.tilt(6.2, 1.5)
    assert supervision.decide(6.2).name == "fallen"


@pytest.mark.parametrize(("state", "events"), [(COMMANDING, ["planner_died"]), (IDLE, [])])
def test_the_end_of_its_process_counts_where_it_was_commanding(state, events):
    supervision = walking()
    supervision.heartbeat(0.02, state)
    supervision.died()
    found = supervision.decide(0.021)
    assert [found.name] == events if events else found is None


def test_targets_go_from_the_last_command_to_the_posture_at_a_constant_rate():
    supervision = walking()
    supervision.died()
    assert supervision.decide(1.0).name == "planner_died"
    first = supervision.targets(1.0)
    assert first.shape == (10, 12)
    np.testing.assert_allclose(first[0], TARGETS - 0.1 * 0.02 / 0.5)  # rad: the way takes half a second
    for tick in range(1, 51):
        supervision.decide(1.0 + 0.005 * tick)
    np.testing.assert_allclose(supervision.targets(1.25)[0], TARGETS - 0.1 * 0.27 / 0.5)
    for now in (9.0, 2.0):  # a clock that jumps licenses no jump of the targets
        supervision.decide(now)
    np.testing.assert_allclose(supervision.targets(now)[0], TARGETS - 0.1 * 0.31 / 0.5)
    for tick in range(100):
        supervision.decide(2.0 + 0.02 * tick)
    np.testing.assert_allclose(supervision.targets(4.0), np.tile(ROBOT.default_position, (10, 1)))


def test_an_arm_is_stopped_where_it_is():
    arm = Embodiment.load("arm")
    supervision = walking(arm)
    supervision.died()
    assert supervision.decide(1.0)
    np.testing.assert_allclose(supervision.targets(1.0)[-1], np.array(arm.default_position) + 0.1)


def test_a_fallen_robot_is_held_where_it_lies():
    supervision = walking()
    for tick in range(12):
        now = 0.02 * tick
        supervision.heartbeat(now, COMMANDING)
        supervision.tilt(now, 1.5)
        found = supervision.decide(now)
    assert found.name == "fallen"
    np.testing.assert_allclose(
        supervision.targets(now), np.tile(ROBOT.default_position, (10, 1))
    )  # as measured


def test_the_way_to_where_a_robot_lies_keeps_the_rate_that_commands_may_have():
    supervision, most = walking(), ROBOT.safety.max_target_rate * ROBOT.control_period
    lying = ROBOT.default_position + 1.0
    supervision.joints(lying, np.zeros(12))
    supervision.died()
    assert supervision.decide(1.0).name == "planner_died"
    before = supervision.targets(1.0)[0]
    for tick in range(1, 30):
        now = 1.0 + 0.02 * tick
        supervision.tilt(now, 1.5 if tick > 4 else 0.0)
        found = supervision.decide(now)
        targets = supervision.targets(now)
        assert np.abs(targets[0] - before).max() <= most + 1e-9
        assert np.abs(np.diff(targets, axis=0)).max() <= most + 1e-9
        before = targets[0]
    assert found.name == "fallen"
    np.testing.assert_allclose(before, lying)


def test_a_stop_lasts_until_it_may_be_released():
    supervision = walking()
    supervision.estop()
    supervision.heartbeat(1.0, ESTOP)
    assert supervision.decide(1.0).name == "supervisor_estop"
    assert "clear_estop" in supervision.release(1.0)
    supervision.heartbeat(1.0, COMMANDING)
    supervision.tilt(1.0, 0.8)
    assert "tilted by 0.80 rad" in supervision.release(1.0)
    supervision.tilt(1.01, 0.0)
    supervision.joints(np.array(ROBOT.default_position), np.full(12, 2.0))
    assert "moves" in supervision.release(1.01)
    supervision.joints(np.array(ROBOT.default_position), np.zeros(12))
    assert "no planner is alive" in supervision.release(2.0)
    supervision.heartbeat(2.0, COMMANDING)
    assert supervision.release(2.0) == "" and supervision.decide(2.01) is None


def test_two_planners_that_block_each_other_leave_the_robot_to_the_supervisor():
    supervision = walking()
    supervision.heartbeat(0.11, BLOCKED)
    assert supervision.decide(0.11).name == "nobody_commands"


def test_postures_are_checked_by_joint_and_limit():
    content = ROBOT.to_dict()
    content["safety"] = {"posture": {"FL_knee": 0.0}}
    with pytest.raises(Exception, match="no joint"):
        Embodiment.from_dict(content)
    content["safety"] = {"posture": {"FL_calf_joint": 3.0}}
    with pytest.raises(Exception, match="outside its limits"):
        Embodiment.from_dict(content)
    content["safety"] = {"posture": {"FL_calf_joint": -1.7}}
    assert Embodiment.from_dict(content).safe_posture[2] == -1.7
