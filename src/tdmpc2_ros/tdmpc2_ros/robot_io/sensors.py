"""The planner's subscriptions: callbacks that only store the newest sample, or note why it was refused."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node

from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots import Embodiment, SensorState
from tdmpc2_core.robots.messages import Reading
from tdmpc2_core.robots.plausibility import Plausibility
from tdmpc2_ros.messages import SourceTopic, source_topics
from tdmpc2_ros.process import Companion

_LOG_EVERY = 2.0  # s between log lines about refused messages
_REMEMBERED = 1000  # stamps whose arrivals are known: a second or more
_CLOCK_BACK = 0.05  # s by which the clock may go back without a word, as under /clock from two senders
_CLOCK_PATIENCE = 2.0  # s that /clock may pause before it counts as standing


class SensorInput:
    """Subscribes, in a node of its own beside `node`, to what the observation needs; writes it into `state`.

    `fresh` is called when the oldest of the samples that an observation needs became newer. Messages that
    cannot be used are dropped; `refused` holds the latest reason per source until a good message follows.
    """

    def __init__(self, node: Node, embodiment: Embodiment, cmd_vel_stamped: bool = False) -> None:
        self.plausible = Plausibility(embodiment)
        self.state, self.refused = SensorState(embodiment, self.plausible), dict[str, str]()
        self.fresh: Callable[[], None] = lambda: None
        self._node, self._embodiment, self._stamped = node, embodiment, cmd_vel_stamped
        self._heard_at = 0.0  # s, of `now`
        self._logged: dict[str, float] = {}
        self._mismatched: dict[str, str] = {}
        self._arrivals: dict[float, tuple[float, float]] = {}  # by stamp: steady s, age then
        self._oldest = float("-inf")
        self._simulated = bool(node.get_parameter("use_sim_time").value)
        self._clock_seen = (0.0, time.monotonic())
        self._companion = Companion(node, "sensors", clocked=True)
        self._rows = {node.resolve_topic_name(row.topic): row for row in source_topics(embodiment)}
        for name, row in self._rows.items():
            if row.command != "pose":  # goals are checked first, by `GoalInput`
                self._companion.node.create_subscription(
                    row.kind(cmd_vel_stamped), name, partial(self._on_message, row), row.profile
                )
        self._companion.start()

    def now(self) -> float:
        """The clock of the samples' stamps, s. It is read where they come in: the planner's own node hears
        /clock late while it is busy, and stamps would be of its future."""
        return float(self._companion.node.get_clock().now().nanoseconds * 1e-9)

    def latency(self, stamp: float) -> float:
        """Seconds since the sample with this stamp was measured; NaN when it is not known.

        Counted on a steady clock from its arrival. Its age on arrival is added, except under simulated time,
        which advances in whole steps of physics.
        """
        arrived, age = self._arrivals.get(stamp, (math.nan, math.nan))
        return time.monotonic() - arrived + age

    def clear(self) -> None:
        """Forget all samples, as at activation."""
        self.state.clear()
        self.refused.clear()
        self._oldest = float("-inf")

    def destroy(self) -> None:
        """Give the topics up."""
        self._companion.stop()

    # ---- what is wrong ----

    def stale(self) -> list[str]:
        """What keeps an observation from being made: the clock, or sources that are missing or old."""
        now = self.now()
        clock = self._clock_problem(now)
        return [clock] if clock else self.state.stale(now)

    def problems(self) -> dict[str, str]:
        """Why messages are not used, by source."""
        return {**self._mismatched, **self.refused}

    def look_around(self) -> None:
        """Note, and log once, which topics carry another type than the one that is heard. Now and then."""
        for name, row in self._rows.items():
            problem = row.mismatch(self._node, name, self._stamped)
            if problem and problem != self._mismatched.get(row.topic):
                self._node.get_logger().error(problem)
            self._mismatched[row.topic] = problem
        self._mismatched = {topic: problem for topic, problem in self._mismatched.items() if problem}

    def _clock_problem(self, now: float) -> str:
        if not self._simulated:
            return ""
        topic = self._node.resolve_topic_name("/clock")
        if now == 0.0:
            return f"clock: use_sim_time is set, but nothing has come on {topic}"
        value, since = self._clock_seen
        if now != value:
            self._clock_seen = now, time.monotonic()
        elif time.monotonic() - since > _CLOCK_PATIENCE:
            return f"clock: {topic} stands still at {now:.3f} s; use_sim_time is set"
        return ""

    # ---- messages ----

    def _on_message(self, row: SourceTopic, message: Any) -> None:
        now = self.now()
        if self._simulated and now == 0.0:
            return  # before the first /clock no stamp can be judged
        self._watch_clock(now)
        try:
            stamp = row.store(message, self.state, lambda: now, partial(self._check, row, message, now))
        except SensorError as problem:
            self._refuse(row, problem)
            return
        if stamp is None:
            return
        self.refused.pop(row.source, None)
        self._arrived(stamp, now)
        oldest = self.state.oldest_in(self.state.snapshot())
        if oldest != self._oldest:
            self._oldest = oldest
            self.fresh()

    def _watch_clock(self, now: float) -> None:
        """Forget what the clock stamped before it went back: every sample since would count as older."""
        before, self._heard_at = self._heard_at, now
        if now < before - _CLOCK_BACK:
            self._node.get_logger().error(
                f"the clock went back by {before - now:.3g} s: all samples start anew"
            )
            self.clear()

    def _check(self, row: SourceTopic, message: Any, now: float, reading: Reading) -> None:
        row.check_time(reading.stamp, now, self._embodiment)
        if row.frame:
            self._check_frame(row, message.header.frame_id)

    def _arrived(self, stamp: float, now: float) -> None:
        age = 0.0 if self._simulated else max(0.0, now - stamp)
        self._arrivals.setdefault(stamp, (time.monotonic(), age))
        if len(self._arrivals) > _REMEMBERED:
            del self._arrivals[next(iter(self._arrivals))]

    def _refuse(self, row: SourceTopic, problem: SensorError) -> None:
        """Note and log it; each source has its own pause between lines, so that none silences another."""
        self.refused[row.source] = str(problem)
        self.state.refuse(row.source, problem)
        now = time.monotonic()
        if now - self._logged.get(row.source, float("-inf")) >= _LOG_EVERY:
            self._logged[row.source] = now
            self._node.get_logger().error(f"refused {row.topic.rpartition('/')[2]}: {problem}")

    def _check_frame(self, row: SourceTopic, frame: str) -> None:
        """Raise SensorError for axes that are not those of the embodiment; an empty frame says nothing."""
        expected = getattr(self._embodiment, row.frame)
        if frame and expected and frame.strip("/").rpartition("/")[2] != expected:
            raise SensorError(
                f"{row.source}: in frame {frame!r}, must be {expected!r} ({row.frame} of the embodiment); "
                "axes that differ make the robot fall"
            )
