"""Costs at plan time: wishes that no trained policy knows, weighed against the predicted return.

They are functions of the state that the model reads from its predicted latents (`WorldModelConfig.readings`).
A term is a function with `cost_term`, and its settings are fields of `Costs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tdmpc2_core.config import check_fields, setting
from tdmpc2_core.errors import UserError

if TYPE_CHECKING:
    from tdmpc2_core.model.world_model import WorldModel
    from tdmpc2_core.robots import Embodiment

VELOCITY = "linear velocity of the base"
TURNING = "angular velocity of the base"
JOINT_VELOCITY = "joint velocity"
DRIVE_ERROR = "last target less joint position"


@dataclass(frozen=True)
class Costs:
    """Weights of the terms, 0 where they are off, and what they refer to. Field metadata: unit and reason."""

    speed: float = setting(
        0.0, low=0, unit="return / (m/s)^2", why="of horizontal velocity above speed_cap, per decision"
    )
    speed_cap: float = setting(0.3, low=0, unit="m/s", why="what speed leaves free")
    keep_out: float = setting(0.0, low=0, unit="return / m^2", why="of the depth in the zone, per decision")
    zone: tuple[float, float, float] = setting(
        (2.0, 0.0, 0.5),
        unit="m",
        why="centre x, y and radius in the base frame at the time of planning; a ROS node moves it along",
    )
    foresight: float = setting(
        0.6,
        low=0,
        unit="s",
        why="the zone is met where the robot will be, its velocity kept, after this time",
    )
    energy: float = setting(
        0.0, low=0, unit="return / W", why="of the drives' mechanical power, both signs, per decision"
    )
    wear: float = setting(
        0.0, low=0, unit="return / (rad/s)^2", why="of the mean square joint velocity, per decision"
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Prospect:
    """Predicted states after each of H decisions for R plans, in SI units.

    Attributes:
        state: quantity -> (H, R, n).
        actions: (H, R, A) normalised.
        stiffness, damping: (J,) of the drives, N m/rad and N m s/rad.
        period: s per decision.
    """

    state: Mapping[str, Tensor]
    actions: Tensor
    stiffness: Tensor
    damping: Tensor
    period: float


@dataclass(frozen=True)
class CostTerm:
    """A row of `COSTS`: cost (H, R) per unit of weight, and the quantities that it reads."""

    cost: Callable[[Prospect, Costs], Tensor]
    reads: tuple[str, ...]


COSTS: dict[str, CostTerm] = {}
"""Terms by name, which is also that of their weight in `Costs`."""


def cost_term(*reads: str) -> Callable[[Callable[[Prospect, Costs], Tensor]], Callable[..., Tensor]]:
    """Makes a function (prospect, settings) -> (H, R) the cost term of its name."""

    def register(cost: Callable[[Prospect, Costs], Tensor]) -> Callable[..., Tensor]:
        COSTS[cost.__name__] = CostTerm(cost, reads)
        return cost

    return register


@cost_term(VELOCITY)
def speed(prospect: Prospect, costs: Costs) -> Tensor:
    """Square of the horizontal speed above the cap."""
    velocity = prospect.state[VELOCITY][..., :2]
    return (velocity.norm(dim=-1) - costs.speed_cap).clamp(min=0.0).square()


@cost_term(VELOCITY, TURNING)
def keep_out(prospect: Prospect, costs: Costs) -> Tensor:
    """Square of how deep in the zone the base will be when it keeps its velocity for the foresight."""
    velocity = prospect.state[VELOCITY][..., :2]
    yaw = (prospect.state[TURNING][..., 2] * prospect.period).cumsum(0)
    turned = torch.stack(
        [
            velocity[..., 0] * yaw.cos() - velocity[..., 1] * yaw.sin(),
            velocity[..., 0] * yaw.sin() + velocity[..., 1] * yaw.cos(),
        ],
        -1,
    )
    position = (turned * prospect.period).cumsum(0) + turned * costs.foresight
    centre = position.new_tensor(costs.zone[:2])
    return (costs.zone[2] - (position - centre).norm(dim=-1)).clamp(min=0.0).square()


@cost_term(JOINT_VELOCITY, DRIVE_ERROR)
def energy(prospect: Prospect, costs: Costs) -> Tensor:
    """Absolute mechanical power of the PD drives, summed over joints, W."""
    velocity = prospect.state[JOINT_VELOCITY]
    torque = prospect.stiffness * prospect.state[DRIVE_ERROR] - prospect.damping * velocity
    return (torque * velocity).abs().sum(-1)


@cost_term(JOINT_VELOCITY)
def wear(prospect: Prospect, costs: Costs) -> Tensor:
    """Mean square of the joint velocities."""
    return prospect.state[JOINT_VELOCITY].square().mean(-1)


class PlanCosts:
    """What plans cost in a model of a robot under these settings: (R,) of latents (H, R, L) and actions.

    Raises:
        UserError: the model does not tell a quantity that a term with a weight reads.
    """

    def __init__(self, costs: Costs, model: WorldModel, embodiment: Embodiment) -> None:
        self._costs, self._model = costs, model
        self._terms = {name: term for name, term in COSTS.items() if getattr(costs, name) > 0.0}
        known = model.reading_slices
        for name, term in self._terms.items():
            missing = [quantity for quantity in term.reads if quantity not in known]
            if missing:
                raise UserError(
                    f"costs.{name}: the model does not tell the {missing[0]}; train it with `tdmpc2 student`"
                )
        self._known = known
        self._period = embodiment.control_period
        self._stiffness = torch.tensor(embodiment.kp, dtype=torch.float32)
        self._damping = torch.tensor(embodiment.kd, dtype=torch.float32)

    def __call__(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Costs (R,) of plans: latents (H, R, L) after each decision, actions (H, R, A)."""
        state = self._model.read_state(latents)
        by_name = {name: state[..., where] for name, where in self._known.items()}
        drives = self._stiffness.to(state), self._damping.to(state)
        prospect = Prospect(by_name, actions, *drives, self._period)
        total = state.new_zeros(state.shape[:2])
        for name, term in self._terms.items():
            total += getattr(self._costs, name) * term.cost(prospect, self._costs)
        return total.sum(0)

    @property
    def active(self) -> bool:
        """Whether any term has a weight."""
        return bool(self._terms)
