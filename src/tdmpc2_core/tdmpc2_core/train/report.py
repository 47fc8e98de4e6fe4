"""Evaluations as a text table."""

from __future__ import annotations

from collections.abc import Mapping

from tdmpc2_core.train.evaluate_agent import AnyEvaluation
from tdmpc2_core.train.evaluate_reach import ReachEvaluation
from tdmpc2_core.train.evaluate_task import TaskEvaluation


def evaluation_table(results: Mapping[str, AnyEvaluation]) -> str:
    """One line per named evaluation; all are of one robot or task."""
    cells = {name: _cells(result) for name, result in results.items()}
    rows = [["planner", *next(iter(cells.values()), {})]]
    rows += [[name, *values.values()] for name, values in cells.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def summary(result: AnyEvaluation) -> str:
    """One evaluation in one line, for the log."""
    return ", ".join(f"{name} {value}" for name, value in _cells(result).items())


def _cells(result: AnyEvaluation) -> dict[str, str]:
    if isinstance(result, TaskEvaluation):
        cells = {"return": f"{result.mean_return:.1f}", "std": f"{result.std_return:.1f}"}
        return cells | {"lowest": f"{result.lowest_return:.1f}", "episodes": str(result.episodes)}
    cells = {"reward/step": f"{result.return_per_step:.3f}"}
    if isinstance(result, ReachEvaluation):
        cells["goals reached and held"] = f"{100 * result.success:.1f} % of {result.goals}"
        cells["position error"] = f"{1000 * result.position_error:.1f} mm"
        cells["rotation error"] = f"{result.rotation_error:.3f} rad"
        return cells
    cells["velocity error"] = f"{result.velocity_error:.3f} m/s"
    cells["yaw-rate error"] = f"{result.yaw_rate_error:.3f} rad/s"
    cells["distance"] = f"{100 * result.distance_ratio:.0f} %"
    return cells | {"falls": f"{result.falls}/{result.episodes}"}
