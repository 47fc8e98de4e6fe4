"""What a quickstart run tells: the live line, the table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from tdmpc2_core.scoring.reaching import ReachScore
from tdmpc2_core.scoring.walking import WalkScore

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
            print("\r" + text.ljust(self._width), end="", flush=True)
            self._width = len(text)
        else:
            print(text, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._terminal and self._width:
            print(flush=True)
        self._width = 0


def table(
    score: WalkScore | ReachScore,
    planner: Mapping[str, Any],
    simulation: Mapping[str, Any],
    memory: float | None,
) -> str:
    """The results as text: `planner` is its own report, `simulation` how simulated time went."""
    latency = planner.get("latency_ms") or {}
    rows = [
        *score.rows(),
        ("planning latency", f"p50 {_number(latency.get('p50'))} ms, p99 {_number(latency.get('p99'))} ms"),
        ("commands", f"{_number(planner.get('commands'))} sent, {_number(planner.get('missed'))} missed"),
        ("holds", _holds(planner)),
        ("stale sensors", _stale(planner)),
        ("simulated time", pace(simulation)),
        ("planner memory", f"{_number(memory)} MB"),
        ("result", verdict(score)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name.ljust(width)}   {value}" for name, value in rows)


def verdict(score: WalkScore | ReachScore) -> str:
    """Passed, or what is wrong."""
    return "passed" if score.followed else "failed: " + ", ".join(score.problems())


def pace(simulation: Mapping[str, Any]) -> str:
    """How simulated time went beside real time, in one line."""
    text = f"{simulation['real_time_factor']:.2f} of real time"
    if not simulation["lock_step"]:
        return text
    if not simulation.get("waits"):
        return f"{text}, never waited for the planner"
    text += (
        f", waited {simulation['waits']:.0f} times, {simulation['waited_s']:.1f} s, for the planner's answer"
    )
    if simulation.get("unanswered"):
        text += f"; {simulation['unanswered']:.0f} samples had none"
    return text


def _holds(planner: Mapping[str, Any]) -> str:
    causes = planner.get("hold_causes") or {}
    counted = "; ".join(f"{cause} ({number}x)" for cause, number in causes.items())
    return f"{_number(planner.get('holds'))}{': ' if counted else ''}{counted}"


def _stale(planner: Mapping[str, Any]) -> str:
    texts = [f"{one['last']} ({one['ticks']}x)" for one in (planner.get("stale") or {}).values()]
    return f"{_number(planner.get('stale_ticks'))} decisions{': ' if texts else ''}{'; '.join(texts)}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}".removesuffix(".0")


def comparison(scores: Mapping[str, WalkScore | ReachScore], planners: Mapping[str, dict[str, Any]]) -> str:
    """A line for each of several robots, with what their planners reported."""
    rows = [("", "distance", "of", "velocity error", "falls", "latency p50, p99", "result")]
    for name, one in scores.items():
        assert isinstance(one, WalkScore)  # several robots walk
        distances = f"{one.distance:.2f} m", f"{one.commanded_distance:.2f} m"
        latency = planners[name].get("latency_ms") or {}
        times = f"{_number(latency.get('p50'))}, {_number(latency.get('p99'))} ms"
        error = f"{one.velocity_error:.3f} m/s"
        rows.append((name, *distances, error, str(one.falls), times, verdict(one)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  " + "   ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
