"""The model in use and its task: configured by the node, exchanged by services while the robot moves."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rclpy.node import Node

from tdmpc2_core.errors import UserError
from tdmpc2_ros.planner_model import PlannerParameters, task_index
from tdmpc2_ros.planner_telemetry import Telemetry
from tdmpc2_ros.planner_types import DecisionOptions

if TYPE_CHECKING:
    from tdmpc2_core.agent import Agent
    from tdmpc2_core.robots import Embodiment
    from tdmpc2_ros.planner_thread import ControlThread
    from tdmpc2_ros.planner_worker import PlanWorker

_UNCONFIGURED = "the planner is not configured; set its parameter model and configure it"


class ModelSlot:
    """Holds the agent from configure to cleanup. `lock` is held while agent, task or thread change.

    Attributes:
        agent: None while the node is unconfigured.
        path: the bundle it came from.
        options: what decisions follow; its task is an index in the agent's model.
        thread: the control thread, while the node is active.
        telemetry: there as long as the agent is.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.lock = threading.RLock()
        self.options = DecisionOptions()
        self.agent: Agent | None = None
        self.path = ""
        self.thread: ControlThread | None = None
        self.telemetry: Telemetry | None = None

    def put(self, agent: Agent, values: PlannerParameters, names: Sequence[str]) -> None:
        """Hold a new agent; `names`: its joints as ROS knows them.

        Raises:
            UserError: the model does not know the parameters' task.
        """
        with self.lock:
            self.options.task = task_index(agent, values.task)
            self.agent, self.path = agent, values.model
            self.telemetry = Telemetry(self._node, agent, names, self.options)
            self.retune(values)

    def clear(self) -> None:
        """Give the agent and its topics up."""
        with self.lock:
            if self.telemetry is not None:
                self.telemetry.destroy()
            self.agent, self.telemetry, self.path = None, None, ""

    def retune(self, values: PlannerParameters) -> None:
        """Follow the dynamic parameters."""
        options = self.options
        options.deadline, options.evaluate = 1e-3 * values.deadline_ms, values.evaluate
        options.limits = values.disagreement_limit, values.consistency_limit
        if self.telemetry is not None:
            self.telemetry.latent = values.publish_latent

    def replace(self, old: Agent, new: Agent, path: str, worker: PlanWorker, task: int | None) -> None:
        """Use `new` in the place of `old`, from the next tick on when active; `worker` plans with it, warm.

        Raises:
            UserError: `old` is no longer in use.
        """
        with self.lock:
            if self.agent is not old or self.telemetry is None:
                raise UserError("the planner was configured anew while the model was loading; load it again")
            self.agent, self.path = new, path
            self.telemetry.follow(new)
            if self.thread is not None:
                self.thread.succeed(new, worker, task)
            else:
                worker.stop()
                self.options.task = task

    @property
    def robot(self) -> Embodiment | None:
        """What the agent drives."""
        return self.agent.embodiment if self.agent else None

    @property
    def task(self) -> str:
        """What the model acts on: the active one of its tasks, or the robot's own."""
        agent, index = self.agent, self.options.task
        if agent is None or agent.embodiment is None:
            return ""
        if index is None:
            return agent.embodiment.task
        return agent.tasks[index] if index < len(agent.tasks) else str(index)

    @property
    def tasks(self) -> list[str]:
        """All that the model knows by name; empty for a model of one task."""
        return list(self.agent.tasks) if self.agent and self.agent.model.config.num_tasks else []

    def choose(self, name: str) -> str:
        """Act on another task from the next decision on; returns the one before.

        Raises:
            UserError: there is no agent, or its model does not know the task.
        """
        with self.lock:
            if not name:
                raise UserError(f"task is empty; accepted: {', '.join(self.tasks) or 'none'}")
            before, self.options.task = self.task, task_index(self.configured(), name)
            return before

    def configured(self) -> Agent:
        """The agent. Raises UserError when there is none."""
        if self.agent is None:
            raise UserError(_UNCONFIGURED)
        return self.agent
