"""Fine-tuning reads bags: those of the recorder, beside stores, until it is cancelled."""

from __future__ import annotations

import signal
import time
from importlib.resources import files
from pathlib import Path

import pytest
from bag_support import record, write_bag
from fake_robot import PLANNER
from geometry_msgs.msg import Twist
from processes import domain
from random_agent import ROBOT

from tdmpc2_core.data.episodes import EpisodeStore
from tdmpc2_core.errors import UserError
from tdmpc2_ros import qos
from tdmpc2_ros.finetune.recordings import Cancelled, as_stores

pytest.importorskip("tdmpc2_msgs", reason="tdmpc2_msgs is missing: no C++ compiler, or env.sh not sourced")

from action_msgs.msg import GoalStatus  # noqa: E402
from finetune_client import NODE, Client  # noqa: E402
from tdmpc2_msgs.action import FineTune  # noqa: E402
from tdmpc2_msgs.msg import PlannerStatus  # noqa: E402

pytestmark = pytest.mark.timeout(300)
SIMULATOR, RECORDER = "tdmpc2_ros.simulator.node", "tdmpc2_ros.recorder.node"
BUNDLE = str(Path(str(files("tdmpc2_core"))) / "bundles" / "quadruped")


@pytest.fixture(scope="module")
def bags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bags")
    return [str(write_bag(folder / name, record(40).entries)) for name in ("one", "two")]


def test_bags_become_a_store_for_as_long_as_it_is_needed(bags, tmp_path):
    told = []
    with as_stores(["kept", *bags], lambda: ROBOT, lambda *count: not told.append(count)) as stores:
        assert stores[0] == "kept" and [len(EpisodeStore(path)) > 0 for path in stores[1:]] == [True, True]
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert not any(Path(path).exists() for path in stores[1:]) and all(Path(bag).is_dir() for bag in bags)
    with as_stores(["a", "b"], pytest.fail, pytest.fail) as stores:
        assert stores == ["a", "b"]


def test_a_cancelled_conversion_ends_after_its_bag(bags):
    with pytest.raises(Cancelled), as_stores(bags, lambda: ROBOT, lambda read, _: read == 0):
        pytest.fail("went on")


def test_a_bag_without_episodes_is_one_sentence(tmp_path):
    empty = write_bag(tmp_path / "empty", record(3).without("/joint_states"))
    with (
        pytest.raises(UserError, match="gives no episode"),
        as_stores([str(empty)], lambda: ROBOT, lambda *_: True),
    ):
        pytest.fail("went on")


def test_a_bag_that_was_just_recorded_is_learned_from_in_the_goals_mode(tmp_path):
    bag = tmp_path / "bag"
    with domain() as own:
        started = {"lock_step": True, "publish_clock": True, "sensor_rate": 50.0, "real_time_factor": 0.0}
        simulator = own.start(SIMULATOR, {"robot": ROBOT.name, **started})
        recorder = own.start(RECORDER, {"output": str(bag), "use_sim_time": True})
        recorder.wait_for_log("recording into", 40.0)
        parameters = {"model": BUNDLE, "autostart": True, "use_sim_time": True, "deadline_ms": 100.0}
        planner = own.start(PLANNER, parameters)
        command = own.node.create_publisher(Twist, "cmd_vel", qos.COMMAND)
        message = Twist()
        message.linear.x = 0.4
        statuses = []
        own.node.create_subscription(PlannerStatus, "/planner/status", statuses.append, qos.LATCHED)
        end = time.monotonic() + 90.0
        while not (statuses and statuses[-1].decisions > 550):
            assert time.monotonic() < end, planner.log
            command.publish(message)
            time.sleep(0.1)
        for process in (planner, recorder, simulator):
            assert process.stop(signal.SIGINT) == 0, process.log
        process = own.start(NODE, {"max_shift": 1.0})
        client = Client(own)
        goal = FineTune.Goal(data=[str(bag)], base=BUNDLE, output=str(tmp_path / "new"), updates=3)
        goal.mode = "residual"
        answer = client.result(client.send(goal), process, 120.0)
        result = answer.result
        assert result.updates == 3, result.message
        stages = [feedback.stage for feedback in client.feedback]
        assert {"reading", "converting", "training"} <= set(stages), stages
        if answer.status == GoalStatus.STATUS_SUCCEEDED:
            assert "residual" in result.message
        else:  # three updates need not be better beyond chance
            assert "nothing was written" in result.message
        goal.mode, goal.output = "all", str(tmp_path / "other")
        answer = client.result(client.send(goal), process)
        assert answer.status == GoalStatus.STATUS_ABORTED and "mode" in answer.result.message
        assert process.stop() == 0 and "Traceback" not in process.log
