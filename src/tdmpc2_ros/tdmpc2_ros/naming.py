"""Names where several robots share one domain, and of nodes that others look for."""

from __future__ import annotations

SUPERVISOR = "supervisor"
"""Name of the node that stops the robot where its planner fails."""

MAX_ROBOTS = 8
"""As many go together."""


def robot_name(number: int) -> str:
    """Namespace of one of several robots, which count from 1."""
    return f"robot{number}"
