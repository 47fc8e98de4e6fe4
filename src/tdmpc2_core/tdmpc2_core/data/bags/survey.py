"""A first look at a bag: what is in it, how often, with which holes. Messages are counted, hardly read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tdmpc2_core.data.bags.bag import Bag
from tdmpc2_core.data.bags.storage import Channel, Message
from tdmpc2_core.data.bags.topics import Assignment, assign
from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots import TERMS, Embodiment, Reward, shipped_names
from tdmpc2_core.robots.messages import EPOCH

_LEARN = 200  # intervals from which a topic's period is taken
_GAP = 1.0  # s, and ten periods: silence that counts as a gap, not as lost messages
_KEPT = 20  # gaps that are listed


@dataclass
class TopicSurvey:
    """One topic of a bag. Times are those of reception, s."""

    channel: Channel
    count: int = 0
    first: float = math.nan
    last: float = math.nan
    period: float = math.nan  # s, median of the first intervals
    lost: int = 0  # messages that a steady sender would have sent beside these
    gaps: list[tuple[float, float]] = field(default_factory=list)  # begin and end, s
    back: int = 0  # times that the header's stamp went back
    stamps: tuple[float, float] | None = None  # first and last of the header, s
    names: tuple[str, ...] = ()  # of joints
    velocity: bool = False  # joints' velocities come with them
    _intervals: list[float] = field(default_factory=list)

    def add(self, time: float, stamp: float | None) -> None:
        """One more message."""
        if self.count:
            self._interval(self.last, time)
        else:
            self.first = time
        self.count, self.last = self.count + 1, time
        if stamp is not None:
            before = stamp if self.stamps is None else self.stamps[1]
            self.back += stamp < before
            self.stamps = (stamp if self.stamps is None else self.stamps[0], stamp)

    def _interval(self, before: float, time: float) -> None:
        if len(self._intervals) < _LEARN:
            self._intervals.append(time - before)
            self.period = float(np.median(self._intervals)) if len(self._intervals) % 20 == 2 else self.period
        period = self.period
        if time - before > max(_GAP, 10.0 * (period if math.isfinite(period) else 0.0)):
            self.gaps.append((before, time)) if len(self.gaps) < _KEPT else None
        elif period > 0.0 and time - before > 1.5 * period and self._steady():
            self.lost += round((time - before) / period) - 1

    def _steady(self) -> bool:
        """Whether intervals are alike, so that a long one means a loss."""
        if len(self._intervals) < 20:
            return False
        low, high = np.percentile(self._intervals[:100], (25, 75))
        return bool(high - low < 0.5 * self.period)

    @property
    def rate(self) -> float:
        """Messages per second while they came; NaN for fewer than two."""
        silent = sum(end - begin for begin, end in self.gaps)
        seconds = self.last - self.first - silent
        return (self.count - 1) / seconds if self.count > 1 and seconds > 0.0 else math.nan

    @property
    def clock(self) -> str:
        """Whose time the stamps are."""
        if self.stamps is None:
            return "none"
        return "zero" if self.stamps[1] == 0.0 else "system" if self.stamps[1] > EPOCH else "simulated"

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "topic": self.channel.topic,
            "type": self.channel.kind,
            "messages": self.count,
            "rate_hz": self.rate,
            "lost": self.lost,
            "gaps": [{"begin": begin, "seconds": end - begin} for begin, end in self.gaps],
            "stamps": self.clock,
            "stamps_back": self.back,
        }


class Survey:
    """A whole bag. Raises UserError for a path that is none."""

    def __init__(self, bag: Bag) -> None:
        self.bag, self.topics = bag, dict[str, TopicSurvey]()
        for message in bag.messages(self._declare):
            self._add(message)

    def _declare(self, channel: Channel) -> bool:
        self.topics.setdefault(channel.topic, TopicSurvey(channel))
        return True

    def _add(self, message: Message) -> None:
        topic = self.topics[message.channel.topic]
        try:
            stamp = self.bag.stamp(message)
        except SensorError:
            stamp = None
        topic.add(message.time * 1e-9, stamp)
        if message.channel.kind == "sensor_msgs/msg/JointState" and topic.count <= _LEARN:
            try:
                decoded = self.bag.decode(message)
            except SensorError:
                return
            topic.names = tuple(dict.fromkeys((*topic.names, *decoded.name)))
            topic.velocity |= len(decoded.velocity) == len(decoded.name)

    @property
    def count(self) -> int:
        """Messages in all."""
        return sum(topic.count for topic in self.topics.values())

    @property
    def span(self) -> tuple[float, float]:
        """First and last reception, s; NaN for an empty bag."""
        heard = [topic for topic in self.topics.values() if topic.count]
        if not heard:
            return math.nan, math.nan
        return min(t.first for t in heard), max(t.last for t in heard)

    def assignment(
        self, robot: Embodiment, namespace: str = "", given: Mapping[str, str] | None = None
    ) -> Assignment:
        """Topics by role, of those that have messages."""
        heard = [topic.channel for topic in self.topics.values() if topic.count]
        return assign(heard, robot, namespace, given)

    def guess(self) -> Embodiment | None:
        """The shipped robot all of whose joints are named in the bag."""
        names = {name for topic in self.topics.values() for name in topic.names}
        fitting = [
            robot for robot in map(Embodiment.load, shipped_names()) if names >= set(robot.joint_names)
        ]
        return fitting[0] if fitting else None

    def served(self, robot: Embodiment, found: Assignment) -> dict[str, str]:
        """For each observation term of the robot by name why the bag does not serve it; empty: it does."""
        problems = {source: self._problem(robot, source, found) for source in robot.sources}
        result = {}
        for term in robot.observation.terms:
            problem = problems.get(term.source, "")
            if not problem and "velocity" in TERMS[term.name].reads:
                joints = self.topics[found.topics["joints"]]
                problem = "" if joints.velocity else f"{joints.channel.topic} has no velocities"
            result[term.name] = problem
        return result

    def _problem(self, robot: Embodiment, source: str, found: Assignment) -> str:
        topic = found.topics.get(source)
        if topic is None:
            wrong = [sentence for sentence in found.refused if source in sentence]
            return "" if source == "command" else wrong[0] if wrong else f"no topic of {source}"
        if source == "joints":
            names = self.topics[topic].names
            missing = [name for name in robot.joint_names if name not in names]
            if missing:
                return f"{topic} has no {', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}"
        return ""

    def rewarded(self, robot: Embodiment, found: Assignment) -> dict[str, str]:
        """For each reward term by name what it lacks in the bag; empty: it is computed."""
        told = {"self", "command"} | ({"joints", "imu", "odometry"} & set(found.topics))
        legs = robot.clock is not None and bool(robot.clock.feet) and {"joints", "imu"} <= told
        told |= {"odometry", "feet"} if legs else set()
        missing = {
            name: [source for source in sources if source not in told]
            for name, sources in Reward(robot).sources.items()
        }
        return {
            name: f"no source {', '.join(lacking)}" if lacking else "" for name, lacking in missing.items()
        }
