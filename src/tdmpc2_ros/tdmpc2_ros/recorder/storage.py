"""What one file of a bag can do, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Topic:
    """A recorded topic. `repeat`: its last message stands at the head of every file, as a latched one's must.

    `definition` is the type's message definition with those that it needs, `hash` its REP-2011 hash.
    """

    number: int  # from 1 on
    name: str
    kind: str
    definition: str
    hash: str
    repeat: bool = False


class BagFile(Protocol):
    """A file under construction; whole on disk, for any reader, after each `checkpoint`."""

    suffix: str

    def __init__(self, path: Path) -> None: ...

    @property
    def size(self) -> int:
        """Bytes so far, what is not on disk yet among them; an estimate."""

    def add_topic(self, topic: Topic) -> None:
        """Register a topic, before its first message."""

    def write(self, topic: int, timestamp: int, data: bytes) -> None:
        """Take one message: CDR bytes received at `timestamp`, ns."""

    def checkpoint(self) -> None:
        """Put all that was written on disk. Raises OSError or sqlite3.Error; then comes `abandon`."""

    def close(self, metadata: str) -> None:
        """Checkpoint with the bag's metadata inside, and end. Raises as `checkpoint`."""

    def abandon(self) -> None:
        """End with what the last good checkpoint wrote; needs no space."""
