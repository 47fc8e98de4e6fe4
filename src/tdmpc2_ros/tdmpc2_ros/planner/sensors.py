"""The planner's subscriptions: callbacks that only store the newest sample, or note why it was refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node

from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots import Embodiment, SensorState
from tdmpc2_ros.messages import SourceTopic, source_topics
from tdmpc2_ros.process import Companion

_LOG_EVERY = 2.0  # s between log lines about refused messages


class SensorInput:
    """Subscribes, in a node of its own beside `node`, to what the observation needs; writes it into `state`.

    `fresh` is called when the oldest of the samples that an observation needs became newer. Messages that
    cannot be used are dropped; `refused` holds the latest reason per source until a good message follows.
    """

    def __init__(
        self, node: Node, embodiment: Embodiment, now: Callable[[], float], cmd_vel_stamped: bool = False
    ) -> None:
        self.state, self.refused = SensorState(embodiment), dict[str, str]()
        self.fresh: Callable[[], None] = lambda: None
        self._node, self._now = node, now
        self._embodiment = embodiment
        self._frames_checked: set[str] = set()
        self._logged: dict[str, float] = {}
        self._oldest = float("-inf")
        self._companion = Companion(node, "sensors")
        for row in source_topics(embodiment):
            if row.command != "pose":  # goals are checked first, by `GoalInput`
                name = node.resolve_topic_name(row.topic)
                self._companion.node.create_subscription(
                    row.kind(cmd_vel_stamped), name, partial(self._on_message, row), row.profile
                )
        self._companion.start()

    def clear(self) -> None:
        """Forget all samples, as at activation."""
        self.state.clear()
        self.refused.clear()
        self._oldest = float("-inf")

    def destroy(self) -> None:
        """Give the topics up."""
        self._companion.stop()

    def _on_message(self, row: SourceTopic, message: Any) -> None:
        try:
            row.store(message, self.state, self._now)
        except SensorError as problem:
            self._refuse(row, problem)
            return
        self.refused.pop(row.source, None)
        if row.frame and row.source not in self._frames_checked:
            self._check_frame(row, message.header.frame_id)
        oldest = self.state.oldest_in(self.state.snapshot())
        if oldest != self._oldest:
            self._oldest = oldest
            self.fresh()

    def _refuse(self, row: SourceTopic, problem: SensorError) -> None:
        """Note and log it; each source has its own pause between lines, so that none silences another."""
        self.refused[row.source] = str(problem)
        now = time.monotonic()
        if now - self._logged.get(row.source, float("-inf")) >= _LOG_EVERY:
            self._logged[row.source] = now
            self._node.get_logger().error(f"refused {row.topic.rpartition('/')[2]}: {problem}")

    def _check_frame(self, row: SourceTopic, frame: str) -> None:
        self._frames_checked.add(row.source)
        expected = getattr(self._embodiment, row.frame)
        if frame and expected and frame.strip("/").rpartition("/")[2] != expected:
            self._node.get_logger().warning(
                f"{row.source}: messages are in frame {frame!r}, the embodiment expects {expected!r}; "
                "axes that differ make the robot fall"
            )
