"""~/load_model and ~/set_task, where tdmpc2_msgs is built.

They are served by a node and an executor of their own: loading takes seconds, in which the planner's
callbacks must go on to store sensor samples.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rclpy.node import Node

from tdmpc2_core.control.decision import Successor
from tdmpc2_core.control.shadow import MAX_SECONDS, Shadow, ShadowReport
from tdmpc2_core.control.worker import PlanWorker
from tdmpc2_core.errors import UserError, sentence
from tdmpc2_ros.parameters import Parameters
from tdmpc2_ros.planner.model import ModelSlot, PlannerParameters, apply_costs, load_agent, task_index
from tdmpc2_ros.process import Companion

if TYPE_CHECKING:
    from tdmpc2_core.agent import Agent


try:
    from tdmpc2_msgs.srv import LoadModel, SetTask
except ImportError:
    LoadModel = SetTask = None


_LOADING = 20.0  # s, longest load that the end of the process waits for


class ModelServices:
    """Serves the planner node; nothing is offered without tdmpc2_msgs."""

    def __init__(self, planner: Node, slot: ModelSlot, parameters: Parameters[PlannerParameters]) -> None:
        self._planner, self._slot, self._parameters = planner, slot, parameters
        self._companion: Companion | None = None
        self._ending = threading.Event()
        if LoadModel is None:
            return
        self._companion = Companion(planner, "model")
        own = planner.get_fully_qualified_name()
        for kind, name, callback in (
            (LoadModel, "~/load_model", self._on_load),
            (SetTask, "~/set_task", self._on_task),
        ):
            self._companion.node.create_service(kind, name.replace("~", own), callback)
        self._companion.start()

    def stop(self) -> None:
        """Offer them no longer, once a load in progress has ended: a thread that outlives the interpreter's
        end would abort the process."""
        self._ending.set()
        if self._companion is not None:
            self._companion.stop(_LOADING)
            self._companion = None

    def _on_load(self, request: LoadModel.Request, response: LoadModel.Response) -> LoadModel.Response:
        started, log = time.monotonic(), self._planner.get_logger()
        response.prediction_error = response.prediction_error_before = math.nan
        response.action_difference = response.planning_p99 = math.nan
        try:
            agent = self._load(request, response)
        except Exception as problem:  # whatever a path leads to, the service stays
            response.message = f"{sentence(problem)}; the model in use stays"
            log.error(f"load_model refused: {response.message}")
        else:
            assert agent.embodiment is not None
            response.success = True
            response.robot, response.fingerprint = agent.embodiment.name, agent.embodiment.fingerprint
            deed = "fits; not taken into use" if request.check_only else "is in use"
            response.message = f"{request.path} for {response.robot} {deed}"
            log.info(f"load_model: {response.message}")
        response.seconds = time.monotonic() - started
        return response

    def _load(self, request: LoadModel.Request, response: LoadModel.Response) -> Agent:
        """Load, check against the robot, warm up, watch in shadow where that is asked for, take into use.

        Raises:
            UserError: why not; nothing has changed then.
        """
        slot, values, path = self._slot, self._parameters.values, request.path
        present = slot.configured()
        assert present.embodiment is not None
        if not path:
            raise UserError("path is empty; give the folder of a checkpoint bundle")
        if not 0.0 <= request.shadow_seconds <= MAX_SECONDS:
            raise UserError(f"shadow_seconds is {request.shadow_seconds:g}, must be 0 to {MAX_SECONDS:g}")
        with _short_turns():
            agent, _ = load_agent(replace(values, calibrate=False), path, present.embodiment)
            if values.calibrate:  # the settings that were found while nothing else ran
                costs = agent.planner_config.costs
                agent = agent.fork(replace(present.planner_config, costs=costs), values.seed)
            task = task_index(agent, slot.task if slot.task in agent.tasks else "")
            if request.shadow_seconds:
                self._watch(agent, task, request.shadow_seconds, response)
        if request.check_only:
            return agent
        successor = Successor(agent, PlanWorker(agent), task)
        successor.worker.warm_up(present.embodiment.observation_dim, task)
        agent.seed(values.seed)  # the warm-up drew from its random numbers
        try:
            slot.replace(present, successor, path, self._parameters.values)
        except UserError:
            successor.worker.stop()
            raise
        return agent

    def _watch(self, agent: Agent, task: int | None, seconds: float, response: LoadModel.Response) -> None:
        """Plan beside the running model for `seconds`; fill in what was found. Raises UserError: refused."""
        slot = self._slot
        present, telemetry = slot.configured(), slot.telemetry
        if slot.thread is None or telemetry is None:
            raise UserError("shadow_seconds needs a planner that decides; activate it, or give 0")
        apply_costs(agent, self._parameters.values, agent.planner_config.costs)
        shadow = Shadow(present, agent, slot.options.task, task)
        telemetry.listener = shadow.decided
        try:
            found = shadow.watch(seconds, lambda: self._ending.is_set() or slot.thread is None)
        finally:
            telemetry.listener = None
            agent.reset()
        _fill_in(response, found)
        self._planner.get_logger().info(f"load_model, in shadow: {found}")
        if self._ending.is_set() or slot.thread is None:
            raise UserError("the planner ended while the model was in shadow")
        if verdict := found.verdict(slot.options.deadline):
            raise UserError(f"in shadow: {verdict}")

    def _on_task(self, request: SetTask.Request, response: SetTask.Response) -> SetTask.Response:
        slot = self._slot
        try:
            response.previous = slot.choose(request.task)
            response.success, response.message = True, f"task {request.task!r} from the next decision on"
        except UserError as problem:
            response.previous, response.message = slot.task, str(problem)
        response.accepted = slot.tasks
        return response


def _fill_in(response: LoadModel.Response, found: ShadowReport) -> None:
    response.prediction_error, response.prediction_error_before = found.error, found.error_before
    response.action_difference, response.planning_p99 = found.difference, found.planning


@contextmanager
def _short_turns() -> Iterator[None]:
    """No thread keeps the interpreter for more than 1 ms while another, such as control, waits for it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.001)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
