"""`PlannerConfig`: every planner setting with its unit and reason, and the named presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tdmpc2_core.config import from_mapping, setting

MANY_ACTIONS = 20  # the paper plans two iterations longer from this action dimension on

_ACTION = "normalised action"
_METHOD = "mppi searches with the world model; policy acts with the prior alone, in the least time"
_EVALUATION = "mean: the elite-weighted action, repeatable; sample: one elite drawn by weight, the paper"


@dataclass(frozen=True)
class PlannerConfig:
    """MPPI settings. The defaults are the paper's search with the weighted mean in evaluation.

    Raises:
        ValueError: a value outside its range; the sentence names the field.
    """

    method: Literal["mppi", "policy"] = setting("mppi", why=_METHOD)
    horizon: int = setting(
        3, unit="decisions", why="the value head covers what lies beyond; longer rollouts drift"
    )
    num_samples: int = setting(
        512, unit="candidates", why="population per iteration, policy trajectories included"
    )
    num_elites: int = setting(64, unit="candidates", why="best candidates, which shape the next Gaussian")
    num_pi_trajs: int = setting(
        24, unit="candidates", why="policy-prior trajectories competing in every iteration"
    )
    iterations: int = setting(6, unit="iterations", why="refinements of the Gaussian")
    min_std: float = setting(0.05, unit=_ACTION, why="keeps the search from collapsing")
    max_std: float = setting(2.0, unit=_ACTION, why="spread of the first iteration, upper bound of all")
    temperature: float = setting(0.5, unit="1 / return", why="sharpness of the elite weights")
    evaluation: Literal["mean", "sample"] = setting("mean", why=_EVALUATION)
    prior_weight: float = setting(
        0.0, why="share of the policy trajectories' mean and spread in the first Gaussian"
    )
    reuse_prior_values: bool = setting(
        False, why="score policy trajectories once per plan, not once per iteration"
    )
    soft_termination: bool = setting(False, why="discount by survival probability, not by a threshold at 0.5")
    tolerance: float = setting(
        0.0, unit=_ACTION, why="stop when the first mean action moves less; 0 never stops"
    )

    def __post_init__(self) -> None:
        rules = (
            ("method", self.method in ("mppi", "policy"), "mppi or policy"),
            ("evaluation", self.evaluation in ("mean", "sample"), "mean or sample"),
            ("horizon", self.horizon >= 1, "at least 1"),
            ("iterations", self.iterations >= 1, "at least 1"),
            ("num_pi_trajs", 0 <= self.num_pi_trajs < self.num_samples, "at least 0 and below num_samples"),
            ("num_elites", 1 <= self.num_elites <= self.num_samples, "between 1 and num_samples"),
            ("min_std", 0 < self.min_std <= self.max_std, "above 0 and at most max_std"),
            ("temperature", self.temperature > 0, "above 0"),
            ("prior_weight", 0 <= self.prior_weight <= 1, "between 0 and 1"),
            (
                "prior_weight",
                self.prior_weight == 0 or self.num_pi_trajs > 1,
                "0 without policy trajectories",
            ),
            ("tolerance", self.tolerance >= 0, "at least 0"),
        )
        for name, valid, expected in rules:
            if not valid:
                raise ValueError(f"planner setting {name} is {getattr(self, name)!r}, must be {expected}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "planner settings") -> PlannerConfig:
        """Inverse of `to_dict`.

        Raises:
            UserError: an unknown field, a field of the wrong type, or a value outside its range.
        """
        return from_mapping(cls, values, where)


PLANNER_PRESETS: dict[str, PlannerConfig] = {
    "paper": PlannerConfig(evaluation="sample"),
    "large": PlannerConfig(),
    "medium": PlannerConfig(num_samples=256, num_elites=32, iterations=3, reuse_prior_values=True),
    "small": PlannerConfig(num_samples=128, num_elites=16, iterations=3, reuse_prior_values=True),
    "tiny": PlannerConfig(num_samples=64, num_elites=8, iterations=2, reuse_prior_values=True),
    "policy": PlannerConfig(method="policy"),
}


def planner_preset(name: str, action_dim: int = 0) -> PlannerConfig:
    """Preset: paper and large 512x6 (samples x iterations), medium 256x3, small 128x3, tiny 64x2, policy.

    `paper` and `large` plan two iterations more for action_dim >= 20, as the paper does.

    Raises:
        ValueError: unknown name.
    """
    if name not in PLANNER_PRESETS:
        raise ValueError(f"unknown planner preset {name!r}; accepted: {', '.join(PLANNER_PRESETS)}")
    config = PLANNER_PRESETS[name]
    if name in ("paper", "large") and action_dim >= MANY_ACTIONS:
        return replace(config, iterations=config.iterations + 2)
    return config
