"""Settings of the learner as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tdmpc2_core.config import check_fields, setting
from tdmpc2_core.learning.actor import ActorOptions
from tdmpc2_core.learning.losses import LossWeights
from tdmpc2_core.model.kernels import KERNELS_WHY, KernelChoice


@dataclass(frozen=True)
class LearnerConfig:
    """One gradient step of TD-MPC2; the defaults are the paper's. Field metadata: unit and reason.

    Raises ValueError on values that cannot work.
    """

    horizon: int = setting(3, low=1, unit="decisions", why="length of the latent rollout that is trained")
    n_step: int = setting(
        1,
        low=1,
        unit="decisions",
        why="rewards summed before the bootstrap; 1 is the paper, 3 learns faster early",
    )
    batch_size: int = setting(256, low=1, unit="windows", why="windows per update")
    discount: float = setting(0.99, above=0, high=1, unit="per decision", why="see returns.discount_for")
    task_discounts: tuple[float, ...] = setting(
        (), above=0, high=1, unit="per decision", why="one per task; empty: `discount` for all"
    )
    rho: float = setting(0.5, unit="per decision", why="decay of the loss weights along the rollout")
    consistency_coef: float = setting(20.0, unit="dimensionless", why="weight of the latent prediction error")
    reward_coef: float = setting(0.1, unit="dimensionless", why="weight of the reward cross entropy")
    value_coef: float = setting(0.1, unit="dimensionless", why="weight of the value cross entropy")
    termination_coef: float = setting(
        1.0, unit="dimensionless", why="weight of the termination cross entropy"
    )
    imitation_coef: float = setting(
        0.0,
        low=0,
        unit="1/action^2",
        why="weight of the policy's distance from stored plans in the world-model loss; 0 is the paper",
    )
    imitation_tolerance: float = setting(
        0.05, above=0, unit="action", why="distance beyond which a stored plan pulls less and less there"
    )
    lr: float = setting(3e-4, unit="per update", why="Adam step of everything but the encoder")
    enc_lr_scale: float = setting(
        0.3, unit="dimensionless", why="the encoder moves slower: its outputs are the targets"
    )
    adam_eps: float = setting(1e-8, unit="gradient", why="Adam epsilon of the world model")
    policy_adam_eps: float = setting(1e-5, unit="gradient", why="Adam epsilon of the policy")
    grad_clip_norm: float = setting(
        20.0, unit="gradient norm", why="clip of world model and policy, each on its own"
    )
    tau: float = setting(
        0.01, unit="per update", why="target value heads move by this share; also the running scale"
    )
    actor: ActorOptions = setting(factory=ActorOptions, why="objective of the policy prior")
    soft_termination: bool = setting(
        False,
        why="policy loss of predicted states weighted by the predicted probability of getting there",
    )
    leak_policy_gradient_to_task: bool = setting(
        True,
        why="task embedding also gets the policy loss gradient, at the next step, as in the official code",
    )
    kernels: KernelChoice = setting("auto", why=KERNELS_WHY)
    precision: Literal["float32", "bfloat16"] = setting(
        "float32", why="matrix products; losses and norms stay float32"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def window(self) -> int:
        """Steps of a window that the learner reads."""
        return self.horizon + self.n_step - 1

    @property
    def loss_weights(self) -> LossWeights:
        """Weights of the world-model losses."""
        return LossWeights(
            self.consistency_coef,
            self.reward_coef,
            self.value_coef,
            self.termination_coef,
            self.imitation_coef,
            self.imitation_tolerance,
        )
