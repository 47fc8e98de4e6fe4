"""`--drive`: a quickstart run whose commands come from the keys of its terminal, or from a gamepad."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.scoring.course import Segment
from tdmpc2_core.scoring.walking import Motion, path_length
from tdmpc2_ros.teleop.gamepad import HELP, Gamepad, find_gamepad
from tdmpc2_ros.teleop.steering import KEYS, Command, Steering
from tdmpc2_ros.teleop.terminal import Terminal

_HELP = f"{KEYS}\n  r           put the robot back to its start\n"
_LONGEST = 3600.0  # s: what the run collects stays in memory
_ZERO = (0.0, 0.0, 0.0)


class Drive:
    """In place of a course: what keys and gamepad ask for, while it is entered; until then the robot stands.

    Without a terminal there are no keys; without these and a gamepad cmd_vel is left to others for `seconds`.

    Args:
        gamepad: joystick device; None takes the first that there is, if there is one.
        seconds: end after this time; None drives until a key ends it, an hour at most.

    Attributes:
        segments: the commands given so far.
        reset: a key asked for the robot's start; whoever heeds it clears it.

    Raises:
        UserError: the robot takes no velocity commands, `seconds` is out of range, nothing would end it, or
            the gamepad cannot be read.
    """

    def __init__(self, embodiment: Embodiment, seconds: float | None, gamepad: Path | None = None) -> None:
        if seconds is None and not sys.stdin.isatty():
            raise UserError("--drive takes a terminal's keys; without one give --seconds and send cmd_vel")
        if seconds is not None and not 0.0 < seconds <= _LONGEST:
            raise UserError(f"--seconds is {seconds:g}, must be above 0, at most {_LONGEST:g}")
        self.seconds = _LONGEST if seconds is None else seconds
        self.segments = [Segment("stand", 0.0, 0.0, _ZERO)]
        self.reset = False
        self._steering = Steering(embodiment)
        self._terminal: Terminal | None = None
        device = gamepad or find_gamepad()
        self._gamepad = Gamepad(device) if device else None

    def __enter__(self) -> Drive:
        if self._gamepad is not None:
            print(f"{HELP}  {self._gamepad.path}", flush=True)
        if sys.stdin.isatty():
            self._terminal = Terminal().__enter__()
            print(_HELP, flush=True)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._terminal is not None:
            self._terminal.__exit__(kind, error, trace)
        if self._gamepad is not None:
            self._gamepad.close()

    @property
    def ended(self) -> bool:
        """A key asked for the end."""
        return self._steering.ended

    def at(self, _time: float) -> Segment:
        """What is asked for now."""
        return self.segments[-1]

    def steer(self, elapsed: float) -> Command | None:
        """Take what keys and gamepad said; the command to send at `elapsed`, s, None where none is."""
        now = time.monotonic()
        for key in self._terminal.read() if self._terminal else ():
            self.reset |= key == "r"
            self._steering.press(key, now)
        if self._gamepad is not None:
            self._steering.lean(self._gamepad.read(), now)
        command = self._steering.command(now)
        self._note(elapsed, command or _ZERO)
        return command

    def _note(self, elapsed: float, command: Command) -> None:
        last = self.segments[-1]
        self.segments[-1] = Segment(last.name, last.start, elapsed, last.command)
        if command != last.command:
            self.segments.append(Segment("walk" if any(command) else "stand", elapsed, elapsed, command))


@dataclass(frozen=True)
class DriveScore:
    """What came of a drive."""

    seconds: float
    distance: float  # m, way of the base
    falls: int

    @property
    def followed(self) -> bool:
        """Stayed up."""
        return not self.falls

    def problems(self) -> list[str]:
        """What keeps the run from passing."""
        return ["the robot fell"] if self.falls else []

    def rows(self) -> list[tuple[str, str]]:
        """Lines of the table."""
        return [
            ("driven", f"{self.distance:.2f} m in {self.seconds:.1f} s"),
            ("falls", str(self.falls)),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for results.json."""
        return {**asdict(self), "followed": self.followed}


def score_drive(motion: Motion, drive: Drive, falls: int) -> DriveScore:
    """What came of a drive that has ended; samples outside it are left out."""
    inside = (motion.time >= 0.0) & (motion.time <= drive.seconds)
    distance = path_length(motion.time[inside], motion.linear[inside, :2]) if inside.any() else 0.0
    return DriveScore(drive.seconds, distance, falls)
