"""Samples that no robot can have measured, against a simulated one that walks."""

import math
import re

import numpy as np
import pytest
from small_robot import small_robot

from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots import SensorState
from tdmpc2_core.robots.plausibility import Plausibility

ROBOT = small_robot()
PERIOD, LEVEL = 0.01, (0.0, 0.0, 0.0, 1.0)


class Feed:
    """Joints that swing and a base that rocks, with exact velocities, at 100 Hz; `noise` as sensors have."""

    def __init__(self, noise=0.0, still=False, robot=ROBOT):
        self.state = SensorState(robot, Plausibility(robot))
        self.time, self.noise, self.still = 10.0, noise, still
        self.rng = np.random.default_rng(0)
        self.joints = self.imu = lambda fields: fields
        self.run(50)

    def truth(self):
        swing, rock = (0.0, 0.0) if self.still else (0.3, 0.1)
        w, t = 12.0, self.time
        noise = self.noise * self.rng.uniform(-1.0, 1.0, 5)
        position = np.array([0.1, -1.5]) + swing * math.sin(w * t) + noise[:2]
        angle, rate = rock * math.sin(w * t), rock * w * math.cos(w * t)
        imu = {
            "orientation": np.array([math.sin(0.5 * angle), 0.0, 0.0, math.cos(0.5 * angle)]),
            "angular_velocity": np.array([rate, 0.0, 0.0]) + noise[2:],
            "acceleration": 9.81 * np.array([0.0, math.sin(angle), math.cos(angle)]),
        }
        velocity = np.full(2, swing * w * math.cos(w * t))
        return {"position": position, "velocity": velocity}, imu

    def run(self, samples):
        """Reasons why samples were refused."""
        refused = []
        for _ in range(samples):
            self.time += PERIOD
            joints, imu = self.truth()
            for source, fields in (("joints", self.joints(joints)), ("imu", self.imu(imu))):
                try:
                    self.state.store(source, self.time, fields)
                except SensorError as problem:
                    refused.append(str(problem))
        return refused


def _set(field, index, value):
    def spoil(fields):
        changed = np.array(fields[field], np.float64)
        changed[index] = value(changed[index])
        return {**fields, field: changed}

    return spoil


FAULTS = {
    "far away": ("joints", _set("position", 1, lambda x: 1e6), "at 1e\\+06 rad"),
    "beyond its stop": ("joints", _set("position", 0, lambda x: 1.4), "at 1.4 rad, must lie in"),
    "offset": ("joints", _set("position", 1, lambda x: x + 0.5), "jumped by 0.[45]"),
    "two swapped": ("joints", lambda f: {k: v[::-1] for k, v in f.items()}, "must lie in|jumped by"),
    "too fast": ("joints", _set("velocity", 0, lambda x: 100.0), "moves at 100 rad/s"),
    "velocity upside down": ("joints", lambda f: {**f, "velocity": -3.0 * f["velocity"]}, "disagree|jumped"),
    "wild gyro": ("imu", _set("angular_velocity", 2, lambda x: 1e30), "turns at 1e\\+30"),
    "upside down": ("imu", lambda f: {**f, "orientation": np.array([1.0, 0, 0, 0])}, "turned by"),
    "frozen joints": ("joints", None, "joints: the same values for"),
    "frozen imu": ("imu", None, "imu: the same values for"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_each_lie_makes_its_source_stale_in_time_and_the_truth_counts_again(name, noise):
    source, spoil, reason = FAULTS[name]
    feed = Feed(noise)
    kept: dict = {}
    slow = 0.4 if "upside down" in name and source == "joints" else 0.02
    setattr(feed, source, spoil or (lambda fields: kept.setdefault("first", fields)))
    refused = feed.run(8 + round(slow / PERIOD))
    assert refused, name
    (problem,) = feed.state.stale(feed.time)
    assert problem.startswith(source), problem
    assert re.search(reason, problem), problem
    setattr(feed, source, lambda fields: fields)
    feed.run(250 if slow > 0.1 else 5)
    assert not feed.state.stale(feed.time)
    assert not feed.run(100)


@pytest.mark.parametrize("source", ["joints", "imu"])
def test_a_driver_that_hung_for_a_second_counts_again_though_the_robot_has_moved(source):
    feed = Feed(0.01)
    kept: dict = {}
    setattr(feed, source, lambda fields: kept.setdefault("first", fields))
    feed.run(100)
    assert "the same values" in feed.state.stale(feed.time)[0]
    setattr(feed, source, lambda fields: fields)
    assert not feed.run(100) and not feed.state.stale(feed.time)


@pytest.mark.parametrize("still", [True, False])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_no_robot_that_stands_or_walks_is_suspected(still, noise):
    feed = Feed(noise, still)
    assert not feed.run(2000)


def test_an_older_sample_never_replaces_a_newer_one():
    feed = Feed(still=True)
    joints, _ = feed.truth()
    with pytest.raises(SensorError, match="before the sample in use"):
        feed.state.store("joints", feed.time - 0.005, joints)
    assert feed.state.snapshot().joints.stamp == feed.time


def test_an_imu_in_another_convention_is_refused_from_the_first_sample():
    feed = Feed(still=True)
    feed.state.clear()
    feed.imu = lambda fields: {**fields, "orientation": np.array([1.0, 0.0, 0.0, 0.0])}
    assert "contradicts the accelerometer" in feed.run(1)[0]


def test_mock_hardware_without_velocities_and_with_a_constant_imu_is_taken():
    feed = Feed()
    feed.state = SensorState(ROBOT, Plausibility(ROBOT))
    level = {"orientation": np.array(LEVEL), "angular_velocity": np.zeros(3)}
    feed.joints = lambda fields: {**fields, "velocity": np.zeros(2)}
    feed.imu = lambda fields: level
    assert not feed.run(300)
