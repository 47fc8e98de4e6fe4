"""Who decides in training: chance, then the policy prior beside its teachers or alone, then the planner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tdmpc2_core.agent import Agent
from tdmpc2_core.envs.protocol import Environment
from tdmpc2_core.teachers.demonstrator import Teachers
from tdmpc2_core.train.train_config import TrainConfig


@dataclass(frozen=True)
class Choice:
    """Actions (B, A) of all environments; mean and std (B, A) and value (B,) of plans behind them."""

    action: np.ndarray
    plan_mean: np.ndarray | None = None
    plan_std: np.ndarray | None = None
    value: np.ndarray | None = None

    def plan(self, lane: int) -> tuple[np.ndarray | None, np.ndarray | None, float]:
        """Mean (A,), std (A,) and value of one environment's plan; None, None, nan where there is none."""
        value = float("nan") if self.value is None else float(self.value[lane])
        if self.plan_mean is None or self.plan_std is None:
            return None, None, value
        return self.plan_mean[lane], self.plan_std[lane], value


class Behaviour:
    """Decisions of one run, by its settings and the number of agent steps done.

    Raises:
        UserError: there are ``dagger_steps``, but an environment has no scripted controller.
    """

    def __init__(
        self,
        config: TrainConfig,
        agent: Agent,
        environments: Sequence[Environment],
        rng: np.random.Generator,
    ) -> None:
        self._config, self._agent, self._rng = config, agent, rng
        self._teachers = Teachers(environments, rng) if config.dagger_steps else None
        self._held = np.zeros((len(environments), environments[0].spec.action_dim), dtype=np.float32)

    def restart(self, lane: int) -> None:
        """A new episode began in this environment."""
        if self._teachers:
            self._teachers.restart(lane)

    def decide(self, observations: np.ndarray, first: np.ndarray, steps: int) -> Choice:
        """What to do at observations (B, O), after ``steps`` agent steps; first (B,): begins of episodes."""
        config = self._config
        if steps < config.random_steps:
            return Choice(self._random_actions(steps))
        guided = self._teachers is not None and steps < config.dagger_steps
        planned = steps >= config.planner_from and not guided
        result = self._agent.act(observations, first, evaluate=False, use_prior=not planned)
        if self._teachers and guided:
            share = config.dagger_share * max(0.0, 1.0 - steps / config.demonstration_anneal)
            actions, labels = self._teachers.decide(result.action, share)
            return Choice(actions, labels, np.full_like(labels, config.demonstration_std))
        if planned:
            return Choice(result.action, result.plan_mean, result.plan_std, result.value)
        return Choice(result.action)

    def _random_actions(self, steps: int) -> np.ndarray:
        """Uniform actions (B, A) float32, drawn anew every `random_hold` decisions."""
        if steps // len(self._held) % self._config.random_hold == 0:
            self._held = self._rng.uniform(-1.0, 1.0, self._held.shape).astype(np.float32)
        return self._held
