"""What is commanded when: the courses of velocities and of goals, and the commands of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.envs.robot.goals import GoalSampler
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import CommandTerm, Embodiment
from tdmpc2_core.robots.rotations import pose_error, to_matrix

Array = NDArray[np.floating[Any]]
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
    """A quickstart run: stand, walk, turn while walking, walk, stop; scaled to `seconds`.

    Turns are to the left, or `mirrored` to the right.

    Raises:
        UserError: the time is too short, or the robot takes no velocity commands.
    """

    def __init__(self, embodiment: Embodiment, seconds: float, mirrored: bool = False) -> None:
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
            end = start + share * (seconds - stand - stop)
            self.segments.append(Segment(name, start, end, (x, y, -yaw if mirrored else yaw)))
        self.segments.append(Segment("stop", seconds - stop, seconds, (0.0, 0.0, 0.0)))

    def at(self, time: float) -> Segment:
        """The segment that `time`, s since the start, lies in."""
        return next((part for part in self.segments if time < part.end), self.segments[-1])

    def commands(self, times: Array) -> Array:
        """Commands (T, 3) at times (T,), s."""
        return np.array([self.at(time).command for time in times])

    @property
    def distance(self) -> float:
        """Commanded distance, m."""
        return sum((part.end - part.start) * float(np.hypot(*part.command[:2])) for part in self.segments)


def _inside(term: CommandTerm | None, value: float) -> float:
    return 0.0 if term is None else min(max(value, term.lower), term.upper)


@dataclass(frozen=True)
class Goal:
    """From `start` to `end`, s, the tool is sent to `command`: m and quaternion xyzw in the base frame."""

    name: str
    start: float
    end: float
    command: tuple[float, ...]


class ReachCourse:
    """Random goals of the embodiment, each for its `resample_seconds`.

    Raises:
        UserError: the time is too short for one goal, or the robot takes none.
    """

    def __init__(self, embodiment: Embodiment, seconds: float, seed: int) -> None:
        sampler, spec = GoalSampler(embodiment), embodiment.pose_command
        assert spec is not None
        if not spec.resample_seconds <= seconds <= 3600.0:
            raise UserError(f"--seconds is {seconds:g}, must be from {spec.resample_seconds:g} to 3600")
        count, rng = int(seconds / spec.resample_seconds), np.random.default_rng(seed)
        self.seconds, self.spec = seconds, spec
        times = np.linspace(0.0, seconds, count + 1)
        self.segments = [
            Goal(f"goal {k + 1}", float(times[k]), float(times[k + 1]), tuple(map(float, sampler.draw(rng))))
            for k in range(count)
        ]

    def at(self, time: float) -> Goal:
        """The goal at `time`, s since the start."""
        return next((goal for goal in self.segments if time < goal.end), self.segments[-1])

    @staticmethod
    def error(tool: Array, goal: Goal) -> tuple[Array, Array]:
        """Distances (m) and angles (rad) from tool poses (..., 7) to a goal."""
        offset, turn = pose_error(tool[..., :3], to_matrix(tool[..., 3:]), np.array(goal.command))
        return np.linalg.norm(offset, axis=-1), np.linalg.norm(turn, axis=-1)


def evaluation_commands(embodiment: Embodiment, episodes: int) -> list[np.ndarray]:
    """Commands (C,) for ``episodes`` episodes: half a metre per second, stand, turns, backwards, sideways.

    Each is inside the robot's range; they are empty for a robot that takes none.
    """
    terms = embodiment.twist_command.terms if embodiment.twist_command else ()
    wanted: list[dict[str, float]] = [
        {"linear_x": 0.5},
        {},
        {"linear_x": 0.5, "angular_z": 0.5},
        {"angular_z": -0.8},
        {"linear_x": -0.3},
        {"linear_y": 0.25},
        {"linear_x": 0.8},
        {"linear_x": 0.5},
    ]
    commands = []
    for index in range(episodes):
        values = wanted[index % len(wanted)]
        commands.append(np.array([np.clip(values.get(t.name, 0.0), t.lower, t.upper) for t in terms]))
    return commands
