"""What is to be started, as plain data, and what a planner's activation waits for. No launch imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class NodeSpec:
    """One process. Of `parameters`, files and mappings, later ones win; no name leaves the program's own.

    role: `essential` ends the launch when it ends; `gate` must end with code 0 before the planner is
    activated; `planner` is the lifecycle node that is brought to active.
    """

    package: str
    executable: str
    name: str = ""
    parameters: tuple[str | dict[str, Any], ...] = ()
    arguments: tuple[str, ...] = ()
    remappings: tuple[tuple[str, str], ...] = ()
    role: Literal["", "essential", "gate", "planner"] = ""
    ours: bool = True  # takes --log-level


@dataclass(frozen=True)
class Include:
    """A launch file of another package."""

    package: str
    file: str
    arguments: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Everything that a launch starts; `notes` are sentences for the log, such as what stood in for what."""

    nodes: tuple[NodeSpec, ...]
    includes: tuple[Include, ...] = ()
    notes: tuple[str, ...] = ()
    autostart: bool = True


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
