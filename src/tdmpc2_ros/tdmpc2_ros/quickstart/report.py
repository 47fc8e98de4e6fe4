"""What a quickstart run tells: the table at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tdmpc2_core.scoring.reaching import ReachScore
from tdmpc2_core.scoring.walking import WalkScore
from tdmpc2_ros.quickstart.driving import DriveScore

Score = WalkScore | ReachScore | DriveScore


def table(
    score: Score,
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


def verdict(score: Score) -> str:
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


def comparison(scores: Mapping[str, Score], planners: Mapping[str, dict[str, Any]]) -> str:
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
