"""A gamepad through Linux's joystick device, such as /dev/input/js0: how far its sticks ask for what.

Left stick: forward and sideways; right stick: turns. They count while a shoulder button (LB or RB, L1 or R1)
is held. The device tells of changes alone, events of 8 bytes (linux/joystick.h).
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from tdmpc2_core.errors import UserError

Stick = tuple[float, float, float]
"""Forward, left, turn to the left: shares of the range, from -1 to 1."""

HELP = "  gamepad     hold LB or RB; left stick: forward, sideways; right stick: turn\n"

_EVENT = struct.Struct("=IhBB")  # ms, value, type, number
_BUTTON, _AXIS, _INITIAL = 0x01, 0x02, 0x80
_FULL = 32767.0
_DEAD = 0.12  # share of the way that sticks do not return from
_AXES_OF, _BUTTONS_OF = 0x80406A32, 0x84006A34  # ioctl JSIOCGAXMAP, JSIOCGBTNMAP: codes in order of numbers
_X, _Y, _Z, _RX = 0, 1, 2, 3  # ABS_*, linux/input-event-codes.h
_SHOULDERS = (0x136, 0x137, 0x124, 0x125)  # BTN_TL, BTN_TR; the same places of pads that count as joysticks
_USUAL_AXES = bytes((_X, _Y, _Z, _RX))  # of xpad and hid-playstation
_USUAL_BUTTONS = (0x130, 0x131, 0x133, 0x134, 0x136, 0x137)


def find_gamepad() -> Path | None:
    """The first joystick device that can be read; None where there is none."""
    devices = sorted(Path("/dev/input").glob("js[0-9]*"), key=lambda path: (len(path.name), path.name))
    return next((path for path in devices if os.access(path, os.R_OK)), None)


class Gamepad:
    """Reads one; a pad that is unplugged counts as let go.

    Attributes:
        path: the device.
        gone: it was unplugged.

    Raises:
        UserError: the device cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.gone = path, False
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as problem:
            raise UserError(
                f"gamepad {path}: cannot be read ({problem.strerror}); give a joystick device such as "
                "/dev/input/js0 that your user may read"
            ) from None
        axes, buttons = self._codes()
        turns = _RX if _RX in axes else _Z
        self._places = [axes.find(code) for code in (_Y, _X, turns)]  # -1: it has none
        self._enabling = {number for number, code in enumerate(buttons) if code in _SHOULDERS}
        self._axes: dict[int, float] = {}
        self._held: set[int] = set()
        self._rest = b""

    def _codes(self) -> tuple[bytes, tuple[int, ...]]:
        """Which axis and which button each number stands for."""
        axes, buttons = bytearray(64), bytearray(1024)
        try:
            fcntl.ioctl(self._file, _AXES_OF, axes)
            fcntl.ioctl(self._file, _BUTTONS_OF, buttons)
        except OSError:  # no joystick device, but something that speaks like one
            return _USUAL_AXES, _USUAL_BUTTONS
        return bytes(axes), struct.unpack("=512H", buttons)

    def read(self) -> Stick | None:
        """Take what came; where the sticks are now, None while no shoulder button is held."""
        while not self.gone:
            try:
                data = os.read(self._file, 64 * _EVENT.size)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._leave()
                break
            self._take(self._rest + data)
        if not self._held & self._enabling:
            return None
        forward, left, turn = (
            -self._axes.get(place, 0.0) if place is not None else 0.0 for place in self._places
        )
        return forward, left, turn

    def close(self) -> None:
        """Give the device up."""
        if not self.gone:
            self._leave()

    def _leave(self) -> None:
        self.gone = True
        self._held.clear()
        os.close(self._file)

    def _take(self, data: bytes) -> None:
        whole = len(data) - len(data) % _EVENT.size
        self._rest = data[whole:]
        for _, value, kind, number in _EVENT.iter_unpack(data[:whole]):
            kind &= ~_INITIAL
            if kind == _AXIS:
                self._axes[number] = _beyond_dead_zone(max(value / _FULL, -1.0))
            elif kind == _BUTTON and value:
                self._held.add(number)
            elif kind == _BUTTON:
                self._held.discard(number)


def _beyond_dead_zone(share: float) -> float:
    """From 0 at the dead zone's edge to 1 at the end of the way, either way."""
    beyond = max(abs(share) - _DEAD, 0.0) / (1.0 - _DEAD)
    return beyond if share > 0.0 else -beyond
