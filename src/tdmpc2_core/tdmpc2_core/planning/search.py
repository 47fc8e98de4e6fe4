"""`Search`: where a sampling search ended, for those that go on from there."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Search(NamedTuple):
    """Where a search for B robots ended: K elites, N candidates, H steps.

    Attributes:
        latent: (B, L) present latents.
        elites: (H, B, K, A) best candidates of the last iteration, best first; None without an iteration.
        weight: (B, K) their weights; None without an iteration.
        mean, std: (H, B, A) the last Gaussian.
        value: (B,) its predicted return, NaN without an iteration.
        ended_by: converged | budget | deadline.
        trace: values (B, N) of every iteration's candidates.
    """

    latent: Tensor
    elites: Tensor | None
    weight: Tensor | None
    mean: Tensor
    std: Tensor
    value: Tensor
    ended_by: str
    trace: tuple[Tensor, ...]
