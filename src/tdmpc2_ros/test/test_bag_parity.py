"""A bag that the real nodes recorded gives the observations and actions that the planner had, bit for bit."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest
from fake_robot import PLANNER
from geometry_msgs.msg import Twist
from processes import domain
from random_agent import ROBOT, random_bundle
from std_msgs.msg import Float64MultiArray

from tdmpc2_core.data.bags.convert import convert_bags
from tdmpc2_core.data.episodes import EpisodeStore
from tdmpc2_core.robots.trace import DecisionTrace
from tdmpc2_ros import qos

pytestmark = pytest.mark.timeout(300)
SIMULATOR, RECORDER = "tdmpc2_ros.simulator.node", "tdmpc2_ros.recorder.node"


def drive(own, seconds: float) -> None:
    """Walk, then stand, so that the gait's clock starts and stops."""
    publisher = own.node.create_publisher(Twist, "cmd_vel", qos.COMMAND)
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < seconds:
        message = Twist()
        message.linear.x = 0.4 if passed < 0.7 * seconds else 0.0
        publisher.publish(message)
        time.sleep(0.05)


def test_a_recorded_run_gives_the_planners_own_observations_and_actions(tmp_path):
    bag, seen = tmp_path / "bag", []
    with domain() as own:
        own.node.create_subscription(Float64MultiArray, "/planner/decision", seen.append, 100)
        simulator = own.start(SIMULATOR, {"robot": ROBOT.name, "sensor_rate": 250.0})
        recorder = own.start(RECORDER, {"output": str(bag)})
        recorder.wait_for_log("recording into", 40.0)
        model = random_bundle(tmp_path)
        planner = own.start(PLANNER, {"model": model, "method": "policy", "autostart": True})
        planner.wait_for_log("planning", 60.0)
        drive(own, 4.0)
        for process in (planner, recorder, simulator):
            assert process.stop(signal.SIGINT) == 0, process.log
    (report,) = convert_bags([bag], ROBOT, tmp_path / "out")
    equal, total = report.as_live
    assert total > 30, planner.log
    assert equal >= total - 6, str(report)  # a recorder that comes late does not know the history
    traces = [DecisionTrace.of_rows([(dim.label, dim.size) for dim in m.layout.dim], m.data) for m in seen]
    corrected = sum(trace.told[2] != trace.command[3] for trace in traces if len(trace.command))
    assert corrected > 10, "the robot turns under random weights, and the heading hold undoes it"
    actions = {trace.now: trace.action for trace in traces if len(trace.action)}
    compared = 0
    for episode, _ in EpisodeStore(tmp_path / "out"):
        for now, action in zip(episode.raw["stamp"][:-1], episode.action, strict=True):
            if now in actions:
                compared += 1
                assert np.array_equal(action, actions[now].astype(np.float32))
    assert compared > 0.5 * report.decisions > 0  # the robot may tip, and is then held
