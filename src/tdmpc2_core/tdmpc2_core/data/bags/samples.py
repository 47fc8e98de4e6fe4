"""The messages of a bag's sources as they come, and the samples that a control that ticks now would see."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.data.bags.bag import Bag
from tdmpc2_core.data.bags.storage import Message
from tdmpc2_core.errors import SensorError
from tdmpc2_core.robots import Embodiment, SensorState
from tdmpc2_core.robots.messages import BaseState, SourceInput, base_state
from tdmpc2_core.robots.sensors import GravityCheck

Array = NDArray[np.float64]

_OTHER_CLOCK = 3600.0  # s by which stamps of one clock never differ
_DOUBTFUL = 1.0  # s between a joint state's stamp and the clock from which it is looked at
_KEPT = 4.0  # s of messages that wait to be seen
_MOST = 4000  # of them
_BACK = 0.1  # s by which messages may come out of order
_LATEST = 0.1  # s after the newest joint state that a time is counted on


class Clock:
    """From reception to the clock of the joints' stamps."""

    def __init__(self) -> None:
        self.stamp, self._received = math.nan, math.nan
        self.jumped = ""  # why time went another way than reception, until it is asked

    def push(self, received: float, stamp: float) -> bool:
        """A joint state was received (s), stamped (s). False where time jumped; nothing is taken up then."""
        if stamp < self.stamp - _BACK:
            self.jumped = "the clock went back"
        elif stamp > self.stamp + 10.0 and stamp - self.stamp > 10.0 * (received - self._received):
            self.jumped = "the clock jumped ahead"
        elif not stamp <= self.stamp:
            self.stamp, self._received = stamp, received
        return not self.jumped

    def at(self, received: float) -> float:
        """Time of a reception, s; NaN before the first joint state."""
        return self.stamp + min(max(received - self._received, 0.0), _LATEST)

    def received(self, stamp: float) -> float:
        """About when something stamped so was received, s."""
        return self._received + (stamp - self.stamp)


class _Waiting(NamedTuple):
    stamp: float
    message: Message


class SourceStream:
    """Messages of one source, read when they are asked for: of those that no decision sees nothing is read.

    Raises SensorError from `see` never; what is refused is counted in `refused`.
    """

    def __init__(
        self, row: SourceInput, robot: Embodiment, bag: Bag, refused: Counter[str], check: bool = False
    ) -> None:
        self.row, self._robot, self._bag, self._refused = row, robot, bag, refused
        self._waiting: deque[_Waiting] = deque()
        self._whole = False  # one message tells all of the source
        self._gravity = GravityCheck() if check else None
        self.restamped = 0
        self.newest: Any = None  # message of the sample that was stored last

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def push(self, message: Message, received: float, clock: Clock) -> None:
        """One more message; `received` in s."""
        try:
            stamp = self._bag.stamp(message)
        except SensorError as problem:
            self._refused[str(problem)] += 1
            return
        if self.row.source == "joints":
            if not stamp:
                stamp, self.restamped = received, self.restamped + 1
            if abs(stamp - clock.at(received)) > _DOUBTFUL and not self._readable(message):
                return
            if not clock.push(received, stamp):
                return
        elif self.row.source == "command" or not stamp or abs(stamp - clock.at(received)) > _OTHER_CLOCK:
            self.restamped += self.row.source != "command"
            stamp = clock.at(received)
        if math.isnan(stamp):
            return
        waiting = self._waiting
        waiting.append(_Waiting(stamp, message))
        while len(waiting) > _MOST or waiting[0].stamp < stamp - _KEPT:
            waiting.popleft()

    def _readable(self, message: Message) -> bool:
        """Whether a message that would move the clock is one at all."""
        try:
            self.row.decode(self._bag.decode(message), self._robot)
        except (SensorError, AttributeError, TypeError, ValueError) as problem:
            self._refused[str(problem)[:200]] += 1
            return False
        return True

    def see(self, until: float, sensors: SensorState) -> None:
        """Store what came with stamps up to `until` (s), as far as it can be used."""
        batch = []
        while self._waiting and self._waiting[0].stamp <= until:
            batch.append(self._waiting.popleft())
        if self._whole:
            for entry in reversed(batch):
                if self._store(entry, sensors):
                    break
            if getattr(sensors.snapshot(), self.row.source, None) is None or self._whole:
                return
        for entry in batch:
            self._store(entry, sensors)

    def _store(self, entry: _Waiting, sensors: SensorState) -> bool:
        row, source = self.row, self.row.source
        try:
            message = self._bag.decode(entry.message)
            reading = row.decode(message, self._robot)
            acceleration = reading.fields.get("acceleration")
            if self._gravity is not None and acceleration is not None:
                self._gravity.check(entry.stamp, reading.fields["orientation"], acceleration)
            stored = sensors.store(source, entry.stamp, reading.fields, reading.names)
        except (SensorError, AttributeError, TypeError, ValueError) as problem:
            self._refused[str(problem)[:200]] += 1
            return False
        if stored:
            self.newest = message
            sample = getattr(sensors.snapshot(), source)
            self._whole = sample is not None and sample.stamps is None
        return stored


class OdometryStream:
    """The newest Odometry up to an instant."""

    def __init__(self, bag: Bag, refused: Counter[str]) -> None:
        self._bag, self._refused = bag, refused
        self._waiting: deque[_Waiting] = deque()
        self._last: BaseState | None = None

    def push(self, message: Message, received: float, clock: Clock) -> None:
        """One more message."""
        try:
            stamp = self._bag.stamp(message)
        except SensorError as problem:
            self._refused[str(problem)] += 1
            return
        if not stamp or abs(stamp - clock.at(received)) > _OTHER_CLOCK:
            stamp = clock.at(received)
        if not math.isnan(stamp):
            self._waiting.append(_Waiting(stamp, message))
            while len(self._waiting) > _MOST or self._waiting[0].stamp < stamp - _KEPT:
                self._waiting.popleft()

    def at(self, time: float, most: float) -> BaseState | None:
        """The newest up to `time` (s), not older than `most` (s)."""
        entry = None
        while self._waiting and self._waiting[0].stamp <= time + 1e-6:
            entry = self._waiting.popleft()
        if entry is not None:
            try:
                self._last = base_state(self._bag.decode(entry.message))._replace(stamp=entry.stamp)
            except (SensorError, AttributeError, TypeError) as problem:
                self._refused[str(problem)[:200]] += 1
        last = self._last
        if last is None or time - last.stamp > most or not np.isfinite((*last.linear, *last.position)).all():
            return None
        return last

    def clear(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self._last = None
