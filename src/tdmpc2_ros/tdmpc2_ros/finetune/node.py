"""Node `finetune`: the action ~/fine_tune, which trains a bundle further on recorded episodes.

Training runs in this process, not in the planner's, whose ticks it would delay. One goal at a time. Needs
tdmpc2_msgs.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node

from tdmpc2_core.config import setting
from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_ros import qos
from tdmpc2_ros.finetune.recordings import Cancelled, as_stores
from tdmpc2_ros.parameters import Parameters
from tdmpc2_ros.process import Stop, run_node

_MODES = ("dynamics", "residual", "full", "auto")

try:
    from tdmpc2_msgs.action import FineTune
    from tdmpc2_msgs.msg import PlannerStatus
    from tdmpc2_msgs.srv import LoadModel
except ImportError:
    FineTune = PlannerStatus = LoadModel = None

_LOADING = 60.0  # s, longest load of a bundle in the planner
_DISCOVERY = 3.0  # s, longest wait for the planner's latched status after this node's start


@dataclass(frozen=True)
class FineTuneParameters:
    """All of them are read-only: they are given at start."""

    planner: str = setting(
        "planner", why="node whose model is the base of a goal that names none, and takes over"
    )
    threads: int = setting(1, low=1, high=64, why="threads that torch computes with")
    mode: str = setting("dynamics", accepted=_MODES, why="what learns, as of `tdmpc2 finetune --mode`")
    mix_sim: float = setting(
        0.0, low=0, below=1, why="share of every batch from the robot's simulation, which must be installed"
    )
    max_shift: float = setting(
        0.2, above=0, unit="normalised action", why="a model whose actions move further is refused"
    )


class FineTuneNode(Node):
    """The node. Raises UserError when tdmpc2_msgs is not built or a parameter is wrong."""

    def __init__(self) -> None:
        super().__init__("finetune")
        if FineTune is None:
            raise UserError("finetune needs tdmpc2_msgs; build it with scripts/setup.sh --msgs or colcon")
        self._settings = Parameters(self, FineTuneParameters).values
        self._model, self._stopping, self._busy = "", threading.Event(), threading.Lock()
        others = MutuallyExclusiveCallbackGroup()
        planner = self._settings.planner
        self._status = self.create_subscription(
            PlannerStatus, f"{planner}/status", self._on_status, qos.LATCHED, callback_group=others
        )
        self._load = self.create_client(LoadModel, f"{planner}/load_model", callback_group=others)
        self._server = ActionServer(
            self,
            FineTune,
            "~/fine_tune",
            self._execute,
            goal_callback=self._on_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )

    def _on_status(self, message: Any) -> None:
        self._model = message.model

    def _planner_model(self) -> str:
        """The bundle that the planner tells of; a goal may come before its status has. Empty: no status."""
        end = time.monotonic() + _DISCOVERY
        while not self._model and time.monotonic() < end:
            self._stopping.wait(0.05)
        return self._model

    def _on_goal(self, request: Any) -> GoalResponse:
        if self._busy.locked():
            self.get_logger().warning("goal refused: another one runs; cancel it or wait for its end")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _execute(self, handle: ServerGoalHandle) -> Any:
        result, started = FineTune.Result(), time.monotonic()
        with self._busy:
            try:
                self._work(handle, result)
            except UserError as problem:
                result.message = str(problem)
            except Exception as problem:  # a goal always ends with a result
                result.message = f"fine-tuning failed: {type(problem).__name__}: {problem}"
        result.seconds = time.monotonic() - started
        if handle.is_cancel_requested:
            handle.canceled()
        elif result.success:
            handle.succeed()
        else:
            handle.abort()
        self.get_logger().info(result.message)
        return result

    def _work(self, handle: ServerGoalHandle, result: Any) -> None:
        """Fill in the result. Raises UserError."""
        request = handle.request
        base = request.base or self._planner_model()
        if not base:
            raise UserError(f"base is empty and {self._settings.planner} tells of no model; name a bundle")
        if not request.output:
            raise UserError("output is empty; name a folder that does not exist yet")
        os.environ["OMP_NUM_THREADS"] = str(self._settings.threads)
        import torch

        from tdmpc2_core.train.finetune import FineTuneConfig, FineTuneProgress, fine_tune

        torch.set_num_threads(self._settings.threads)
        try:
            config = FineTuneConfig(
                mode=request.mode or self._settings.mode,
                updates=request.updates,
                max_seconds=request.max_seconds,
                seed=request.seed,
                mix_sim=self._settings.mix_sim,
                max_shift=self._settings.max_shift,
            )
        except ValueError as problem:
            raise UserError(str(problem)) from None
        started = FineTuneProgress(0, config.updates, float("nan"), 0.0)
        self._tell(handle, "reading", started)

        def report(progress: FineTuneProgress) -> bool:
            self._tell(handle, progress.stage.partition(" ")[0], progress)
            return not (handle.is_cancel_requested or self._stopping.is_set())

        def reading(bags: int, total: int) -> bool:
            return report(replace(started, stage=f"converting {bags} of {total}"))

        try:
            with as_stores(request.data, lambda: _robot_of(base), reading) as stores:
                found = fine_tune(base, stores, request.output, config, report)
        except Cancelled:
            raise UserError("cancelled while bags were converted; nothing was written") from None
        result.updates, result.loss_before, result.loss_after = (
            found.updates,
            found.loss_before,
            found.loss_after,
        )
        if not found.improved:
            result.message = f"nothing was written: {'; '.join(found.reasons)} ({found.report})"
            return
        result.success, result.model = True, request.output
        losses = f"{found.mode}: held-out error from {found.loss_before:.4g} to {found.loss_after:.4g}"
        result.message = f"{request.output}: {losses} in {found.updates} updates, ended by {found.ended_by}"
        if request.load_when_done and found.ended_by != "request":
            self._tell(
                handle,
                "loading",
                FineTuneProgress(found.updates, config.updates, found.loss_after, found.seconds),
            )
            result.message += f"; {self._hand_over(request.output)}"

    def _tell(self, handle: ServerGoalHandle, stage: str, progress: Any) -> None:
        done, total, seconds = progress.updates, progress.total, progress.seconds
        left = (total - done) * seconds / done if done else -1.0
        handle.publish_feedback(
            FineTune.Feedback(
                stage=stage,
                updates=done,
                updates_total=total,
                loss=progress.loss,
                seconds=seconds,
                seconds_left=left,
            )
        )

    def _hand_over(self, path: str) -> str:
        """What the planner says to the new bundle."""
        if not self._load.wait_for_service(timeout_sec=5.0):
            return f"{self._settings.planner} does not offer load_model"
        future = self._load.call_async(LoadModel.Request(path=os.path.abspath(path)))
        answered = threading.Event()
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(_LOADING):
            return f"{self._settings.planner} does not answer to load_model"
        return future.result().message

    def run(self, stop: Stop) -> None:
        """Serve until `stop` is set; a goal in progress then ends with its best state."""
        executor = MultiThreadedExecutor(num_threads=3)
        executor.add_node(self)
        spinner = threading.Thread(target=executor.spin, name="callbacks", daemon=True)
        spinner.start()
        self.get_logger().info("waiting for goals on ~/fine_tune")
        stop.wait()
        self._stopping.set()
        with self._busy:  # the goal has ended
            executor.shutdown(timeout_sec=2.0)
        spinner.join(2.0)


def _robot_of(bundle: str) -> Embodiment:
    """What a bundle was made for. Raises UserError."""
    from tdmpc2_core.agent import Agent

    robot = Agent.load(bundle).embodiment
    if robot is None:
        raise UserError(f"{bundle}: this bundle is for no robot; bags are read as those of one")
    return robot


def main(arguments: list[str] | None = None) -> int:
    """Run the node; 0 after a stop by signal, 2 after a user's mistake."""
    return run_node(FineTuneNode, FineTuneNode.run, arguments)


if __name__ == "__main__":
    sys.exit(main())
