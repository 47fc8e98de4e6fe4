"""What keeps a search near the policy prior, where the model was trained: costs, and a gate on its result."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tdmpc2_core.config import check_fields, setting


@dataclass(frozen=True)
class TrustRegion:
    """Off by default, as in the paper. Field metadata: unit and reason.

    The gate's measure is the spread of the error of predicted gains, which benchmarks/branch_ranking.py finds
    for a bundle (`sigma_D`).
    """

    distance_cost: float = setting(
        0.0,
        low=0,
        unit="return / action^2",
        why="of a plan's squared distance from the prior's mode, mean over entries, summed over decisions",
    )
    disagreement_cost: float = setting(
        0.0, low=0, unit="dimensionless", why="value heads' standard deviations off the value of the end"
    )
    gate: float = setting(
        0.0, low=0, unit="return", why="the prior acts unless the plan promises this much more; 0: no gate"
    )
    valued_mode: bool = setting(
        False, why="the end of a plan is valued at the prior's mode, not at a sample: plans compare alike"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def needs_mode(self) -> bool:
        """Whether the prior's mode is compared with."""
        return self.distance_cost > 0.0 or self.gate > 0.0

    def distance(self, actions: Tensor, mode: Tensor) -> Tensor:
        """Cost (B, N) of plans (H, B, N, A) away from the prior's mode (H, B, A)."""
        return self.distance_cost * (actions - mode.unsqueeze(2)).square().mean(3).sum(0)
