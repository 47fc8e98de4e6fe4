"""Settings of the learner as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from .actor import ActorOptions
from .losses import LossWeights

PRECISIONS = ("float32", "bfloat16")


def _option(default: Any, unit: str, why: str) -> Any:
    return field(default=default, metadata={"unit": unit, "why": why})


@dataclass(frozen=True)
class LearnerConfig:
    """One gradient step of TD-MPC2; the defaults are the paper's. Field metadata: unit and reason.

    Raises ValueError on values that cannot work.
    """

    horizon: int = _option(3, "decisions", "length of the latent rollout that is trained")
    n_step: int = _option(
        1, "decisions", "rewards summed before the bootstrap; 1 is the paper, 3 learns faster early"
    )
    batch_size: int = _option(256, "windows", "windows per update")
    discount: float = _option(0.99, "per decision", "see returns.discount_for")
    task_discounts: tuple[float, ...] = _option((), "per decision", "one per task; empty: `discount` for all")
    rho: float = _option(0.5, "per decision", "decay of the loss weights along the rollout")
    consistency_coef: float = _option(20.0, "dimensionless", "weight of the latent prediction error")
    reward_coef: float = _option(0.1, "dimensionless", "weight of the reward cross entropy")
    value_coef: float = _option(0.1, "dimensionless", "weight of the value cross entropy")
    termination_coef: float = _option(1.0, "dimensionless", "weight of the termination cross entropy")
    lr: float = _option(3e-4, "per update", "Adam step of everything but the encoder")
    enc_lr_scale: float = _option(
        0.3, "dimensionless", "the encoder moves slower: its outputs are the targets"
    )
    adam_eps: float = _option(1e-8, "gradient", "Adam epsilon of the world model")
    policy_adam_eps: float = _option(1e-5, "gradient", "Adam epsilon of the policy")
    grad_clip_norm: float = _option(20.0, "gradient norm", "clip of world model and policy, each on its own")
    tau: float = _option(0.01, "per update", "target value heads move by this share; also the running scale")
    actor: ActorOptions = field(
        default_factory=ActorOptions, metadata={"unit": "options", "why": "objective of the policy prior"}
    )
    soft_termination: bool = _option(
        False,
        "flag",
        "policy loss of predicted states weighted by the predicted probability of getting there",
    )
    leak_policy_gradient_to_task: bool = _option(
        True,
        "flag",
        "task embedding also gets the policy loss gradient, at the next step, as in the official code",
    )
    precision: str = _option(
        "float32", "float32 | bfloat16", "matrix products; losses and norms stay float32"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "task_discounts", tuple(self.task_discounts))
        if self.horizon < 1 or self.n_step < 1 or self.batch_size < 1:
            raise ValueError("horizon, n_step and batch_size must be at least 1")
        if not all(0.0 < d <= 1.0 for d in (self.discount, *self.task_discounts)):
            raise ValueError("discount and task_discounts must lie in (0, 1]")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} must be one of {PRECISIONS}")

    @property
    def window(self) -> int:
        """Steps of a window that the learner reads."""
        return self.horizon + self.n_step - 1

    @property
    def loss_weights(self) -> LossWeights:
        """Weights of the world-model losses."""
        return LossWeights(self.consistency_coef, self.reward_coef, self.value_coef, self.termination_coef)

    @classmethod
    def paper(cls, **overrides: Any) -> LearnerConfig:
        """The published algorithm."""
        return cls(**overrides)

    @classmethod
    def robot(cls, **overrides: Any) -> LearnerConfig:
        """For robots: 3-step returns, prior tied to the planner, soft terminations."""
        values: dict[str, Any] = {
            "n_step": 3,
            "actor": ActorOptions(objective="tdmpc_square"),
            "soft_termination": True,
        }
        return cls(**{**values, **overrides})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LearnerConfig:
        """Inverse of `to_dict`. Raises ValueError naming unknown keys."""
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown learner fields {unknown}; accepted are {sorted(known)}")
        actor = values.get("actor", {})
        return cls(**{**values, "actor": actor if isinstance(actor, ActorOptions) else ActorOptions(**actor)})
