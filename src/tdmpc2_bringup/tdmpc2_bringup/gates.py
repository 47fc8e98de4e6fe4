"""What must happen before a planner is activated. No launch imports."""

from __future__ import annotations

CONFIGURED = "configured"
"""The gate that every planner has: its own configuration."""


class Gates:
    """All start closed; `open` says when none is left."""

    def __init__(self) -> None:
        self._closed = {CONFIGURED}

    def add(self, name: str) -> str:
        """One gate more, such as a process that must end, and what `open` takes: two of one name are two."""
        gate = f"{name} {len(self._closed)}"
        self._closed.add(gate)
        return gate

    def open(self, gate: str) -> bool:
        """Note that it has happened; True when it was the last."""
        self._closed.discard(gate)
        return not self._closed
