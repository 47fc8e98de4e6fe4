"""Faults on purpose, on arrays: what each does to messages and drives, against the table that promises it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tdmpc2_core.envs.robot.realtime import RobotOptions, SimulatedRobot
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.faults import FAULTS, page, read_request
from tdmpc2_core.robots.faulty import ClockLine, Drives, Line
from tdmpc2_core.robots.messages import Reading
from tdmpc2_core.robots.rotations import tilt

REFERENCE = Path(__file__).resolve().parents[3] / "docs" / "reference"
NAMES = ("a", "b", "c")
PERIOD = 0.01  # s between messages


def readings(count: int) -> list[Reading]:
    """Joints that move; every number of every message is another one."""
    return [
        Reading(100.0 + PERIOD * k, {"position": k + np.array([0.1, 0.2, 0.3]), "effort": np.zeros(0)}, NAMES)
        for k in range(count)
    ]


def through(fault: str, size: float | None = None, joint: str = "", count: int = 100, seed: int = 7):
    """What goes out, and when, s since the first message."""
    line = Line("joints", NAMES, seed)
    request = read_request(f"joints/{joint}" if joint else "joints", fault, size)
    line.check(request)
    line.set(request)
    sent = []
    for k, reading in enumerate(readings(count)):
        sent += [(PERIOD * k, one) for one in line.take(PERIOD * k, reading)]
    return sent


def test_the_page_is_the_table():
    assert (REFERENCE / "faults.md").read_text("utf-8") == page()


def test_a_line_without_a_fault_passes_what_came():
    for (_, sent), came in zip(through("ok"), readings(100), strict=True):
        assert sent.stamp == came.stamp and sent.names == came.names
        assert np.array_equal(sent.fields["position"], came.fields["position"])


def test_what_is_off_sends_nothing_and_a_joint_that_is_off_is_missing():
    assert through("off") == []
    for (_, sent), came in zip(through("off", joint="b"), readings(100), strict=True):
        assert sent.names == ["a", "c"]
        assert np.array_equal(sent.fields["position"], came.fields["position"][[0, 2]])


def test_stuck_repeats_values_under_fresh_stamps():
    whole, one = through("stuck"), through("stuck", joint="c")
    assert [sent.stamp for _, sent in whole] == [reading.stamp for reading in readings(100)]
    assert all(np.array_equal(sent.fields["position"], [0.1, 0.2, 0.3]) for _, sent in whole)
    positions = np.array([sent.fields["position"] for _, sent in one])
    assert set(positions[:, 2]) == {0.3} and np.ptp(positions[:, 0]) == 99.0


def test_garbage_has_any_size_and_is_that_of_its_seed():
    drawn = np.array([sent.fields["position"] for _, sent in through("garbage")])
    assert np.abs(drawn).min() < 0.1 and np.abs(drawn).max() > 1e4 and (drawn < 0).any()
    assert np.array_equal(drawn, [sent.fields["position"] for _, sent in through("garbage")])
    other = np.array([sent.fields["position"] for _, sent in through("garbage", seed=8)])
    assert not np.array_equal(drawn, other)


def test_wrong_shifts_positions_and_turns_an_orientation():
    (_, sent), *_ = through("wrong", 0.25, joint="b")
    assert np.allclose(sent.fields["position"], [0.1, 0.45, 0.3])
    line = Line("imu")
    line.set(read_request("imu", "wrong", 0.4))
    upright = {"orientation": np.array([0.0, 0.0, 0.0, 1.0]), "angular_velocity": np.zeros(3)}
    (turned,) = line.take(0.0, Reading(1.0, upright))
    assert tilt(turned.fields["orientation"]) == pytest.approx(0.4)
    assert np.linalg.norm(turned.fields["orientation"]) == pytest.approx(1.0)
    assert np.array_equal(upright["orientation"], [0.0, 0.0, 0.0, 1.0]), "the message itself was changed"


def test_slow_delayed_and_intermittent_keep_their_times():
    assert np.diff([when for when, _ in through("slow", 0.25)]) == pytest.approx(0.25)
    for when, sent in through("delayed", 0.1):
        assert when - (sent.stamp - 100.0) == pytest.approx(0.1, abs=PERIOD)
    sent = np.array([when for when, _ in through("intermittent", 0.2)])
    assert ((sent / 0.2 + 1e-9).astype(int) % 2 == 1).all() and len(sent) in range(38, 43)


def test_order_name_and_time_may_be_wrong_alone():
    orders = set()
    for (_, sent), came in zip(through("shuffled"), readings(100), strict=True):
        at = [NAMES.index(name) for name in sent.names]
        assert np.array_equal(sent.fields["position"], came.fields["position"][at])
        orders.add(tuple(at))
    assert len(orders) == 6
    assert all(sent.names == ["a", "b_renamed", "c"] for _, sent in through("renamed", joint="b"))
    assert all(np.isnan(sent.fields["position"]).sum() == 1 for _, sent in through("nan"))
    stamps = np.array([sent.stamp for _, sent in through("older")])
    assert (np.diff(stamps)[::2] < 0.0).all() and sorted(stamps) == [one.stamp for one in readings(100)]


@pytest.mark.parametrize(
    ("fault", "size", "shown"),
    [("stuck", None, 0.0), ("wrong", 5.0, 5.99), ("slow", 0.5, 0.495), ("wrong", -3.0, -2.01)],
)
def test_a_clock_stands_is_ahead_or_runs_slowly(fault, size, shown):
    line = ClockLine("clock")
    line.set(read_request("clock", fault, size))
    times = [line.take(PERIOD * k, Reading(50.0 + PERIOD * k, {}))[0].stamp for k in range(100)]
    assert times[-1] - 50.0 == pytest.approx(shown)


@pytest.mark.parametrize(
    ("component", "fault", "size", "said"),
    [
        ("imu", "stuk", None, "did you mean 'stuck'"),
        ("planner", "wrong", None, "off, stuck"),
        ("joints/a", "slow", None, "of all joints together"),
        ("imu", "stuck", 1.0, "has no size"),
        ("imu", "slow", -1.0, "above 0"),
        ("imu", "wrong", float("nan"), "above 0"),
    ],
)
def test_what_the_table_does_not_have_is_refused(component, fault, size, said):
    with pytest.raises(UserError, match=said):
        read_request(component, fault, size)


def test_a_joint_that_is_not_there_is_named():
    with pytest.raises(UserError, match="no joint 'd'"):
        Line("joints", NAMES).check(read_request("joints/d", "off"))
    with pytest.raises(UserError, match="did you mean 'FL_hip_joint'"):
        Drives(Embodiment.load("quadruped")).check(read_request("actuators/FL_hip", "off"))


def test_drives_fail_as_the_table_says():
    robot = Embodiment.load("arm")
    wanted = robot.default_position
    for fault, effects in FAULTS.items():
        if "drive" not in effects:
            continue
        drives = Drives(robot)
        drives.set(read_request(f"actuators/{robot.joint_names[1]}", fault))
        told = [drives.targets(0.02 * k, wanted + 0.002 * k) for k in range(30)]
        targets, share = (np.array(part) for part in zip(*told, strict=True))
        others = np.arange(robot.num_joints) != 1
        assert np.allclose(targets[:, others], (wanted + 0.002 * np.arange(30)[:, None])[:, others])
        assert (share[:, others] == 1.0).all()
        moved, expected = targets[:, 1] - wanted[1], 0.002 * np.arange(30)
        size = effects["drive"].size
        if fault in ("ok", "off", "slow", "intermittent"):
            assert np.allclose(moved, expected)
        if fault == "stuck":
            assert np.allclose(moved, 0.0)
        elif fault == "wrong":
            assert np.allclose(moved, expected + size)
        elif fault == "delayed":
            assert np.allclose(moved, np.maximum(0.0, expected - 0.002 * size / 0.02))
        elif fault == "garbage":
            assert np.ptp(moved) > 1.0
            assert (targets[:, 1] >= robot.lower[1]).all() and (targets[:, 1] <= robot.upper[1]).all()
        shares = {"off": {0.0}, "slow": {size}, "intermittent": {0.0, 1.0}}
        assert set(share[:, 1]) == shares.get(fault, {1.0})


def test_a_robot_without_torque_falls_and_stands_again_after_a_reset():
    simulated = SimulatedRobot(Embodiment.load("quadruped"), RobotOptions(sensor_noise=False))
    simulated.drives.set(read_request("actuators", "off"))
    for _ in range(250):
        simulated.step()
    assert simulated.simulation.base_pose()[0][2] < 0.2
    assert np.abs(simulated.simulation.joint_effort()).max() == 0.0
    simulated.drives.set(read_request("actuators", "ok"))
    simulated.reset()
    for _ in range(250):
        simulated.step()
    assert simulated.simulation.base_pose()[0][2] > 0.25
