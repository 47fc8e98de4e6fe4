"""The quickstart as a user runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from processes import domain, run_quickstart, start_quickstart, wait_until
from random_agent import random_agent
from rosbags.highlevel import AnyReader

from tdmpc2_core.files import shipped_bundle
from tdmpc2_core.robots.rotations import tilt
from tdmpc2_ros import qos


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "bundle"
    random_agent(planner="tiny").save(folder)
    return folder


def _children(folder: Path) -> list[str]:
    """Command lines of living processes that mention `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text and "--ros-args" in text:
            found.append(text)
    return found


def _may_raise_priority() -> bool:
    """Whether this system lets an ordinary process become a realtime one."""
    code = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(5))"
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == 0


# ---- whole runs ----
def test_untrained_model_fails_and_everything_is_reported(untrained, tmp_path):
    out, bag = tmp_path / "out", tmp_path / "bag"
    code, output, errors = run_quickstart(
        "quadruped", "--seconds", 6, "--model", untrained, "--out", out, "--record", bag
    )
    assert code == 1, errors
    assert "Traceback" not in errors
    results = json.loads((out / "results.json").read_text())
    assert results["seconds"] == 6.0 and not results["score"]["followed"]
    assert results["planner"]["commands"] > 200
    assert results["simulation"]["lock_step"] and results["simulation"]["real_time_factor"] <= 1.05
    assert {"holds", "hold_causes", "missed", "stale_ticks", "stale"} <= results["planner"].keys()
    assert re.search(r"holds +\d", output) and re.search(r"stale sensors +\d+ decisions", output)
    assert re.search(r"simulated time +\d\.\d\d of real time", output)
    assert results["planner_memory_mb"] < 1000.0
    assert {"cores", "clock_mhz", "python", "versions"} <= results["machine"].keys()
    nodes = ("mujoco_sim", "planner", "recorder", "supervisor")
    assert results["realtime_priority"] == dict.fromkeys(nodes, _may_raise_priority())
    assert "failed" in output and "planning latency" in output
    assert ("no video" in output) != ((out / "video.mp4").exists() and (out / "picture.png").exists())
    with AnyReader([bag]) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
    assert counts["/joint_states"] > 250 and counts["/imu_sensor_broadcaster/imu"] > 250
    assert counts["/simulator/floating_base_state"] > 250
    assert counts["/joint_trajectory_controller/joint_trajectory"] > 200
    assert counts["/cmd_vel"] > 100 and counts["/diagnostics"] > 5
    assert _children(out) == []


@pytest.mark.parametrize(("robot", "seconds"), [("quadruped", 12), ("humanoid", 18)])
def test_shipped_model_walks(tmp_path, robot, seconds):
    code, output, errors = run_quickstart(
        robot, "--seconds", seconds, "--no-video", "--out", tmp_path / "out"
    )
    assert code == 0, output + errors
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["score"]["falls"] == 0 and results["score"]["covered"] >= 0.8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_children_end_with_the_quickstart(untrained, tmp_path, number):
    process = start_quickstart(
        "quadruped", "--seconds", 60, "--model", untrained, "--no-video", "--out", tmp_path
    )
    try:
        end = time.monotonic() + 30.0
        while len(_children(tmp_path)) + len(_children(untrained)) < 1 and time.monotonic() < end:
            time.sleep(0.2)
        time.sleep(2.0)
        assert _children(untrained), "the planner does not run"
        process.send_signal(number)
        code = process.wait(30.0)
        assert code == (-number if number == signal.SIGKILL else 130)
        end = time.monotonic() + 10.0
        while _children(untrained) and time.monotonic() < end:
            time.sleep(0.2)
        assert _children(untrained) == []
    finally:
        process.kill()


def test_dead_child_is_reported_with_its_log(untrained, tmp_path):
    process = start_quickstart(
        "quadruped", "--seconds", 60, "--model", untrained, "--no-video", "--out", tmp_path
    )
    try:
        end = time.monotonic() + 40.0
        log = tmp_path / "planner.log"
        while not (log.is_file() and "configured" in log.read_text()) and time.monotonic() < end:
            time.sleep(0.2)
        planner = [
            int(entry.parent.name)
            for entry in Path("/proc").glob("[0-9]*/cmdline")
            if b"tdmpc2_ros.planner.node" in entry.read_bytes()
            and str(untrained).encode() in entry.read_bytes()
        ]
        os.kill(planner[0], signal.SIGKILL)
        _, errors = process.communicate(timeout=30.0)
        assert process.returncode == 1
        assert "planner ended by signal 9" in errors and "configured" in errors
        assert _children(untrained) == []
    finally:
        process.kill()


def test_killed_planner_leaves_the_walking_robot_standing_and_a_new_one_walks_on():
    parameters = {"model": str(shipped_bundle("quadruped")), "autostart": True, "method": "policy"}
    with domain() as own:
        states, texts = [], [""]
        walk = Twist()
        walk.linear.x = 0.5
        own.node.create_subscription(Odometry, "simulator/floating_base_state", states.append, 10)
        own.node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda m: texts.extend(_simulation(m)), 10
        )
        command = own.node.create_publisher(Twist, "cmd_vel", qos.COMMAND)
        own.node.create_timer(0.05, lambda: command.publish(walk))
        own.start("tdmpc2_ros.simulator.node")
        planner = own.start("tdmpc2_ros.planner.node", parameters)
        wait_until(lambda: _mean_speed(states) > 0.3, 40.0, lambda: "does not walk\n" + planner.log)
        time.sleep(2.0)  # the first leap is over
        planner.kill()
        wait_until(lambda: "no commands" in texts[-1], 5.0)
        wait_until(lambda: _mean_speed(states) < 0.03, 5.0, "the robot does not come to rest")
        start = states[-1].pose.pose.position
        time.sleep(1.0)
        end = states[-1].pose.pose.position
        assert end.z > 0.22 and _tilt(states[-1]) < 20.0, "the robot does not stand"
        # it may still rock by a few centimetres; with its last command it would go on at 0.5 m/s
        assert np.hypot(end.x - start.x, end.y - start.y) < 0.1, "the robot drifts"
        second = own.start("tdmpc2_ros.planner.node", parameters)
        wait_until(lambda: _mean_speed(states) > 0.3, 40.0, lambda: "does not walk on\n" + second.log)
        assert states[-1].pose.pose.position.z > 0.22


def _mean_speed(states: list[Odometry]) -> float:
    return float(np.mean([_speed(message) for message in states[-50:]])) if len(states) >= 50 else 0.0


def _tilt(message: Odometry) -> float:
    """Angle of the base's z axis from the vertical, degrees."""
    rotation = message.pose.pose.orientation
    return float(np.degrees(tilt([rotation.x, rotation.y, rotation.z, rotation.w])))


def _speed(message: Odometry) -> float:
    return float(np.hypot(message.twist.twist.linear.x, message.twist.twist.linear.y))


def _simulation(message: DiagnosticArray) -> list[str]:
    return [status.message for status in message.status if status.name.startswith("mujoco_sim")]


# ---- bad input ----
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["quadrupd"], "did you mean 'quadruped'"),
        (["quadruped", "--seconds", "soon"], "--seconds"),
        (["quadruped", "--seconds", "1"], "must be from 6"),
        (["quadruped", "--seed", "-1"], "--seed is -1"),
        (["quadruped", "--planner", "magic"], "magic"),
        (["--sedonds", "9", "quadruped"], "did you mean '--seconds'"),
        (["--planner", "mpppi", "quadruped"], "did you mean 'mppi'"),
        (["quadruped", "--model", "/nowhere"], "/nowhere"),
        (["quadruped", "--deadline-ms", "0"], "--deadline-ms"),
    ],
)
def test_bad_options_end_with_one_sentence(arguments, text, tmp_path):
    code, output, errors = run_quickstart(*arguments, "--out", tmp_path, timeout=30.0)
    assert code == 2
    assert text in errors and len(errors.strip().splitlines()) == 1
    assert "Traceback" not in errors and output == ""


def test_unwritable_folder(untrained):
    code, _, errors = run_quickstart(
        "quadruped", "--model", untrained, "--out", "/proc/results", timeout=30.0
    )
    assert code == 2 and "cannot be written" in errors and len(errors.strip().splitlines()) == 1


def test_existing_bag_is_left_alone(untrained, tmp_path):
    code, _, errors = run_quickstart(
        "quadruped", "--model", untrained, "--out", tmp_path, "--record", tmp_path, timeout=30
    )
    assert code == 2 and "exists already" in errors


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_damaged_model(untrained, tmp_path, damage):
    model = tmp_path / "model"
    shutil.copytree(untrained, model)
    weights = model / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    if damage == "truncate":
        data = data[: len(data) // 2]
    else:
        data[-1000] ^= 0xFF
    weights.write_bytes(data)
    out = tmp_path / "out"
    out.mkdir()
    former = {name: out / name for name in ("results.json", "video.mp4")}
    for path in former.values():
        path.write_text("of an earlier run")
    code, _, errors = run_quickstart("quadruped", "--model", model, "--out", out, "--no-video")
    assert code == 2
    assert {path.read_text() for path in former.values()} == {"of an earlier run"}
    assert "weights.safetensors" in errors and len(errors.strip().splitlines()) == 1
