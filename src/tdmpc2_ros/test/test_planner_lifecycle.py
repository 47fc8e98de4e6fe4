"""The planner node as a process over DDS: lifecycle, command flow, emergency stop, shutdown."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from fake_robot import PLANNER, FakeRobot
from processes import domain, wait_until
from random_agent import ROBOT, random_bundle
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.parameter import Parameter

from tdmpc2_core.robots.messages import to_seconds


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return random_bundle(tmp_path_factory.mktemp("planner"))


@pytest.fixture(scope="module")
def world(bundle, tmp_path_factory):
    """One planner, activated, and a robot."""
    report = tmp_path_factory.mktemp("report") / "report.json"
    with domain() as own:
        robot = FakeRobot(own)
        process = own.start(PLANNER, {"model": bundle, "report": str(report)})
        assert robot.state() == "unconfigured"
        assert robot.change("configure"), process.log
        assert robot.state() == "inactive"
        assert robot.quiet(0.3)
        assert robot.change("activate"), process.log
        robot.wait_for_commands(5, process=process)
        robot.process, robot.report = process, report
        yield robot
        robot.close()


def test_commands_flow_at_the_control_rate(world):
    first = len(world.trajectories)
    world.wait_for_commands(100, process=world.process)
    times = np.array([t for t, _ in world.trajectories[first : first + 100]])
    assert 45.0 < 99.0 / (times[-1] - times[0]) < 55.0
    assert len(world.positions) == 0


def test_trajectory_is_what_the_controller_takes(world):
    world.wait_for_commands(1)
    message = world.trajectories[-1][1]
    assert list(message.joint_names) == list(ROBOT.joint_names)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (0, 0)
    assert 1 <= len(message.points) <= 3
    period = ROBOT.control_period
    for k, point in enumerate(message.points):
        assert to_seconds(point.time_from_start) == pytest.approx((k + 1) * period)
        positions = np.array(point.positions)
        assert ((positions >= ROBOT.lower) & (positions <= ROBOT.upper)).all()
        assert not point.velocities and not point.accelerations


def test_diagnostics_tell_rate_latency_and_state(world):
    world.diagnostics = None
    wait_until(lambda: world.status()[1].get("mode") in ("plan", "replay", "policy"), 5.0)
    _, values = world.status()
    assert values["state"] == "active"
    assert float(values["rate_hz"]) > 40.0
    assert 0.0 < float(values["latency_ms.p50"]) <= float(values["latency_ms.p99"])
    assert {"missed", "stale_sources", "latency_ms.max"} <= set(values)
    assert any(key.startswith("ended_by.") for key in values)


def test_parameters_are_described_and_guarded(world):
    request = DescribeParameters.Request(names=["model", "deadline_ms", "samples"])
    found = world.own.call("/planner/describe_parameters", DescribeParameters, request).descriptors
    assert all(d.description for d in found)
    assert [d.read_only for d in found] == [True, False, True]
    assert found[2].integer_range[0].to_value == 65536
    for value, accepted in ((9, True), (-1.0, False), ("x", False), (12.0, True)):
        change = SetParameters.Request(parameters=[Parameter("deadline_ms", value=value).to_parameter_msg()])
        result = world.own.call("/planner/set_parameters", SetParameters, change).results[0]
        assert result.successful is accepted, (value, result.reason)


def test_emergency_stop_latches(world):
    assert world.trigger("estop")
    wait_until(lambda: world.is_hold(world.trajectories[-1][1]), 2.0, "no hold")
    world.wait_for_commands(20)
    assert all(world.is_hold(message) for _, message in world.trajectories[-15:])
    wait_until(lambda: "emergency stop" in world.status()[0], 3.0)
    assert world.change("deactivate")
    assert not world.change("activate"), "activated although the emergency stop is set"
    assert world.trigger("clear_estop")
    assert world.change("activate")
    world.wait_for_commands(20)
    assert not world.is_hold(world.trajectories[-1][1])


def test_deactivation_holds_then_is_silent(world):
    assert world.change("deactivate")
    assert world.is_hold(world.trajectories[-1][1])
    assert world.quiet()
    wait_until(lambda: world.status()[1]["state"] == "inactive", 3.0)
    assert world.status()[1]["stop_cause"] == "deactivated on request"
    report = json.loads(world.report.read_text())
    assert report["commands"] > 0 and report["latency_ms"]["p99"] > 0 and report["memory_mb"] < 1000
    assert world.change("activate")
    world.wait_for_commands(5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_holds_and_exits_zero(bundle, number):
    with domain() as own:
        robot = FakeRobot(own)
        process = own.start(PLANNER, {"model": bundle, "autostart": True, "method": "policy"})
        robot.wait_for_commands(10, process=process)
        process.send(number)
        process.send(number)
        assert process.wait() == 0, process.log
        wait_until(lambda: robot.is_hold(robot.trajectories[-1][1]), 1.0, "the last command is no hold")
        assert "Traceback" not in process.log and "stopped: signal" in process.log
        robot.close()


def test_forward_position_output_and_namespace(bundle):
    with domain() as own:
        robot = FakeRobot(own)
        process = own.start(
            PLANNER,
            {"model": bundle, "autostart": True, "output": "forward_position", "method": "policy"},
            ["-r", "joint_states:=/joint_states", "-r", "__ns:=/a"]
            + ["-r", "imu_sensor_broadcaster/imu:=/imu_sensor_broadcaster/imu"]
            + ["-r", "forward_position_controller/commands:=/forward_position_controller/commands"],
        )
        wait_until(lambda: len(robot.positions) > 10, 30.0, lambda: process.log)
        targets = np.array(robot.positions[-1][1].data)
        assert targets.shape == (12,) and np.isfinite(targets).all()
        assert not robot.trajectories
        assert process.stop() == 0
        wait_until(lambda: np.allclose(robot.positions[-1][1].data, robot.position), 1.0, "no hold")
        robot.close()
