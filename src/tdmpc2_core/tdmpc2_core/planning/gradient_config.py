"""`GradientConfig`: settings of the planners that improve action sequences by gradient ascent."""

from __future__ import annotations

from dataclasses import dataclass

from tdmpc2_core.config import check_fields, setting


@dataclass(frozen=True)
class GradientConfig:
    """Gradient ascent on the predicted return; the planned length is `PlannerConfig.horizon`.

    Raises:
        ValueError: a value outside its range; the sentence names the field.
    """

    seeds: int = setting(
        1,
        unit="candidates",
        low=1,
        high=1024,
        why="policy-prior sequences that `gradient` starts from, its mode first",
    )
    elites: int = setting(
        4, unit="candidates", low=1, high=1024, why="best samples that `mppi+gradient` refines"
    )
    iterations: int = setting(
        3, unit="iterations", low=1, high=1000, why="steps; each costs a rollout and its reverse pass"
    )
    step: float = setting(
        0.05,
        unit="normalised action",
        above=0.0,
        high=1.0,
        why="largest change per entry in the first step, falling linearly; limits trust in the model",
    )

    anchor: float = setting(
        10.0,
        unit="return / action^2",
        low=0.0,
        why="price of the squared distance to the policy's mode, or to the search's mean; limits trust too",
    )

    def __post_init__(self) -> None:
        check_fields(self)
