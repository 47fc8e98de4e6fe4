"""Sends goals to the node finetune. Needs tdmpc2_msgs."""

from __future__ import annotations

from processes import wait_until
from rclpy.action import ActionClient
from tdmpc2_msgs.action import FineTune

NODE = "tdmpc2_ros.finetune.node"


class Client:
    """Sends goals and waits for what comes of them."""

    def __init__(self, own) -> None:
        self.feedback: list = []
        self._executor = own.executor
        self._client = ActionClient(own.node, FineTune, "/finetune/fine_tune")
        assert self._client.wait_for_server(60.0)

    def send(self, goal):
        def receive(message):
            self.feedback.append(message.feedback)

        return self._answer(
            lambda: self._client.send_goal_async(goal, receive), 20.0, "no answer to the goal"
        )

    def result(self, handle, process, timeout=60.0):
        return self._answer(handle.get_result_async, timeout, lambda: f"no result\n{process.log}")

    def _answer(self, request, timeout, message):
        """Answer to a request made on the thread that spins.

        ActionClient notes a request after sending it; a spinning thread that is faster drops the answer.
        """
        asked = self._executor.create_task(request)
        wait_until(lambda: asked.done() and asked.result().done(), timeout, message)
        return asked.result().result()
