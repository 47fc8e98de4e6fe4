"""Evaluations as a text table."""

from __future__ import annotations

from collections.abc import Mapping

from tdmpc2_core.train.evaluate import Evaluation
from tdmpc2_core.train.evaluate_task import TaskEvaluation


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


def task_table(results: Mapping[str, TaskEvaluation]) -> str:
    """One line per named evaluation on a benchmark task."""
    lines = [f"{'planner':<12}{'return':>10}{'std':>8}{'lowest':>10}{'episodes':>10}"]
    for name, result in results.items():
        lines.append(
            f"{name:<12}{result.mean_return:>10.1f}{result.std_return:>8.1f}{result.lowest_return:>10.1f}"
            f"{result.episodes:>10}"
        )
    return "\n".join(lines)


def summary(result: Evaluation | TaskEvaluation) -> str:
    """One evaluation in one line, for the log."""
    if isinstance(result, TaskEvaluation):
        return f"return {result.mean_return:.0f} +- {result.std_return:.0f} over {result.episodes} episodes"
    return (
        f"{result.return_per_step:.3f} reward per step, velocity error {result.velocity_error:.3f} m/s, "
        f"distance {100 * result.distance_ratio:.0f} %, falls {result.falls} of {result.episodes}"
    )
