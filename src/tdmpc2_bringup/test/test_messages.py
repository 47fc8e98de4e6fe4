"""The interfaces of tdmpc2_msgs between two processes over DDS: topics, services, action."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("tdmpc2_msgs", reason="tdmpc2_msgs is missing: no C++ compiler, or env.sh not sourced")

from processes import patience  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from tdmpc2_msgs.action import FineTune  # noqa: E402
from tdmpc2_msgs.msg import LatentState, PlanChunk, PlannerStatus, TrustState  # noqa: E402
from tdmpc2_msgs.srv import LoadModel, SetTask  # noqa: E402

SERVER = Path(__file__).with_name("message_server.py")
DOMAIN_ID = 60 + os.getpid() % 40
DEADLINE = 30.0  # s


class Client:
    """A node, and a spin that ends with an answer or at the deadline."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN_ID)
        self.node = rclpy.create_node("message_client", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def until(self, condition, poke=lambda: None) -> None:
        """Spin until the condition holds; poke is called ten times a second."""
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, "no answer over DDS"
            poke()
            self.executor.spin_once(timeout_sec=0.1)

    def call(self, kind, name: str, request):
        """Call a service and return its response."""
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(timeout_sec=DEADLINE)
        return self.result(client.call_async(request))

    def result(self, future):
        """Wait for a future."""
        self.until(future.done)
        return future.result()


@pytest.fixture(scope="module")
def client():
    """A client, and a server in another process."""
    command = [sys.executable, str(SERVER), str(DOMAIN_ID)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline() == "ready\n"
            client = Client()
            yield client
            client.node.destroy_node()
            client.context.shutdown()
            server.terminate()
            assert server.wait(timeout=patience(60.0)) == 0
        finally:
            server.kill()


MESSAGES = [
    PlanChunk(names=["hip", "knee"], dt=0.02, horizon=2, values=[0.1, 0.2, 0.3, 0.4], ended_by="budget"),
    LatentState(fingerprint="ab", group_size=8, latent=[0.25, 0.75], value=3.5),
    TrustState(level=TrustState.LEVEL_WARN, reason="disagreement", trust=0.5),
    PlannerStatus(robot="quadruped", mode=PlannerStatus.MODE_HOLD, reason="no command", decisions=7),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_topics_carry_messages_unchanged(client, message):
    kind = type(message)
    received = []
    publisher = client.node.create_publisher(kind, f"in/{kind.__name__}", 1)
    client.node.create_subscription(kind, f"out/{kind.__name__}", received.append, 1)
    client.until(lambda: bool(received), poke=lambda: publisher.publish(message))
    assert received[0] == message


def test_services_answer(client):
    loaded = client.call(LoadModel, "load_model", LoadModel.Request(path="bundle", check_only=True))
    assert (loaded.success, loaded.message, loaded.seconds) == (True, "loaded bundle", 0.25)
    refused = client.call(SetTask, "set_task", SetTask.Request(task="fly"))
    assert (refused.success, refused.previous, refused.accepted) == (False, "stand", ["stand", "walk"])


def test_action_gives_feedback_and_a_result(client):
    feedback = []
    action = ActionClient(client.node, FineTune, "fine_tune")
    assert action.wait_for_server(timeout_sec=DEADLINE)
    goal = FineTune.Goal(data=["bag"], output="tuned", updates=20)
    handle = client.result(action.send_goal_async(goal, feedback_callback=feedback.append))
    assert handle.accepted
    result = client.result(handle.get_result_async()).result
    assert (result.success, result.updates, result.model) == (True, 20, "tuned")
    client.until(lambda: bool(feedback))
    assert (feedback[0].feedback.stage, feedback[0].feedback.updates_total) == ("training", 20)
