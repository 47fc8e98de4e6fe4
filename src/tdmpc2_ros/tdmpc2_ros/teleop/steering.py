"""What keys and sticks make of a robot's velocity command.

A terminal tells of keys that are pressed, and says nothing of their release: a key that is held comes again
and again, after half a second at first. So a command ends a while after its last key.
"""

from __future__ import annotations

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_ros.teleop.terminal import END

Command = tuple[float, float, float]  # x m/s, y m/s, yaw rate rad/s

COMPONENTS = ("linear_x", "linear_y", "angular_z")
"""The components of cmd_vel that a command holds, in its order."""

KEYS = """\
  u  i  o     forward, and with a turn left or right
  j  k  l     turn left, stop, turn right
  m  ,  .     backward, and with a turn
  J  L        to the left, to the right without a turn
  arrows      as i j l ,
  + -         faster, slower
  q, Ctrl-C   end; every other key stops"""

_MOVES: dict[str, Command] = {
    "i": (1.0, 0.0, 0.0),
    "u": (1.0, 0.0, 1.0),
    "o": (1.0, 0.0, -1.0),
    "j": (0.0, 0.0, 1.0),
    "l": (0.0, 0.0, -1.0),
    ",": (-1.0, 0.0, 0.0),
    "m": (-1.0, 0.0, -1.0),
    ".": (-1.0, 0.0, 1.0),
    "J": (0.0, 1.0, 0.0),
    "L": (0.0, -1.0, 0.0),
}
_ARROWS = {"up": "i", "down": ",", "left": "j", "right": "l"}
_TAP = 0.7  # s that a key counts: longer than keyboards wait before they repeat one
_RELEASE = 0.3  # s that it counts once it repeats
_ZEROS = 0.5  # s for which zero is sent after a command; then silence, which leaves cmd_vel to others
_STEP, _LEAST = 0.1, 0.1  # of the level


class Steering:
    """The command of the keys pressed and sticks moved so far; times are seconds of any one clock.

    Attributes:
        level: share of the robot's trained range that a key asks for.
        ended: a key asked for the end.

    Raises:
        UserError: the robot takes no velocity commands.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        spec = embodiment.twist_command
        if spec is None:
            raise UserError(f"{embodiment.name}: takes no velocity commands; keys drive walking robots")
        terms = {term.name: term for term in spec.terms}
        self._ranges = [
            (terms[name].lower, terms[name].upper) if name in terms else (0.0, 0.0) for name in COMPONENTS
        ]
        self.level, self.ended = 0.6, False
        self._key, self._pressed, self._until = "", float("-inf"), float("-inf")
        self._stick: Command | None = None

    def press(self, key: str, now: float) -> None:
        """A key came at `now`."""
        key = _ARROWS.get(key, key)
        if key in ("q", END):
            self.ended, self._until = True, now
        elif key in ("+", "-"):
            step = _STEP if key == "+" else -_STEP
            self.level = min(max(self.level + step, _LEAST), 1.0)
        elif key in _MOVES:
            held = key == self._key and now - self._pressed < _TAP
            self._key, self._pressed = key, now
            self._until = now + (_RELEASE if held else _TAP)
        else:
            self._key, self._until = "", now

    def lean(self, stick: Command | None, now: float) -> None:
        """A gamepad's sticks ask for these shares of the range, from -1 to 1, until the next call, whatever
        keys say; None lets go."""
        if stick is None and self._stick is not None:
            self._key, self._until = "", now
        self._stick = stick

    def command(self, now: float) -> Command | None:
        """What to send at `now`; None where there is nothing to say."""
        if self._stick is not None:
            return self._scaled(self._stick, 1.0)
        if now < self._until:
            return self._scaled(_MOVES[self._key], self.level)
        return (0.0, 0.0, 0.0) if now < self._until + _ZEROS else None

    def _scaled(self, move: Command, level: float) -> Command:
        x, y, yaw = (
            level * direction * (upper if direction > 0.0 else -lower)
            for direction, (lower, upper) in zip(move, self._ranges, strict=True)
        )
        return x, y, yaw
