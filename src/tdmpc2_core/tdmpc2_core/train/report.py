"""Evaluations as a text table."""

from __future__ import annotations

from collections.abc import Mapping

from tdmpc2_core.train.evaluate import Evaluation


def evaluation_table(results: Mapping[str, Evaluation]) -> str:
    """One line per named evaluation."""
    lines = [
        f"{'planner':<12}{'reward/step':>12}{'velocity error':>16}{'yaw-rate error':>16}"
        f"{'distance':>10}{'falls':>8}"
    ]
    for name, result in results.items():
        lines.append(
            f"{name:<12}{result.return_per_step:>12.3f}{result.velocity_error:>12.3f} m/s"
            f"{result.yaw_rate_error:>10.3f} rad/s{100 * result.distance_ratio:>8.0f} %"
            f"{result.falls:>4}/{result.episodes}"
        )
    return "\n".join(lines)
