"""`GradientConfig`: settings of the planners that improve action sequences by gradient ascent."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tdmpc2_core.config import setting


@dataclass(frozen=True)
class GradientConfig:
    """Gradient ascent on the predicted return; the planned length is `PlannerConfig.horizon`.

    Raises:
        ValueError: a value outside its range; the sentence names the field.
    """

    seeds: int = setting(
        4, unit="candidates", low=1, high=1024, why="policy-prior sequences that `gradient` starts from"
    )
    elites: int = setting(
        4, unit="candidates", low=1, high=1024, why="best samples that `mppi+gradient` refines"
    )
    iterations: int = setting(
        4,
        unit="iterations",
        low=1,
        high=1000,
        why="gradient steps; each costs a rollout and its backward pass",
    )
    step: float = setting(
        0.1,
        unit="normalised action",
        above=0.0,
        high=1.0,
        why="largest change per entry in the first step, falling linearly; limits trust in the model",
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            value, rules = getattr(self, item.name), item.metadata
            low, above, high = rules["low"], rules["above"], rules["high"]
            if (low is not None and value < low) or (above is not None and value <= above) or value > high:
                bound = f"at least {low:g}" if low is not None else f"above {above:g}"
                raise ValueError(
                    f"gradient setting {item.name} is {value!r}, must be {bound} and at most {high:g}"
                )
