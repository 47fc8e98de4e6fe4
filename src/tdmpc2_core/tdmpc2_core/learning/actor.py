"""Objectives of the policy prior: value maximisation, alone or tied to the planner or to the data.

Every objective maps `ActorInputs` to a loss per state (T, B, 1), T = horizon + 1. The learner weighs it with
rho^t and takes the mean. Terms that use a plan cover the first `horizon` states and are zero where no plan
was stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tdmpc2_core.config import check_fields, setting
from tdmpc2_core.model import PolicySample
from tdmpc2_core.model.distributions import gaussian_kl, gaussian_log_density, student_log_density


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


OBJECTIVES: dict[str, Objective] = {}
"""Objectives by name; `objective` adds the row of a function. Settings accept these names."""


@dataclass(frozen=True)
class ActorOptions:
    """Choice of the objective and its constants. Field metadata: unit and reason."""

    objective: str = setting("max_q", accepted=OBJECTIVES, why="what the policy prior is trained for")
    entropy: Literal["scaled", "squashed"] = setting(
        "scaled",
        why="official Gaussian bonus times action dims, or the true entropy",
    )
    entropy_coef: float = setting(1e-4, unit="1/nat", why="weight of the entropy bonus")
    plan_weight: float | None = setting(
        None, unit="dimensionless", why="weight of the plan term; None takes the rule of the method"
    )
    plan_min_std: float = setting(0.05, unit="action", why="floor of the standard deviations in plan terms")
    plan_freedom: float | None = setting(
        None,
        above=0,
        unit="degrees of freedom",
        why="tdmpc_square: plans are scored by a Student t, whose tails forgive what nothing explains; "
        "None: by the method's Gaussian",
    )
    scale_threshold: float = setting(
        2.0, unit="return", why="plan terms are off while the value range is at or below it; 0 keeps them on"
    )
    bc_weight: float = setting(1.0, unit="dimensionless", why="weight of the data term of bc")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ActorInputs:
    """What an objective may use. T = H + 1 states per window, A actions.

    sample: policy sample at every state, reparameterised. q (T, B, 1) or None: value of its action, reduced
    over heads. scale (): running range of q, at least 1. kl_scale (): running range of the plan divergence,
    at least 1. action (H, B, A): actions of the data. valid (H, B, 1). action_mask (B, A) or None. plan_mean,
    plan_std (H, B, A), plan_mask (H, B, 1): the stored plans, or None.
    """

    sample: PolicySample
    q: Tensor | None
    scale: Tensor
    kl_scale: Tensor
    action: Tensor
    valid: Tensor
    action_mask: Tensor | None = None
    plan_mean: Tensor | None = None
    plan_std: Tensor | None = None
    plan_mask: Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """A row of `OBJECTIVES`.

    Attributes:
        loss: per state (T, B, 1), T = horizon + 1.
        heads: how the two value heads are combined, mean or min; None where no value is used.
        needs_plan: whether it reads the stored plans.
    """

    loss: Callable[[ActorInputs, ActorOptions], Tensor]
    heads: Literal["mean", "min"] | None
    needs_plan: bool

    @property
    def summary(self) -> str:
        """The first line of the function's text."""
        return (self.loss.__doc__ or "").strip().partition("\n")[0]


Loss = Callable[[ActorInputs, ActorOptions], Tensor]


def objective(heads: Literal["mean", "min"] | None, needs_plan: bool = False) -> Callable[[Loss], Loss]:
    """Makes a function the objective of its name; arguments as for `Objective`."""

    def register(loss: Loss) -> Loss:
        OBJECTIVES[loss.__name__] = Objective(loss, heads, needs_plan)
        return loss

    return register


def _entropy(sample: PolicySample, options: ActorOptions) -> Tensor:
    return options.entropy_coef * (sample.scaled_entropy if options.entropy == "scaled" else sample.entropy)


