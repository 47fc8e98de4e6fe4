"""How far a world model can be trusted at present, from the model alone.

Two figures, each against a limit that was measured where the model is known to work, and where the bundle was
calibrated the score of `control.gate`:

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
from tdmpc2_core.control.gate import TrustGate

if TYPE_CHECKING:
    from torch import Tensor

    from tdmpc2_core.checkpoint.trust_calibration import TrustCalibration
    from tdmpc2_core.imagine.compiled import CompiledModel
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

SCORE = "departure from good runs"
"""What the gate's score is called."""


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
        score: of the calibrated gate, 1 its threshold; NaN without one.
        trusted: False from a score above 1 until it has stayed below for a while.
    """

    disagreement: float
    consistency: float
    trust: float
    level: str
    reason: str
    score: float = math.nan
    trusted: bool = True


@dataclass(frozen=True)
class Insight:
    """One decision as the model sees it; reward in reward units per decision, termination in 0..1."""

    trust: Trust
    latent: NDArray[np.float32]  # (L,)
    reward: float
    termination: float


def judge(
    disagreement: float,
    consistency: float,
    limits: TrustLimits,
    score: float = math.nan,
    trusted: bool = True,
) -> Trust:
    """`Trust` of its figures. NaN of `consistency` or `score` says that there is none yet; any other figure
    that is not finite is above every limit.
    """
    figures = [("disagreement of the value heads", disagreement, limits.disagreement)]
    if not math.isnan(consistency):
        figures.append(("latent prediction error", consistency, limits.consistency))
    if not math.isnan(score):
        figures.append((SCORE, score, 1.0))
    ratios = {
        name: (value / limit if math.isfinite(value) else math.inf, value, limit)
        for name, value, limit in figures
        if limit > 0.0
    }
    if not ratios:
        return Trust(disagreement, consistency, math.nan, "ok", "", score, trusted)
    name, (ratio, value, limit) = max(ratios.items(), key=lambda item: item[1][0])
    level = "error" if ratio > 1.0 or not trusted else "warn" if ratio >= _NEAR else "ok"
    if not trusted and ratio <= 1.0:
        name, value, limit = SCORE, score, 1.0
    reason = "" if level == "ok" else f"{name} is {value:.3g}, limit {limit:.3g}"
    return Trust(disagreement, consistency, max(0.0, 1.0 - 0.5 * ratio), level, reason, score, trusted)


class TrustMonitor:
    """Follows one robot, decision by decision. Not safe across threads but for `trusted` and `trust_again`.

    Args:
        model: the world model that plans.
        calibration: where trust ends; None: nothing but limits does.
        period: s between decisions.

    Attributes:
        trusted: False while the calibrated gate says that the model foretells the robot no longer.
    """

    def __init__(
        self, model: WorldModel, calibration: TrustCalibration | None = None, period: float = 0.02
    ) -> None:
        from tdmpc2_core.imagine.compiled import compiled_model  # here: control itself needs no torch

        self._model, self._compiled = model, compiled_model(model, "auto")
        self._device = next(model.parameters()).device
        latent = model.config.latent_dim
        self.gate = None if calibration is None else TrustGate(calibration, latent, period)
        self._foretold: Tensor | None = None  # (K, L) for the next decision, from 1 .. K decisions ago
        self._number, self._again, self.trusted = -1, False, True

    def reset(self) -> None:
        """The next decision has no previous one, as at the start of an episode."""
        self._foretold = None
        if self.gate is not None:
            self.gate.reset()
        self.trusted = True

    def trust_again(self) -> None:
        """Somebody else says that the robot may go on: what was seen before is forgotten."""
        self._again, self.trusted = True, True

    def assess(
        self,
        observation: NDArray[np.floating[Any]],
        actions: NDArray[np.floating[Any]],
        previous: NDArray[np.floating[Any]] | None,
        task: int | None = None,
        limits: TrustLimits = UNLIMITED,
        number: int | None = None,
    ) -> Insight:
        """Look at one decision.

        Args:
            observation: (O,) what was planned on.
            actions: (H, A) the plan, normalised.
            previous: (A,) normalised action of the decision before; None when there was none.
            task: index in a multi-task model.
            limits: what the figures are judged by.
            number: of the decision, where some may have been left out; None: it follows the last one.
        """
        import torch

        if self._again:
            self._again = False
            self.reset()
        follows = number is None or number == self._number + 1
        self._number = self._number + 1 if number is None else number
        with torch.inference_mode():
            index = None if task is None else torch.tensor([task], device=self._device)
            return self._assess(observation, actions, previous if follows else None, index, limits)

    def _assess(
        self,
        observation: NDArray[np.floating[Any]],
        actions: NDArray[np.floating[Any]],
        previous: NDArray[np.floating[Any]] | None,
        index: Tensor | None,
        limits: TrustLimits,
    ) -> Insight:
        compiled = self._compiled
        model = self._model if compiled is None or not compiled.refresh() else compiled
        z = now = model.encode(self._tensor(observation)[None], index)
        foretold = self._foretell(model, previous, index)
        consistency = math.nan if foretold is None else float((foretold[0] - z[0]).square().mean())
        self._look(model, observation, z, foretold)
        reward, termination = math.nan, math.nan
        for step, action in enumerate(self._tensor(actions)[:, None]):
            if step == 0:
                reward = float(model.reward(z, action, index))
            z = model.next(z, action, index)
            if step == 0 and self._model.config.episodic:
                termination = float(self._model.termination(z, index))
        heads = model.q_values(z, model.policy(z, index).mean, index)
        gate = self.gate
        score = math.nan if gate is None else gate.score
        trust = judge(float(heads.std(0, correction=0)), consistency, limits, score, self.trusted)
        return Insight(trust, now[0].cpu().numpy(), reward, termination)

    def _foretell(
        self,
        model: WorldModel | CompiledModel,
        previous: NDArray[np.floating[Any]] | None,
        index: Tensor | None,
    ) -> Tensor | None:
        """(K, L), what was foretold for this decision 1 .. K decisions ago; None where there is none."""
        starts, self._foretold = self._foretold, None
        if previous is None or starts is None:
            if self.gate is not None:
                self.gate.interrupt()
            return None
        action = self._tensor(previous)[None].expand(len(starts), -1)
        return model.next(starts, action, None if index is None else index.expand(len(starts)))

    def _look(
        self,
        model: WorldModel | CompiledModel,
        observation: NDArray[np.floating[Any]],
        z: Tensor,
        foretold: Tensor | None,
    ) -> None:
        """Let the gate judge the decision at z (1, L), and start another forecast from it."""
        gate = self.gate
        if gate is None:
            self._foretold = z
            return
        before = z.expand(gate.horizon, -1) if foretold is None else foretold
        spread = float(model.q_values(z, model.policy(z).mean).std(0, correction=0))
        latents = (z[0].cpu().numpy(), before[0].cpu().numpy(), before[-1].cpu().numpy())
        trusted = gate.add(np.asarray(observation, np.float32), spread, *latents)
        self.trusted = trusted or self._again
        kept = before.roll(1, 0)  # what begins K decisions ago has been judged
        kept[0] = z[0]
        self._foretold = kept

    def _tensor(self, values: NDArray[np.floating[Any]]) -> Tensor:
        import torch

        return torch.as_tensor(np.asarray(values, np.float32), device=self._device)
