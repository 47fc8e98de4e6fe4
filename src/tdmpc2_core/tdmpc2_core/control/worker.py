"""The thread that runs the search, so that a late plan delays no command."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tdmpc2_core.agent import Agent
    from tdmpc2_core.planning import Plan


_LOG = logging.getLogger(__name__)
_WARM_UP = 10.0  # s, longest first search
_WARM_UP_SEARCH = 0.2  # s after which it makes no further iteration


class SearchRequest(NamedTuple):
    """What to plan on: see `Agent.plan`."""

    observation: NDArray[np.float32]  # (O,)
    now: float  # s, clock of the sensors' stamps
    deadline: float  # s, `time.monotonic`
    first: bool  # of an episode: nothing is left of the plan before
    evaluate: bool
    task: int | None = None
    use_prior: bool = False
    in_flight: NDArray[np.float32] | None = None  # (D, A)


class SearchOutcome(NamedTuple):
    """A plan or the error that came instead, and the seconds it took."""

    plan: Plan | None
    error: Exception | None
    seconds: float


class PlanWorker:
    """Plans one request at a time in a thread of its own; in between it runs what `follow` gave it."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._condition = threading.Condition()
        self._request: SearchRequest | None = None
        self._outcome: SearchOutcome | None = None
        self._job: Callable[[], None] | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="plan", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """True from `request` until the outcome is there."""
        return self._request is not None

    def warm_up(self, observation_dim: int, task: int | None) -> None:
        """Plan once: the first search of a thread takes far longer than later ones."""
        nothing = np.zeros(observation_dim, np.float32)
        deadline = time.monotonic() + _WARM_UP_SEARCH
        self.request(SearchRequest(nothing, now=0.0, deadline=deadline, first=True, evaluate=True, task=task))
        self.collect(until=time.monotonic() + _WARM_UP)
        self._agent.reset()

    def request(self, request: SearchRequest) -> None:
        """Start planning. Only when not `busy`; an outcome nobody collected is dropped."""
        with self._condition:
            self._request, self._outcome = request, None
            self._condition.notify_all()

    def collect(self, until: float = 0.0) -> SearchOutcome | None:
        """The outcome, once; waits until the instant `until` of `time.monotonic()`, s. None: none yet."""
        with self._condition:
            while self._outcome is None and self._request is not None:
                left = until - time.monotonic()
                if left <= 0.0:
                    return None
                self._condition.wait(left)
            outcome, self._outcome = self._outcome, None
            return outcome

    def follow(self, job: Callable[[], None]) -> None:
        """Run `job` when no request waits; a job that has not begun is replaced. What it raises
        is logged."""
        with self._condition:
            self._job = job
            self._condition.notify_all()

    def stop(self, timeout: float = 1.0) -> None:
        """End the thread; waits `timeout` s for a search in progress."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._request is None and self._job is None and not self._stopped:
                    self._condition.wait()
                if self._stopped:
                    return
                request, job = self._request, None
                if request is None:
                    job, self._job = self._job, None
            if job is not None:
                try:
                    job()
                except Exception:  # a look at a plan must not cost the plans to come
                    _LOG.exception("the job after a plan failed; planning goes on")
                continue
            assert request is not None
            outcome = self._plan(request)
            with self._condition:
                self._request, self._outcome = None, outcome
                self._condition.notify_all()

    def _plan(self, request: SearchRequest) -> SearchOutcome:
        start = time.monotonic()
        plan, error = None, None
        try:
            plan = self._agent.plan(
                request.observation,
                now=request.now,
                deadline=request.deadline,
                first=request.first,
                evaluate=request.evaluate,
                task=request.task,
                use_prior=request.use_prior,
                in_flight=request.in_flight,
            )
        except Exception as problem:  # whatever happens here, the robot needs its next command
            error = problem
        return SearchOutcome(plan, error, time.monotonic() - start)
