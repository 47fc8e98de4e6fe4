"""The planner's own messages and services over DDS: status, plan, trust, latent, model, task."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from fake_robot import PLANNER, FakeRobot
from processes import domain, patience, wait_until
from random_agent import ROBOT, random_bundle
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.messages import to_seconds
from tdmpc2_ros import qos

pytest.importorskip("tdmpc2_msgs", reason="tdmpc2_msgs is missing: no C++ compiler, or env.sh not sourced")

from tdmpc2_msgs.msg import LatentState, PlanChunk, PlannerStatus, TrustState  # noqa: E402
from tdmpc2_msgs.srv import LoadModel, SetTask  # noqa: E402

PERIOD = ROBOT.control_period


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return [random_bundle(folder, seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def world(bundles):
    """An active planner and a robot; `statuses` are all that ~/status gave."""
    with domain() as own:
        robot = FakeRobot(own)
        robot.process = own.start(PLANNER, {"model": bundles[0], "autostart": True})
        robot.statuses, robot.reports = [], []
        own.node.create_subscription(DiagnosticArray, "/diagnostics", robot.reports.append, qos.STATUS)
        own.node.create_subscription(PlannerStatus, "/planner/status", robot.statuses.append, qos.LATCHED)
        robot.wait_for_commands(5, process=robot.process)
        yield robot
        robot.close()


def collect(world, kind, topic, count, profile=qos.COMMAND):
    """`count` messages of a topic."""
    found = []
    subscription = world.own.node.create_subscription(kind, topic, found.append, profile)
    try:
        wait_until(lambda: len(found) >= count, 20.0, lambda: f"only {len(found)}\n{world.process.log}")
    finally:
        world.own.node.destroy_subscription(subscription)
    return found


def set_parameter(world, name, value):
    change = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    assert world.own.call("/planner/set_parameters", SetParameters, change).results[0].successful


def load(world, path, check_only=False):
    request = LoadModel.Request(path=str(path), check_only=check_only)
    return world.own.call("/planner/load_model", LoadModel, request, timeout=60.0)


def test_late_subscriber_gets_the_status(world):
    time.sleep(0.2)
    start = time.monotonic()
    status = collect(world, PlannerStatus, "/planner/status", 1, qos.LATCHED)[0]
    assert time.monotonic() - start < 5.0
    assert (status.robot, status.task) == (ROBOT.name, ROBOT.task)
    assert status.fingerprint == ROBOT.fingerprint and len(status.fingerprint) == 64


def test_status_follows_every_change_of_mode(world):
    wait_until(lambda: world.statuses[-1].mode in (PlannerStatus.MODE_PLAN, PlannerStatus.MODE_REPLAY), 20.0)
    wait_until(lambda: np.isfinite(world.statuses[-1].value), 20.0)
    status = world.statuses[-1]
    assert status.iterations >= 1 and status.decisions > 0 and status.latency > 0.0
    before = len(world.statuses) - len(world.reports)
    assert world.trigger("estop")
    wait_until(lambda: world.statuses[-1].mode == PlannerStatus.MODE_ESTOP, 5.0)
    assert world.trigger("clear_estop")
    wait_until(lambda: world.statuses[-1].mode != PlannerStatus.MODE_ESTOP, 5.0)
    # every report of a second comes with a status; the changes brought further ones
    wait_until(lambda: len(world.statuses) - len(world.reports) >= before + 2, 5.0)


def test_plan_is_what_the_controller_got(world):
    chunks = collect(world, PlanChunk, "/planner/plan", 20)
    sent = {tuple(p for point in m.points for p in point.positions): m for _, m in list(world.trajectories)}
    matched = [chunk for chunk in chunks if tuple(chunk.values) in sent]
    assert len(matched) >= 15
    for chunk in matched:
        assert tuple(chunk.names) == ROBOT.joint_names and chunk.dt == pytest.approx(PERIOD)
        rows = len(sent[tuple(chunk.values)].points)
        assert chunk.horizon == rows and len(chunk.values) == rows * 12
        if chunk.ended_by in ("budget", "deadline"):
            assert len(chunk.std) == rows * 12 and min(chunk.std) >= 0.0
    stamps = np.array([to_seconds(chunk.header.stamp) for chunk in chunks])
    assert (np.diff(stamps) > 0.0).all() and np.median(np.diff(stamps)) > 0.5 * PERIOD


def test_trust_is_judged_by_the_limits_set(world):
    free = collect(world, TrustState, "/planner/trust", 5)[-1]
    assert free.level == TrustState.LEVEL_OK and np.isnan(free.trust)
    assert free.disagreement >= 0.0
    set_parameter(world, "consistency_limit", 1e-12)
    try:
        judged = collect(world, TrustState, "/planner/trust", 10)
        bad = [m for m in judged if m.level == TrustState.LEVEL_ERROR]
        assert bad and bad[-1].consistency > bad[-1].consistency_limit > 0.0
        assert bad[-1].trust == 0.0 and "latent prediction error" in bad[-1].reason
        wait_until(lambda: "outside what it learned from" in world.status()[0], 10.0)
        assert world.status()[1]["trust.level"] == "error"
    finally:
        set_parameter(world, "consistency_limit", 0.0)


def test_latent_comes_on_request(world):
    found = []
    node = world.own.node
    subscription = node.create_subscription(LatentState, "/planner/latent", found.append, qos.SENSOR_INPUT)
    time.sleep(0.7)
    assert not found, "latent without the parameter"
    set_parameter(world, "publish_latent", True)
    try:
        wait_until(lambda: len(found) >= 5, 20.0, lambda: world.process.log)
    finally:
        set_parameter(world, "publish_latent", False)
        node.destroy_subscription(subscription)
    groups = np.array(found[-1].latent).reshape(-1, found[-1].group_size)
    assert groups.min() >= 0.0 and groups.sum(1) == pytest.approx(1.0, abs=1e-4)
    assert found[-1].decision > found[0].decision
    assert np.isfinite([found[-1].reward, found[-1].termination]).all()


def test_model_is_exchanged_while_the_robot_moves(world, bundles):
    begin = len(world.trajectories)
    checked = load(world, bundles[1], check_only=True)
    assert checked.success and checked.robot == ROBOT.name and "not taken into use" in checked.message
    world.wait_for_commands(5)
    assert world.statuses[-1].model == bundles[0]
    loaded = load(world, bundles[1])
    assert loaded.success and loaded.seconds > 0.0 and loaded.fingerprint == ROBOT.fingerprint
    world.wait_for_commands(30, process=world.process)
    wait_until(lambda: world.statuses[-1].model == bundles[1], 5.0)
    during = world.trajectories[begin:]
    holds = sum(world.is_hold(message) for _, message in during)  # a busy machine may starve the sensors
    assert holds < 0.1 * len(during), "held while loading"
    assert np.diff([t for t, _ in during]).max() < patience(1.0), "a gap in the commands"


def test_model_that_does_not_fit_changes_nothing(world, bundles, tmp_path):
    model = world.statuses[-1].model
    broken = tmp_path / "broken"
    shutil.copytree(bundles[0], broken)
    weights = broken / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    joints = (dataclasses.replace(ROBOT.joints[0], default=0.3), *ROBOT.joints[1:])
    other = Embodiment.from_dict(dataclasses.replace(ROBOT, name="other", joints=joints).to_dict())
    for path, reason in (
        (broken, "weights.safetensors"),
        (random_bundle(tmp_path, other), "'other'"),
        (tmp_path / "none", "no such bundle"),
        ("", "path is empty"),
    ):
        answer = load(world, path)
        assert not answer.success and reason in answer.message and "stays" in answer.message
    world.wait_for_commands(20)
    wait_until(lambda: world.statuses[-1].header.stamp.sec > 0 and world.statuses[-1].model == model, 5.0)
    assert "Traceback" not in world.process.log


def test_single_task_model_refuses_a_task(world):
    answer = world.own.call("/planner/set_task", SetTask, SetTask.Request(task="dance"))
    assert not answer.success and "single task" in answer.message
    assert (answer.previous, answer.accepted) == (ROBOT.task, [])


def test_task_of_a_multi_task_model_is_chosen(tmp_path):
    bundle = random_bundle(Path(tmp_path), tasks=("stand", "walk"))
    with domain() as own:
        robot = FakeRobot(own)
        process = own.start(PLANNER, {"model": bundle, "autostart": True, "task": "walk"})
        robot.process, robot.statuses = process, []
        own.node.create_subscription(PlannerStatus, "/planner/status", robot.statuses.append, qos.LATCHED)
        robot.wait_for_commands(5, process=process)
        wait_until(lambda: robot.statuses and robot.statuses[-1].task == "walk", 5.0)
        answer = own.call("/planner/set_task", SetTask, SetTask.Request(task="stand"))
        assert answer.success, answer.message
        assert (answer.previous, answer.accepted) == ("walk", ["stand", "walk"])
        wait_until(lambda: robot.statuses[-1].task == "stand", 5.0)
        refused = own.call("/planner/set_task", SetTask, SetTask.Request(task="fly"))
        assert not refused.success and "'fly'" in refused.message and refused.previous == "stand"
        robot.wait_for_commands(20, process=process)
        assert process.stop() == 0, process.log
        robot.close()


def test_planner_that_is_not_configured_loads_nothing(bundles):
    with domain() as own:
        process = own.start(PLANNER, {"model": bundles[0]})
        answer = own.call("/planner/load_model", LoadModel, LoadModel.Request(path=bundles[1]))
        assert not answer.success and "not configured" in answer.message
        assert process.stop() == 0, process.log


def test_without_the_package_the_node_says_so_once_and_works(bundles, tmp_path):
    (tmp_path / "tdmpc2_msgs").mkdir()
    (tmp_path / "tdmpc2_msgs/__init__.py").write_text("raise ImportError('not built')\n")
    start = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom tdmpc2_ros.planner.node import main\n"
    with domain() as own:
        robot = FakeRobot(own)
        arguments = ["--ros-args", "-p", f"model:={bundles[0]}", "-p", "autostart:=true"]
        process = own.run(["-c", f"{start}sys.exit(main())", *arguments])
        robot.wait_for_commands(50, process=process)
        assert process.log.count("tdmpc2_msgs is not built") == 1
        names = [name for name, _ in own.node.get_topic_names_and_types()]
        assert not {"/planner/status", "/planner/plan", "/planner/trust"} & set(names)
        assert process.stop() == 0, process.log
        robot.close()


def test_end_of_the_process_waits_for_a_load(bundles):
    with domain() as own:
        robot = FakeRobot(own)
        process = own.start(PLANNER, {"model": bundles[0], "autostart": True})
        robot.wait_for_commands(5, process=process)
        client = own.node.create_client(LoadModel, "/planner/load_model")
        assert client.wait_for_service(patience(10.0))
        client.call_async(LoadModel.Request(path=bundles[1]))
        time.sleep(0.05)
        assert process.stop(timeout=40.0) == 0, process.log
        assert "terminate called" not in process.log
        assert robot.is_hold(robot.trajectories[-1][1])
        robot.close()