def _plan_distribution(inputs: ActorInputs, options: ActorOptions) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, floored std (H, B, A) and mask (H, B, 1) of the stored plans; harmless where there is none."""
    mean, std, mask = inputs.plan_mean, inputs.plan_std, inputs.plan_mask
    if mean is None or std is None or mask is None:
        raise ValueError("this actor objective needs plan_mean, plan_std and has_plan in the batch")
    held = mask > 0
    std = torch.where(held, std, 1.0).clamp(min=options.plan_min_std)
    return torch.where(held, mean, 0.0), std, mask


def _open_gate(inputs: ActorInputs, options: ActorOptions) -> Tensor:
    return (inputs.scale > options.scale_threshold).to(inputs.scale.dtype)


def _add(base: Tensor, term: Tensor) -> Tensor:
    """base (T, B, 1) plus term (H, B, 1) on the first H states."""
    horizon = term.shape[0]
    return torch.cat([base[:horizon] + term, base[horizon:]])


@objective(heads="mean")
def max_q(inputs: ActorInputs, options: ActorOptions) -> Tensor:
    """-(entropy bonus + q / scale): the objective of the TD-MPC2 paper (eq. 4) -> (T, B, 1)."""
    assert inputs.q is not None
    return -(_entropy(inputs.sample, options) + inputs.q / inputs.scale)


@objective(heads="mean", needs_plan=True)
def tdmpc_square(inputs: ActorInputs, options: ActorOptions) -> Tensor:
    """max_q plus the policy's own action scored under the planner's Gaussian (TD-M(PC)^2, arXiv 2502.03550).

    - w log N(a; plan_mean, plan_std) / scale, w = A / 61 unless plan_weight is given; off while the gate is
    shut.
    """
    mean, std, mask = _plan_distribution(inputs, options)
    size = mean.shape[-1]
    weight = size / 61.0 if options.plan_weight is None else options.plan_weight
    action = inputs.sample.action[: mean.shape[0]]
    if options.plan_freedom is None:
        density = gaussian_log_density(action, mean, std)
    else:
        density = student_log_density(action, mean, std, options.plan_freedom)
    term = -weight * _open_gate(inputs, options) / inputs.scale * density * mask
    return _add(max_q(inputs, options), term)


@objective(heads="min", needs_plan=True)
def boom(inputs: ActorInputs, options: ActorOptions) -> Tensor:
    """max_q on the minimum of two heads plus value-weighted alignment with the plan (arXiv 2511.00423).

    BOOM's term is -w sum_b softmax_b(q_b / scale) log N(a_b; plan_mean_b, policy std) / scale, the softmax
    over the batch at every step; w = A / 50, or A / 1000 for 24 <= A <= 48, unless plan_weight is given; off
    while the gate is shut.
    """
    assert inputs.q is not None
    mean, _, mask = _plan_distribution(inputs, options)
    horizon, count, size = mean.shape
    weight = options.plan_weight
    if weight is None:
        weight = size / (1000.0 if 24 <= size <= 48 else 50.0)
    std = inputs.sample.log_std[:horizon].detach().exp().clamp(min=options.plan_min_std)
    density = gaussian_log_density(inputs.sample.action[:horizon], mean, std)
    logits = (inputs.q[:horizon].detach() / inputs.scale).masked_fill(mask == 0, -1e9)
    share = logits.softmax(1) * mask * count  # the mean over the batch then is the sum over b
    term = -weight * _open_gate(inputs, options) / inputs.scale * share * density
    return _add(max_q(inputs, options), term)


def plan_divergence(inputs: ActorInputs, options: ActorOptions) -> Tensor:
    """KL(policy || plan) in action space (H, B, 1), nats; 0 where no plan was stored."""
    mean, std, mask = _plan_distribution(inputs, options)
    horizon = mean.shape[0]
    sample = inputs.sample
    return gaussian_kl(sample.mean[:horizon], sample.log_std[:horizon].exp(), mean, std) * mask


@objective(heads=None, needs_plan=True)
def bmpc(inputs: ActorInputs, options: ActorOptions) -> Tensor:
    """w KL(policy || plan) / its scale - entropy bonus: imitation alone (BMPC, arXiv 2503.18871)."""
    weight = 1.0 if options.plan_weight is None else options.plan_weight
    term = weight * plan_divergence(inputs, options) / inputs.kl_scale
    return _add(-_entropy(inputs.sample, options), term)


@objective(heads="mean")
def bc(inputs: ActorInputs, options: ActorOptions) -> Tensor:
    """max_q plus the mean squared error to the action in the data (Newt, arXiv 2511.19584)."""
    error = (inputs.sample.action[: inputs.action.shape[0]] - inputs.action).square()
    if inputs.action_mask is None:
        error = error.mean(-1, keepdim=True)
    else:
        error = (error * inputs.action_mask).sum(-1, keepdim=True) / inputs.action_mask.sum(-1, keepdim=True)
    return _add(max_q(inputs, options), options.bc_weight * error * inputs.valid)
