"""The course of a quickstart run: which velocity is commanded when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import CommandTerm, Embodiment

MIN_SECONDS = 6.0
_COMPONENTS = ("linear_x", "linear_y", "angular_z")
_WALK, _TURN = (0.5, 0.0, 0.0), (0.3, 0.0, 0.6)  # m/s, m/s, rad/s
_SHARES = ((_WALK, "walk", 0.4), (_TURN, "turn", 0.24), (_WALK, "walk", 0.36))


@dataclass(frozen=True)
class Segment:
    """One part of the course: from `start` to `end`, s, command is (x m/s, y m/s, yaw rate rad/s)."""

    name: str
    start: float
    end: float
    command: tuple[float, float, float]


class Course:
    """Stand, walk, turn while walking, walk, stop; scaled to `seconds`.

    Raises:
        UserError: the time is too short, or the robot takes no velocity commands.
    """

    def __init__(self, embodiment: Embodiment, seconds: float) -> None:
        spec = embodiment.twist_command
        terms: dict[str, CommandTerm] = {term.name: term for term in spec.terms} if spec else {}
        if "linear_x" not in terms:
            raise UserError(
                f"{embodiment.name}: takes no velocity commands; quickstart is for walking robots"
            )
        if not MIN_SECONDS <= seconds <= 3600.0:
            raise UserError(f"--seconds is {seconds:g}, must be from {MIN_SECONDS:g} to 3600")
        stand = min(3.0, max(1.0, seconds / 15.0))
        stop = min(4.0, max(3.0, seconds / 10.0))  # a biped rocks for two seconds
        self.seconds = seconds
        self.segments = [Segment("stand", 0.0, stand, (0.0, 0.0, 0.0))]
        for wanted, name, share in _SHARES:
            start = self.segments[-1].end
            x, y, yaw = (
                _inside(terms.get(key), value) for key, value in zip(_COMPONENTS, wanted, strict=True)
            )
            self.segments.append(Segment(name, start, start + share * (seconds - stand - stop), (x, y, yaw)))
        self.segments.append(Segment("stop", seconds - stop, seconds, (0.0, 0.0, 0.0)))

    def at(self, time: float) -> Segment:
        """The segment that `time`, s since the start, lies in."""
        return next((part for part in self.segments if time < part.end), self.segments[-1])

    def commands(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Commands (T, 3) at times (T,), s."""
        return np.array([self.at(time).command for time in times])

    @property
    def distance(self) -> float:
        """Commanded distance, m."""
        return sum((part.end - part.start) * float(np.hypot(*part.command[:2])) for part in self.segments)


def _inside(term: CommandTerm | None, value: float) -> float:
    return 0.0 if term is None else min(max(value, term.lower), term.upper)
