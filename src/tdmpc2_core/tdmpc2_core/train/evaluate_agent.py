"""Evaluation of an agent on what it was trained for: a robot's course, goals or a benchmark task."""

from __future__ import annotations

from tdmpc2_core.agent import Agent
from tdmpc2_core.errors import UserError
from tdmpc2_core.train.evaluate import Evaluation, evaluate
from tdmpc2_core.train.evaluate_reach import ReachEvaluation
from tdmpc2_core.train.evaluate_task import TaskEvaluation, evaluate_task

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
