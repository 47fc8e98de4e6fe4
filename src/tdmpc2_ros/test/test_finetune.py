"""The node finetune as a process: goal, feedback, result, hand-over to the planner, cancel, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from fake_robot import PLANNER, FakeRobot
from processes import domain, wait_until
from random_agent import ROBOT, random_bundle

from tdmpc2_core.agent import Agent
from tdmpc2_core.data.episodes import Episode, EpisodeStore
from tdmpc2_ros import qos

pytest.importorskip("tdmpc2_msgs", reason="tdmpc2_msgs is missing: no C++ compiler, or env.sh not sourced")

from action_msgs.msg import GoalStatus  # noqa: E402
from finetune_client import NODE, Client  # noqa: E402
from rcl_interfaces.srv import GetParameters  # noqa: E402
from tdmpc2_msgs.action import FineTune  # noqa: E402
from tdmpc2_msgs.msg import PlannerStatus  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A store of twelve episodes of numbers that depend on each other."""
    folder = tmp_path_factory.mktemp("store")
    random, store = np.random.default_rng(0), EpisodeStore(folder)
    for _ in range(12):
        action = random.uniform(-1, 1, (50, ROBOT.action_dim)).astype(np.float32)
        observation = np.zeros((51, ROBOT.observation_dim), np.float32)
        observation[1:, : ROBOT.action_dim] = action
        zeros, flags, value = np.zeros_like(action), np.zeros(50, bool), np.full(50, np.nan, np.float32)
        store.append(
            Episode(observation, action, action[:, 0].copy(), flags, zeros, zeros, flags, value, True),
            source="test",
        )
    return str(folder)


def test_goal_is_trained_and_handed_to_the_planner(data, tmp_path):
    bundle = random_bundle(tmp_path)
    with domain() as own:
        robot, statuses = FakeRobot(own), []
        own.node.create_subscription(PlannerStatus, "/planner/status", statuses.append, qos.LATCHED)
        planner = own.start(PLANNER, {"model": bundle, "autostart": True, "method": "policy"})
        robot.wait_for_commands(5, process=planner)
        process = own.start(NODE, {"max_shift": 2.0})  # actions of random weights move far
        client = Client(own)
        wait_until(lambda: bool(statuses), 10.0)
        goal = FineTune.Goal(data=[data], output=str(tmp_path / "new"), updates=8, load_when_done=True)
        handle = client.send(goal)
        assert handle.accepted
        answer = client.result(handle, process)
        result = answer.result
        assert answer.status == GoalStatus.STATUS_SUCCEEDED, result.message
        assert result.success and result.updates == 8 and result.loss_after < result.loss_before
        assert "is in use" in result.message, result.message
        assert {"reading", "training", "loading"} <= {f.stage for f in client.feedback}
        wait_until(lambda: statuses[-1].model == str(tmp_path / "new"), 10.0)
        robot.wait_for_commands(10, process=planner)
        assert Agent.load(tmp_path / "new", embodiment=ROBOT).provenance["fine_tuned"]["updates"] == 8
        assert process.stop() == 0, process.log
        robot.close()


def test_parameters_are_readable():
    with domain() as own:
        process = own.start(NODE, {"threads": 2})
        request = GetParameters.Request(names=["planner", "threads"])
        planner, threads = own.call("/finetune/get_parameters", GetParameters, request, timeout=60.0).values
        assert (planner.string_value, threads.integer_value) == ("planner", 2)
        assert process.stop() == 0, process.log


def test_cancel_second_goal_and_refusals(data, tmp_path):
    bundle = random_bundle(tmp_path)
    with domain() as own:
        process = own.start(NODE)
        client = Client(own)
        nothing = client.result(client.send(FineTune.Goal(data=[data], output="x", updates=1)), process)
        assert nothing.status == GoalStatus.STATUS_ABORTED and "tells of no model" in nothing.result.message
        for changes, said in (
            ({"data": [str(tmp_path / "none")]}, "holds no episodes"),
            ({"output": bundle}, "exists already"),
            ({"base": str(tmp_path / "none")}, "no such bundle"),
            ({"updates": 0}, "updates"),
        ):
            goal = {"data": [data], "base": bundle, "output": str(tmp_path / "a"), "updates": 1} | changes
            answer = client.result(client.send(FineTune.Goal(**goal)), process)
            assert answer.status == GoalStatus.STATUS_ABORTED and said in answer.result.message
        goal = FineTune.Goal(data=[data], base=bundle, output=str(tmp_path / "b"), updates=10**6)
        first = client.send(goal)
        wait_until(lambda: any(f.updates > 0 for f in client.feedback), 60.0, lambda: process.log)
        assert not client.send(goal).accepted, "two goals at once"
        first.cancel_goal_async()
        answer = client.result(first, process)
        assert answer.status == GoalStatus.STATUS_CANCELED and 0 < answer.result.updates < 10**6
        assert "Traceback" not in process.log
        assert process.stop() == 0, process.log
