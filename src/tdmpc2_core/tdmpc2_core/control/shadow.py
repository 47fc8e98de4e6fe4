"""A new model beside the running one: it plans on what the robot meets, commands nothing, and is judged.

Both models foretell the latent of the next observation. Their encoders differ, so an error is taken as a
share of the variance that the model's own latents have on the same observations.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.errors import UserError

if TYPE_CHECKING:
    from tdmpc2_core.agent import Agent
    from tdmpc2_core.control.decision import Decision

Array = NDArray[np.float32]

MAX_SECONDS = 600.0
_LEAST = 20  # decisions that a judgement needs
_WORSE = 1.5  # times the running model's error
_FAR = 0.5  # root mean square between normalised actions: half of what a joint is given to either side
_NICE = 10
_POLL = 0.02  # s


class _Step(NamedTuple):
    """A decision of the running model: observation (O,), action (A,), whether it follows the one before."""

    observation: Array
    action: Array
    follows: bool


@dataclass(frozen=True)
class ShadowReport:
    """What a stream of decisions showed of the new model.

    Attributes:
        decisions: of the running model that were seen; `plans`: of the new one, on the newest of them.
        error, error_before: one-step latent prediction error of the new and the running model, as a share of
            the latents' variance; NaN without decisions that follow each other.
        difference: root mean square between both models' actions, normalised; NaN without plans.
        planning: 99th percentile of a plan's processor time, s.
        problem: why a plan failed; empty where none did.
    """

    decisions: int
    plans: int
    error: float
    error_before: float
    difference: float
    planning: float
    problem: str

    def verdict(self, deadline: float) -> str:
        """Why the new model must not take over, `deadline` s being what a search may take; empty: it may."""
        if self.problem:
            return self.problem
        if min(self.decisions, self.plans) < _LEAST:
            return (
                f"{self.plans} plans on {self.decisions} decisions are too few to judge, {_LEAST} are needed"
            )
        if not math.isfinite(self.error):
            return "its prediction error is not finite"
        if not self.error <= _WORSE * self.error_before:
            return (
                f"it foretells the robot worse: error {self.error:.3g} of the latents' variance, "
                f"the running model {self.error_before:.3g}"
            )
        if not self.difference <= _FAR:
            return f"its actions are {self.difference:.2g} off the running model's, more than {_FAR:g}"
        if self.planning > deadline:
            return f"a plan takes {1e3 * self.planning:.1f} ms, the deadline is {1e3 * deadline:.1f} ms"
        return ""

    def __str__(self) -> str:
        return (
            f"{self.decisions} decisions: prediction error {self.error:.3g}, before {self.error_before:.3g}; "
            f"actions {self.difference:.2g} apart; plans in {1e3 * self.planning:.1f} ms"
        )


class Shadow:
    """Plans with `new` on the decisions that `decided` gets, in a thread below all others.

    Args:
        running: whose decisions these are; `task` is its task's index.
        new: what is judged, of the same robot, with the index of its task. Nothing else uses it meanwhile.
    """

    def __init__(
        self, running: Agent, new: Agent, task: int | None = None, new_task: int | None = None
    ) -> None:
        self._running, self._new, self._tasks = running, new, (task, new_task)
        self._steps: list[_Step] = []
        self._stop = threading.Event()
        self._differences: list[float] = []
        self._times: list[float] = []
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def decided(self, decision: Decision) -> None:
        """Take a decision of the running model; called in the control thread, once its command is out."""
        if decision.plan is not None and decision.observation is not None:
            action = decision.plan.actions[decision.row]
            self._steps.append(_Step(decision.observation, action, decision.previous is not None))

    def watch(self, seconds: float, ended: Callable[[], bool]) -> ShadowReport:
        """Plan along for `seconds`, less where `ended()` or a plan failed; what came of it."""
        self._thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not ended() and not self._problem:
            self._stop.wait(_POLL)
        self._stop.set()
        self._thread.join()
        return self._report()

    def _run(self) -> None:
        _lower_priority()
        seen = 0
        while not self._stop.is_set() and not self._problem:
            if len(self._steps) == seen:
                self._stop.wait(0.1 * _POLL)
                continue
            first, seen = seen == 0, len(self._steps)
            self._plan(self._steps[seen - 1], first)

    def _plan(self, step: _Step, first: bool) -> None:
        started = time.thread_time()
        try:
            plan = self._new.plan(step.observation, now=0.0, first=first, task=self._tasks[1])
        except (UserError, RuntimeError) as problem:
            self._problem = str(problem)
            return
        if not first:
            self._times.append(time.thread_time() - started)
        self._differences.append(float(np.square(plan.actions[0] - step.action).mean()))

    def _report(self) -> ShadowReport:
        steps = list(self._steps)
        errors = (math.nan, math.nan)
        if any(step.follows for step in steps[1:]):
            errors = (
                prediction_error(self._new, steps, self._tasks[1]),
                prediction_error(self._running, steps, self._tasks[0]),
            )
        difference = math.sqrt(np.mean(self._differences)) if self._differences else math.nan
        planning = float(np.percentile(self._times, 99)) if self._times else math.nan
        return ShadowReport(len(steps), len(self._times), *errors, difference, planning, self._problem)


def prediction_error(agent: Agent, steps: list[_Step], task: int | None = None) -> float:
    """Mean squared error of the latent foretold one decision ahead, as a share of the latents' variance."""
    import torch  # here: control itself needs none

    from tdmpc2_core.model.open_loop import open_loop

    model, device = agent.model, agent.device
    with torch.inference_mode():
        observed = torch.from_numpy(np.stack([step.observation for step in steps])).to(device)
        action = torch.from_numpy(np.stack([step.action for step in steps])).to(device)
        index = None if task is None else torch.full((len(steps),), task, device=device)
        z = model.encode(observed, index)
        starts = torch.tensor([k for k, step in enumerate(steps[1:]) if step.follows], device=device)
        (found,) = open_loop(model, z, action, starts, starts + 1, 1, task)
        error = (found.latent - z[starts + 1]).square().mean()
        return float(error / z.var(0, correction=0).mean().clamp(min=1e-12))


def _lower_priority() -> None:
    """Of the calling thread: ordinary scheduling, as real-time priority is inherited, below other threads."""
    with contextlib.suppress(OSError, AttributeError):  # not on every system
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
