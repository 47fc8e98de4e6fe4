"""What a program that runs for a while says of now."""

from __future__ import annotations

import shutil
import sys
import time

_PLAIN_PERIOD = 2.0  # s between lines where output is no terminal


class LiveLine:
    """One line that is written over again; lines of their own where output is no terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._next, self._width = 0.0, 0

    def show(self, text: str) -> None:
        """Show `text`; calls may come as often as they like."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (0.2 if self._terminal else _PLAIN_PERIOD)
        if self._terminal:
            text = text[: shutil.get_terminal_size().columns - 1]  # what wraps is not written over
            print("\r" + text.ljust(self._width), end="", flush=True)
            self._width = len(text)
        else:
            print(text, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._terminal and self._width:
            print(flush=True)
        self._width = 0
