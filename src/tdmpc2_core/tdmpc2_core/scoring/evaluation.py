"""Evaluations as a text table."""

from __future__ import annotations

from collections.abc import Mapping

from tdmpc2_core.agent import Agent
from tdmpc2_core.errors import UserError
from tdmpc2_core.scoring.reaching import ReachEvaluation
from tdmpc2_core.scoring.tasks import TaskEvaluation, evaluate_task
from tdmpc2_core.scoring.walking import Evaluation, evaluate

AnyEvaluation = Evaluation | ReachEvaluation | TaskEvaluation


def evaluate_agent(agent: Agent, seconds: float, episodes: int, seed: int = 0) -> AnyEvaluation:
    """Run `episodes` environments side by side, without exploration noise.

    Args:
        agent: its embodiment, or else its one task, says in what.
        seconds: length of a robot's episode, s; those of a task run to their time limit.
        episodes: environments; for a robot that follows commands, one command each.
        seed: of the first environment.

    Raises:
        UserError: the agent has no embodiment and not exactly one task.
    """
    if agent.embodiment is not None:
        return evaluate(agent, agent.embodiment, seconds, episodes, seed=seed)
    if len(agent.tasks) != 1:
        raise UserError(
            f"the model was trained on {len(agent.tasks)} tasks; eval needs that of a robot or one task"
        )
    return evaluate_task(agent, agent.tasks[0], episodes, seed=seed)


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
