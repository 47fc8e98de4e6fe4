"""What a supervisor does about a planner that fails. No ROS and no model, so that it stays small.

It takes note of what it hears, each with the time of a steady clock, and says at any time whether it must
intervene, why, and with which targets. An intervention lasts until it is released.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.config import check_fields, setting
from tdmpc2_core.control.events import Action, Event, worst
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.safety import MAX_PERIODS

Array = NDArray[np.float64]

IDLE, COMMANDING, ESTOP, BLOCKED = range(4)
"""What a planner's heartbeat says of it: not active, commanding or holding, stopped by e-stop, kept from
commanding by a second commander."""

_BEGINNING, _BEGINNING_SILENCE = 3.0, 1.0
"""s after its activation in which a planner may be silent for so many s: first searches, and others that find
it, cost it some tenths, while the robot still stands."""
_TIPPED = 0.2  # s beyond max_tilt: a push may tilt a robot that recovers
_STILL = 1.0  # rad/s of the median joint, below which a robot may be released: measured speeds are noisy


@dataclass(frozen=True)
class SupervisionOptions:
    """When to intervene."""

    silence: float = setting(
        0.1,
        unit="s",
        low=0.02,
        high=5.0,
        why="without a planner's heartbeat; its process's end is noticed at once",
    )

    def __post_init__(self) -> None:
        check_fields(self)


class Balancer(Protocol):
    """What keeps a robot upright that no pose holds (`control.balance`)."""

    def targets(self, last: Array) -> Array | None:
        """Targets (H, J), rad, for 1, 2, ... H periods from now, after (J,); None where it cannot."""


class _Way:
    """From the last targets (J,) to others, straight and at a constant rate. A clock that jumps, or a pause,
    licenses no jump on it."""

    def __init__(self, now: float, seconds: float, start: Array, end: Array, period: float) -> None:
        self._seconds, self._period = max(seconds, period), period
        self._start, self._end = start.copy(), end.copy()
        self._gone, self._asked = 0.0, now  # s on the way; when that was

    def go_on(self, now: float) -> None:
        """It is `now`."""
        self._gone += min(max(now - self._asked, 0.0), MAX_PERIODS * self._period)
        self._asked = now

    def targets(self, ahead: float = 0.0) -> Array:
        """Targets (J,) `ahead` s from where it has gone to."""
        share = min((self._gone + ahead) / self._seconds, 1.0)
        return self._start + share * (self._end - self._start)

    def rows(self, count: int = 10) -> Array:
        """Targets (count, J) 1, 2, ... control periods ahead."""
        return np.stack([self.targets(self._period * (k + 1)) for k in range(count)])


class Supervision:
    """The state of one robot's supervision. Times are of a steady clock, s.

    Args:
        balance: keeps the robot upright for as long as it can, in place of the safe posture.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        options: SupervisionOptions | None = None,
        balance: Balancer | None = None,
    ) -> None:
        self._robot, self._options = embodiment, options or SupervisionOptions()
        self._balance, self._balancing = balance, False
        self._posture, self._seconds = embodiment.safe_posture, embodiment.safety.posture_seconds
        self._planner: tuple[float, int] | None = None  # last heartbeat: when, what it said
        self._began = 0.0  # when it was first heard of, or activated
        self._commanded: Array | None = None  # (J,), the target that the controller has
        self._command_at = -math.inf
        self._joints: tuple[Array, Array] | None = None  # position, velocity (J,)
        self._upright_at: float | None = None
        self._tilt = 0.0
        self._events: set[str] = set()  # that hold until a release
        self._acting: Event | None = None
        self._way: _Way | None = None  # of the targets while acting

    # ---- what is heard ----
    def heartbeat(self, now: float, state: int) -> None:
        """A planner is alive and says what it does."""
        if self._planner is None or (self._planner[1] == IDLE and state != IDLE):
            self._began = now
        self._planner = now, state

    def died(self) -> None:
        """The process of the planner is gone."""
        if self._planner is not None and self._planner[1] != IDLE:
            self._events.add("planner_died")
        self._planner = None

    def command(self, now: float, targets: Array) -> None:
        """The controller got targets (J,) from somebody."""
        self._commanded, self._command_at = targets, now

    def joints(self, position: Array, velocity: Array | None) -> None:
        """Measured (J,), rad and rad/s."""
        self._joints = position, np.zeros_like(position) if velocity is None else velocity

    def tilt(self, now: float, angle: float) -> None:
        """Angle of the base's z axis from vertical, rad."""
        self._tilt, limit = angle, self._robot.termination.max_tilt
        if limit is None or angle <= limit or self._upright_at is None:
            self._upright_at = now
        elif now - self._upright_at > _TIPPED:
            self._events.add("fallen")

    def estop(self) -> None:
        """Somebody asks for a stop."""
        self._events.add("supervisor_estop")

    def stood_still(self, seconds: float) -> None:
        """Nothing could be heard for so long, as this process did not run: all ages start anew."""
        if self._planner is not None:
            self._planner = self._planner[0] + seconds, self._planner[1]
        self._command_at += seconds
        if self._upright_at is not None:
            self._upright_at += seconds

    # ---- what is done ----
    def decide(self, now: float) -> Event | None:
        """Why to intervene; None while the planner may command."""
        self._look(now)
        event = worst(self._events)
        if self._way is not None:
            self._way.go_on(now)
        if event is None:
            self._way = None
        elif event != self._acting:
            self._begin(event, now)
        self._acting = event
        return event

    def targets(self, now: float) -> Array | None:
        """What to command, once per control period while `decide` gives an event.

        Returns:
            (H, J), rad, to be reached 1, 2, ... H control periods from now; None where no joint was seen.
        """
        assert self._acting is not None
        if self._balancing and self._balance is not None and self._commanded is not None:
            found = self._balance.targets(self._commanded)
            if found is not None:
                self._commanded = found[0]
                return found
            self._balancing = False
            self._way = self._path(self._acting, now, self._commanded)
        return None if self._way is None else self._way.rows()

    def _begin(self, event: Event, now: float) -> None:
        on_a_way = self._way is not None and not self._balancing
        start = self._way.targets() if on_a_way and self._way is not None else self._commanded
        if event.action == Action.LIE:
            self._balancing = False
        elif self._acting is None:
            self._balancing = self._balance is not None
        self._way = self._path(event, now, start)

    def _path(self, event: Event, now: float, start: Array | None) -> _Way | None:
        """The way from targets to where an event leads; None where no joint was ever seen."""
        measured, period = self._joints[0] if self._joints else None, self._robot.control_period
        start = measured if start is None else start
        if start is None:
            return None
        if event.action == Action.LIE and measured is not None:  # as fast as commands may go
            seconds = float(np.abs(measured - start).max()) / self._robot.safety.max_target_rate
            return _Way(now, seconds, start, measured, period)
        end = start if self._posture is None or event.action == Action.LIE else self._posture
        return _Way(now, self._seconds, start, end, period)

    def _look(self, now: float) -> None:
        if self._planner is None:
            return
        heard, state = self._planner
        beginning = heard - self._began < _BEGINNING
        silence = max(self._options.silence, _BEGINNING_SILENCE if beginning else 0.0)
        if state != IDLE and now - heard > silence:
            self._events.add("planner_silent")
        if state == BLOCKED and now - self._command_at > self._options.silence:
            self._events.add("nobody_commands")

    def release(self, now: float) -> str:
        """End the intervention; else the reason why not."""
        if not self._events:
            return ""
        heard = self._planner
        if heard is None or now - heard[0] > self._options.silence:
            return "no planner is alive"
        if heard[1] == ESTOP:
            return "the planner's emergency stop is set; call planner/clear_estop first"
        if heard[1] == BLOCKED:
            return "another node commands the robot; end one"
        limit = self._robot.termination.max_tilt
        if limit is not None and self._tilt > 0.5 * limit:
            return f"the robot is tilted by {self._tilt:.2f} rad; stand it up"
        if self._joints is not None and float(np.median(np.abs(self._joints[1]))) > _STILL:
            return "the robot moves; wait until it is still"
        self._events.clear()
        return ""
