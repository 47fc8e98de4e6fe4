"""Whether the model still foretells the robot as it did on good runs, decision by decision. No torch in here.

Residuals of a decision: latents that were foretold 1 and K decisions ago against the encoding of what was
then measured, measured values against what the foretold latent and the commands say of them, and the spread
of the value heads. Each residual and its square are smoothed over time, whitened by their spread on good
runs, and the mean square is compared with a threshold: a multivariate moving average (Lowry et al.,
Technometrics 34, 1992) with a threshold by conformal prediction (Vovk et al., 2005).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tdmpc2_core.checkpoint.trust_calibration import TrustCalibration

Array = NDArray[np.float32]

TINY = 1e-3
"""Added to a smoothed square, whose mean is 1 on good runs, before its logarithm is taken."""

_BOUND = 3.0  # standard deviations that a residual counts with: a stumble is no change of the robot
_RELEASE = 0.8  # share of the threshold below which trust comes back
_PATIENCE = 2.0  # s for which the score has to stay there


class Residuals:
    """Smoothed residuals of N robots, in kept buffers.

    Args:
        residuals: (V, W), keep (T,): see `TrustCalibration`.
        count: N.
    """

    def __init__(self, residuals: Array, keep: Array, count: int = 1) -> None:
        self._map, width, times = residuals, residuals.shape[1], len(keep)
        self._keep = keep.astype(np.float32)[:, None, None]
        self._now = np.empty((2, count, width), np.float32)  # residuals and their squares
        self._part = np.empty((times, 2, count, width), np.float32)
        self._smooth = np.empty_like(self._part)
        self.features = np.empty((times, count, 2 * width), np.float32)
        self.reset()

    def reset(self) -> None:
        """As on good runs: residuals 0, squares 1."""
        self._smooth[:, 0], self._smooth[:, 1] = 0.0, 1.0

    def add(self, inputs: Array) -> Array:
        """Take in (N, V) of one decision; returns features (T, N, 2 W), a kept buffer."""
        now, smooth = self._now, self._smooth
        np.matmul(inputs, self._map, out=now[0])
        np.clip(now[0], -_BOUND, _BOUND, out=now[0])
        np.square(now[0], out=now[1])
        width = now.shape[2]
        for time in range(len(smooth)):
            keep = self._keep[time]
            np.subtract(smooth[time], now, out=self._part[time])
            np.multiply(self._part[time], keep, out=self._part[time])
            np.add(self._part[time], now, out=smooth[time])
            self.features[time, :, :width] = smooth[time, 0]
            log = self.features[time, :, width:]
            np.add(smooth[time, 1], TINY, out=log)
            np.log(log, out=log)
        return self.features


class Inputs:
    """The inputs (N, V) of residuals, put together in a kept buffer.

    In order: 1, logarithm of the heads' spread, measured and known entries now, the same a decision ago,
    the latent, the latents foretold 1 and K decisions ago.
    """

    def __init__(
        self, measured: NDArray[np.int64], known: NDArray[np.int64], latent: int, count: int = 1
    ) -> None:
        self._entries = np.concatenate([measured, known]).astype(np.intp)
        size = len(self._entries)
        ends = np.cumsum([0, 1, 1, size, size, latent, latent, latent]).tolist()
        self.parts = [slice(a, b) for a, b in zip(ends, ends[1:], strict=False)]
        self.values = np.zeros((count, ends[-1]), np.float32)
        self.values[:, 0] = 1.0
        self._newest = np.empty((count, size), np.float32)

    def put(self, observation: Array, spread: Array, latent: Array, one: Array, far: Array) -> Array:
        """Of observations (N, O), spreads (N,) and latents (N, L) each. Returns the buffer (N, V)."""
        _, heads, now, before, *latents = self.parts
        self.values[:, before] = self.values[:, now]
        np.take(observation, self._entries, axis=1, out=self._newest)
        self.values[:, now] = self._newest
        column = self.values[:, heads]
        np.add(spread[:, None], 1e-4, out=column)
        np.log(column, out=column)
        for part, values in zip(latents, (latent, one, far), strict=True):
            self.values[:, part] = values
        return self.values


def mean_square(features: Array, centre: Array, whiten: Array) -> Array:
    """(T, N) mean square of whitened features (T, N, 2 W)."""
    white = np.matmul(features - centre[:, None], whiten)
    return np.square(white).mean(-1)


class TrustGate:
    """The score of one robot and whether it is trusted. `add` allocates nothing.

    Attributes:
        score: largest mean square over the threshold: trust ends above 1. NaN before the first figures.
        open: whether the model is trusted.
    """

    def __init__(self, calibration: TrustCalibration, latent: int, period: float) -> None:
        self._c = calibration
        self._inputs = Inputs(calibration.measured, calibration.known, latent)
        self._residuals = Residuals(calibration.residuals, calibration.keep)
        self._limit = 1.0 / (float(calibration.threshold[0]) * calibration.unit)
        self._centre = calibration.centre[:, None]
        self._off, self._white = (np.empty_like(self._centre) for _ in range(2))
        self._spread = np.empty(1, np.float32)
        self.horizon = int(calibration.horizon[0])
        self._patience = round(_PATIENCE / period)
        self.reset()

    def reset(self) -> None:
        """A new episode: trusted, nothing seen."""
        self._residuals.reset()
        self._seen = self._calm = 0
        self.score, self.open = math.nan, True

    def interrupt(self) -> None:
        """A decision was not seen: what was foretold before it is of no use, the score stands."""
        self._seen = 0

    def add(self, observation: NDArray[Any], spread: float, latent: Array, one: Array, far: Array) -> bool:
        """Take in a decision; returns `open`.

        Args:
            observation: (O,), spread: of the value heads, reward units.
            latent: (L,) its encoding; one, far: (L,) foretold for it 1 and K decisions ago; whatever they
                are, they count from the K + 1st decision on.
        """
        self._spread[0] = spread
        inputs = self._inputs.put(observation[None], self._spread, latent[None], one[None], far[None])
        self._seen += 1
        if self._seen <= self.horizon:
            return self.open
        features = self._residuals.add(inputs)
        np.subtract(features, self._centre, out=self._off)
        np.matmul(self._off, self._c.whiten, out=self._white)
        width, score = self._white.shape[-1], 0.0
        for row, limit in zip(self._white, self._limit, strict=True):
            score = max(float(np.vdot(row, row)) / width * float(limit), score)  # the first one where NaN
        self.score = score if math.isfinite(score) else math.inf
        self._switch()
        return self.open

    def _switch(self) -> None:
        """Trust ends at once, and comes back after a while below the threshold."""
        if self.score > 1.0:
            self.open, self._calm = False, 0
        elif not self.open:
            self._calm = self._calm + 1 if self.score < _RELEASE else 0
            self.open = self._calm >= self._patience
