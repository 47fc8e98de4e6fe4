"""`PlannerConfig`: every planner setting with its unit and reason; the presets; `make_planner`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from tdmpc2_core.config import check_fields, setting
from tdmpc2_core.model.kernels import KERNELS_WHY, KernelChoice
from tdmpc2_core.planning.costs import Costs
from tdmpc2_core.planning.gradient import GradientConfig
from tdmpc2_core.planning.registry import PLANNERS
from tdmpc2_core.planning.trust_region import TrustRegion

if TYPE_CHECKING:
    import torch

    from tdmpc2_core.imagine.rollout import Discount
    from tdmpc2_core.model.world_model import WorldModel
    from tdmpc2_core.planning.protocol import Planner


_MOST_DECISIONS = 1 << 20  # of all candidates: about 10 GB of latent states
MANY_ACTIONS = 20  # the paper plans two iterations longer from this action dimension on

_ACTION = "normalised action"
_METHOD = "; ".join(f"{name} {planner.summary}" for name, planner in PLANNERS.items())
_EVALUATION = "mean: the elite-weighted action, repeatable; sample: one elite drawn by weight, the paper"


@dataclass(frozen=True)
class PlannerConfig:
    """Planner settings. The defaults are the paper's search with the weighted mean in evaluation.

    The search fields serve mppi and mppi+gradient. The method gradient uses horizon, min_std, max_std,
    temperature (of the spread), soft_termination, tolerance and the section `gradient`.

    Raises:
        ValueError: a value outside its range; the sentence names the field.
    """

    RETIRED: ClassVar = {"score": ("terminal", "depth_average")}

    method: str = setting("mppi", accepted=PLANNERS, why=_METHOD)
    horizon: int = setting(
        3,
        low=1,
        high=1000,
        unit="decisions",
        why="the value head covers what lies beyond; longer rollouts drift",
    )
    num_samples: int = setting(
        512, high=65536, unit="candidates", why="population per iteration, policy trajectories included"
    )
    num_elites: int = setting(
        64, low=1, unit="candidates", why="best candidates, which shape the next Gaussian"
    )
    num_pi_trajs: int = setting(
        24, low=0, unit="candidates", why="policy-prior trajectories competing in every iteration"
    )
    iterations: int = setting(6, low=1, high=1000, unit="iterations", why="refinements of the Gaussian")
    min_std: float = setting(0.05, above=0, unit=_ACTION, why="keeps the search from collapsing")
    max_std: float = setting(2.0, unit=_ACTION, why="spread of the first iteration, upper bound of all")
    noise_correlation: float = setting(
        0.0,
        low=0,
        below=1,
        why="of a candidate's noise from decision to decision; 0 is the paper, more moves a robot further",
    )
    temperature: float = setting(0.5, above=0, unit="1 / return", why="sharpness of the elite weights")
    evaluation: Literal["mean", "sample"] = setting("mean", why=_EVALUATION)
    prior_weight: float = setting(
        0.0, low=0, high=1, why="share of the policy trajectories' mean and spread in the first Gaussian"
    )
    reuse_prior_values: bool = setting(
        False, why="score policy trajectories once per plan, not once per iteration"
    )
    kernels: KernelChoice = setting("auto", why=KERNELS_WHY)
    soft_termination: bool = setting(False, why="discount by survival probability, not by a threshold at 0.5")
    augment_pixels: bool = setting(
        False, why="random image shift while planning from pixels too, as the official code does"
    )
    tolerance: float = setting(
        0.0, low=0, unit=_ACTION, why="stop when the first mean action moves less; 0 never stops"
    )
    trust_region: TrustRegion = setting(factory=TrustRegion, why="how far mppi may leave the policy prior")
    costs: Costs = setting(factory=Costs, why="at plan time, of mppi; see set_costs of the agent")
    gradient: GradientConfig = setting(factory=GradientConfig, why="ascent of gradient and mppi+gradient")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.num_samples * self.horizon > _MOST_DECISIONS:
            raise ValueError(
                f"num_samples x horizon ({self.num_samples} x {self.horizon}) must be at most "
                f"{_MOST_DECISIONS}: memory grows with it"
            )
        if self.num_pi_trajs >= self.num_samples:
            raise ValueError(
                f"num_pi_trajs ({self.num_pi_trajs}) must be below num_samples ({self.num_samples})"
            )
        if self.num_elites > self.num_samples:
            raise ValueError(
                f"num_elites ({self.num_elites}) must be at most num_samples ({self.num_samples})"
            )
        if self.min_std > self.max_std:
            raise ValueError(f"min_std ({self.min_std:g}) must be at most max_std ({self.max_std:g})")
        if self.trust_region.needs_mode and not self.num_pi_trajs:
            raise ValueError("trust_region needs the prior's mode: num_pi_trajs must be at least 1")
        if self.prior_weight and self.num_pi_trajs < 2:
            raise ValueError(f"prior_weight must be 0 with num_pi_trajs below 2, got {self.prior_weight:g}")

    @property
    def summary(self) -> str:
        """Method and budget in a few words, such as `mppi 96 samples x 2`."""
        return PLANNERS[self.method].budget(self)


PLANNER_PRESETS: dict[str, PlannerConfig] = {
    "paper": PlannerConfig(evaluation="sample", augment_pixels=True),
    "large": PlannerConfig(),
    "medium": PlannerConfig(num_samples=256, num_elites=32, iterations=3, reuse_prior_values=True),
    "small": PlannerConfig(num_samples=128, num_elites=16, iterations=3, reuse_prior_values=True),
    "tiny": PlannerConfig(num_samples=64, num_elites=8, iterations=2, reuse_prior_values=True),
    "policy": PlannerConfig(method="policy"),
    "gradient": PlannerConfig(method="gradient", horizon=8),
    "mppi+gradient": PlannerConfig(
        method="mppi+gradient", num_samples=64, num_elites=8, iterations=1, reuse_prior_values=True
    ),
}


def planner_preset(name: str, action_dim: int = 0) -> PlannerConfig:
    """Preset: paper and large 512x6 (samples x iterations), medium 256x3, small 128x3, tiny 64x2, policy,
    gradient (horizon 8), mppi+gradient (64x1, then the ascent).

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


def make_planner(
    model: WorldModel, config: PlannerConfig, discount: Discount, generator: torch.Generator
) -> Planner:
    """The planner that `config.method` names. `generator` lies on the model's device."""
    return PLANNERS[config.method](model, config, discount, generator)
