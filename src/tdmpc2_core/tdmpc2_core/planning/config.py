"""`PlannerConfig`: every planner setting with its unit and reason, and the named presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

MANY_ACTIONS = 20  # the paper plans two iterations longer from this action dimension on


def _setting(default: Any, unit: str, why: str) -> Any:
    return field(default=default, metadata={"unit": unit, "why": why})


@dataclass(frozen=True)
class PlannerConfig:
    """MPPI settings. The defaults are the paper's search with the weighted mean in evaluation.

    Raises:
        ValueError: a value outside its range; the sentence names the field.
    """

    method: str = _setting("mppi", "mppi | policy", "policy acts with the prior alone: no search, least time")
    horizon: int = _setting(3, "decisions", "the value head covers what lies beyond; longer rollouts drift")
    num_samples: int = _setting(512, "candidates", "population per iteration, policy trajectories included")
    num_elites: int = _setting(64, "candidates", "best candidates that shape the next Gaussian")
    num_pi_trajs: int = _setting(24, "candidates", "policy-prior trajectories that compete in every iteration")
    iterations: int = _setting(6, "iterations", "refinements of the Gaussian")
    min_std: float = _setting(0.05, "normalised action", "keeps the search from collapsing")
    max_std: float = _setting(2.0, "normalised action", "spread of the first iteration and upper bound of all")
    temperature: float = _setting(0.5, "1 / return", "sharpness of the elite weights")
    evaluation: str = _setting("mean", "mean | sample", "mean: elite-weighted action, repeatable; sample: the paper")
    prior_weight: float = _setting(0.0, "0..1", "share of the policy trajectories' mean and std in the first Gaussian")
    reuse_prior_values: bool = _setting(False, "yes/no", "score policy trajectories once per plan, not per iteration")
    soft_termination: bool = _setting(False, "yes/no", "discount by survival probability, not by a 0.5 threshold")
    tolerance: float = _setting(0.0, "normalised action", "stop once the first mean action moves less; 0 = never")

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
            ("prior_weight", self.prior_weight == 0 or self.num_pi_trajs > 1, "0 without policy trajectories"),
            ("tolerance", self.tolerance >= 0, "at least 0"),
        )
        for name, valid, expected in rules:
            if not valid:
                raise ValueError(f"planner setting {name} is {getattr(self, name)!r}, must be {expected}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PlannerConfig:
        """Inverse of `to_dict`.

        Raises:
            ValueError: an unknown field, a field of the wrong type, or a value outside its range.
        """
        known = {f.name: f for f in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"unknown planner setting {name!r}; accepted: {', '.join(known)}")
            wanted = type(known[name].default)
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                raise ValueError(f"planner setting {name} is {value!r}, must be of type {wanted.__name__}")
        return cls(**values)


PLANNER_PRESETS: dict[str, PlannerConfig] = {
    "paper": PlannerConfig(evaluation="sample"),
    "large": PlannerConfig(),
    "medium": PlannerConfig(num_samples=256, num_elites=32, iterations=3, reuse_prior_values=True),
    "small": PlannerConfig(num_samples=128, num_elites=16, iterations=3, reuse_prior_values=True),
    "tiny": PlannerConfig(num_samples=64, num_elites=8, iterations=2, reuse_prior_values=True),
    "policy": PlannerConfig(method="policy"),
}


def planner_preset(name: str, action_dim: int = 0) -> PlannerConfig:
    """Named preset: paper and large 512x6, medium 256x3, small 128x3, tiny 64x2 (samples x iterations), policy.

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
