"""Running range of the values, which makes the policy loss independent of the reward scale."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def _percentile(ordered: Tensor, percent: float) -> Tensor:
    position = percent * (ordered.shape[0] - 1) / 100.0
    lower = int(position)
    upper = min(lower + 1, ordered.shape[0] - 1)
    return torch.lerp(ordered[lower], ordered[upper], position - lower)


class RunningScale:
    """Moving average of the 5 %..95 % range of what `update` is given, at least 1. Starts at 1.

    value (): the current scale. tau: share of the new range per update.
    """

    def __init__(self, tau: float, device: torch.device | str = "cpu") -> None:
        self.tau = tau
        self.value = torch.ones((), device=device)

    @torch.no_grad()
    def update(self, sample: Tensor) -> Tensor:
        """Fold in the range of `sample` (any shape); returns the new value ()."""
        ordered = sample.detach().flatten().float().sort().values
        spread = (_percentile(ordered, 95.0) - _percentile(ordered, 5.0)).clamp(min=1.0)
        return self.value.lerp_(spread, self.tau)

    def state_dict(self) -> dict[str, Any]:
        """{"value": tensor ()}."""
        return {"value": self.value.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.value.copy_(state["value"])
