"""How far a world model can be trusted at present, from the model alone.

Two figures, each against a limit that was measured where the model is known to work:

- disagreement: spread of the value heads at the plan's end. Heads that learned from the same targets agree
  where there was data and drift apart where there was none (Lakshminarayanan et al., Deep Ensembles, 2017).
- consistency: squared error of the latent state predicted one decision ago against the encoding of what was
  then measured; the loss that trains the dynamics (TD-MPC2, eq. 3), here at run time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tdmpc2_core.config import check_fields, setting

if TYPE_CHECKING:
    from torch import Tensor

    from tdmpc2_core.model.world_model import WorldModel


LEVELS = ("ok", "warn", "error")
_NEAR = 0.8  # share of a limit from which on the level is "warn"


@dataclass(frozen=True)
class TrustLimits:
    """Above them the model is taken to be outside what it learned from; 0: not judged by this figure."""

    disagreement: float = setting(0.0, low=0, unit="reward units", why="spread of the value heads")
    consistency: float = setting(0.0, low=0, why="mean squared error of the predicted latent state")

    def __post_init__(self) -> None:
        check_fields(self)


UNLIMITED = TrustLimits()


@dataclass(frozen=True)
class Trust:
    """What one decision showed.

    Attributes:
        disagreement: standard deviation of the value heads at the plan's end, reward units.
        consistency: mean squared latent prediction error of the previous decision; NaN without one.
        trust: max(0, 1 - ratio / 2) with ratio the larger of figure / limit: 0.5 at a limit, 0 at twice it;
            NaN without limits.
        level: one of `LEVELS`; error above a limit, warn from 80 % of it on.
        reason: the figure that set the level, as text; empty at ok.
    """

    disagreement: float
    consistency: float
    trust: float
    level: str
    reason: str


@dataclass(frozen=True)
class Insight:
    """One decision as the model sees it; reward in reward units per decision, termination in 0..1."""

    trust: Trust
    latent: NDArray[np.float32]  # (L,)
    reward: float
    termination: float


def judge(disagreement: float, consistency: float, limits: TrustLimits) -> Trust:
    """`Trust` of two figures. NaN of `consistency` says that there is none yet; any other figure that is not
    finite is above every limit.
    """
    figures = [("disagreement of the value heads", disagreement, limits.disagreement)]
    if not math.isnan(consistency):
        figures.append(("latent prediction error", consistency, limits.consistency))
    ratios = {
        name: (value / limit if math.isfinite(value) else math.inf, value, limit)
        for name, value, limit in figures
        if limit > 0.0
    }
    if not ratios:
        return Trust(disagreement, consistency, math.nan, "ok", "")
    name, (ratio, value, limit) = max(ratios.items(), key=lambda item: item[1][0])
    level = "error" if ratio > 1.0 else "warn" if ratio >= _NEAR else "ok"
    reason = "" if level == "ok" else f"{name} is {value:.3g}, limit {limit:.3g}"
    return Trust(disagreement, consistency, max(0.0, 1.0 - 0.5 * ratio), level, reason)


class TrustMonitor:
    """Follows one robot, decision by decision. Not safe across threads.

    Args:
        model: the world model that plans.
    """

    def __init__(self, model: WorldModel) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._latent: Tensor | None = None  # (1, L) of the previous decision

    def reset(self) -> None:
        """The next decision has no previous one, as at the start of an episode."""
        self._latent = None

    def assess(
        self,
        observation: NDArray[np.floating[Any]],
        actions: NDArray[np.floating[Any]],
        previous: NDArray[np.floating[Any]] | None,
        task: int | None = None,
        limits: TrustLimits = UNLIMITED,
    ) -> Insight:
        """Look at one decision.

        Args:
            observation: (O,) what was planned on.
            actions: (H, A) the plan, normalised.
            previous: (A,) normalised action of the decision before; None when there was none.
            task: index in a multi-task model.
            limits: what the figures are judged by.
        """
        import torch  # here: control itself needs none

        with torch.inference_mode():
            index = None if task is None else torch.tensor([task], device=self._device)
            return self._assess(observation, actions, previous, index, limits)

    def _assess(
        self,
        observation: NDArray[np.floating[Any]],
        actions: NDArray[np.floating[Any]],
        previous: NDArray[np.floating[Any]] | None,
        index: Tensor | None,
        limits: TrustLimits,
    ) -> Insight:
        model = self._model
        z = now = model.encode(self._tensor(observation)[None], index)
        consistency = math.nan
        if previous is not None and self._latent is not None:
            predicted = model.next(self._latent, self._tensor(previous)[None], index)
            consistency = float((predicted - z).square().mean())
        self._latent = z
        reward, termination = math.nan, math.nan
        for step, action in enumerate(self._tensor(actions)[:, None]):
            if step == 0:
                reward = float(model.reward(z, action, index))
            z = model.next(z, action, index)
            if step == 0 and model.config.episodic:
                termination = float(model.termination(z, index))
        heads = model.q_values(z, model.policy(z, index).mean, index)
        trust = judge(float(heads.std(0, correction=0)), consistency, limits)
        return Insight(trust, now[0].cpu().numpy(), reward, termination)

    def _tensor(self, values: NDArray[np.floating[Any]]) -> Tensor:
        import torch

        return torch.as_tensor(np.asarray(values, np.float32), device=self._device)
