"""Keys of a terminal, one by one, as they are pressed."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
from types import TracebackType

from tdmpc2_core.errors import UserError

END = "end"
"""The key that stands for Ctrl-C, and for a terminal that is gone."""
_ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}
_KEYS = re.compile(r"\x1b[\[O]([A-D])|\x1b\[[0-9;]*[~A-Z]|.", re.DOTALL)


def keys_of(text: str) -> list[str]:
    """The keys behind what a terminal sent: characters, `up`, `down`, `left`, `right`, and `END`."""
    found = []
    for match in _KEYS.finditer(text):
        arrow, character = match.group(1), match.group()
        found.append(_ARROWS[arrow] if arrow else END if character in ("\x03", "\x04") else character)
    return found


class Terminal:
    """Context manager: standard input without echo or lines, Ctrl-C as a key; as it was on leaving.

    Raises:
        UserError: on entering, where standard input is no terminal.
    """

    def __enter__(self) -> Terminal:
        if not sys.stdin.isatty():
            raise UserError("standard input is no terminal, so there are no keys to read; run it in one")
        self._file = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._file)
        mode = termios.tcgetattr(self._file)
        mode[3] &= ~(termios.ECHO | termios.ICANON)
        characters = mode[6]
        characters[termios.VINTR] = b"\0"  # no signal: whoever reads ends in its own order
        characters[termios.VMIN], characters[termios.VTIME] = 1, 0
        termios.tcsetattr(self._file, termios.TCSADRAIN, mode)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)

    def read(self, timeout: float = 0.0) -> list[str]:
        """The keys that are there, or come within `timeout` s."""
        if not select.select([self._file], [], [], timeout)[0]:
            return []
        try:
            data = os.read(self._file, 1024)
        except OSError:  # a pseudo-terminal whose other side is closed
            data = b""
        return keys_of(data.decode(errors="replace")) if data else [END]
