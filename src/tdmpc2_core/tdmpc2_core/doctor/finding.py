"""`Finding`: what one check came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        check: what was looked at.
        level: ok; warn: works, with a drawback; fail: the suite or the robot does not work like this.
        found: what was there.
        advice: what to do about it; empty at ok.
    """

    check: str
    level: Level
    found: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain values for JSON."""
        return asdict(self)


def ok(check: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(check, "ok", found)


def warn(check: str, found: str, advice: str) -> Finding:
    """Works, with a drawback."""
    return Finding(check, "warn", found, advice)


def fail(check: str, found: str, advice: str) -> Finding:
    """Does not work."""
    return Finding(check, "fail", found, advice)
