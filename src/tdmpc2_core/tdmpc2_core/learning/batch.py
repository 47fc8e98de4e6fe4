"""What the learner reads: windows of consecutive steps, stacked over the batch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tdmpc2_core.model.encoder import draw_shifts


@dataclass(frozen=True)
class Batch:
    """B windows of W steps each; W = horizon + n_step - 1 (longer windows are cut by the learner).

    obs (W + 1, B, O): obs[t + 1] of the last valid step is the true final observation of the episode.
    action (W, B, A) in [-1, 1]; reward (W, B, 1); terminated (W, B, 1): 1 where the step ended in a terminal
    state (a time limit is not one). An unknown reward is NaN.
    valid (W, B, 1): 1 while the window is inside its episode, 0 for every step after the end; valid[0] is 1.
    Rows that are not valid are ignored but must be finite.
    plan_mean, plan_std (W, B, A): the planner's Gaussian of the action, or None. has_plan (W, B, 1): 1 where
    they hold. task (B,) int64: task index of every window, None for a single task.
    pixels (W + 1, B, C, 64, 64): images where an observation has both; images alone are `obs`.
    privileged (W + 1, B, P): what only a simulator knew at the observations, or None.
    Flags may be bool or float.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    valid: Tensor
    plan_mean: Tensor | None = None
    plan_std: Tensor | None = None
    has_plan: Tensor | None = None
    task: Tensor | None = None
    pixels: Tensor | None = None
    privileged: Tensor | None = None

    @property
    def window(self) -> int:
        """Steps per window, W."""
        return self.action.shape[0]

    @property
    def size(self) -> int:
        """Windows, B."""
        return self.action.shape[1]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        fields: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name, value in fields.items():
            fields[name] = value if value is None else value.to(device, non_blocking=True)
        return Batch(**fields)

    def prepare(self, window: int) -> Batch:
        """Cut to `window` steps, flags as floats, shapes checked.

        Raises ValueError when the windows are too short or a field has the wrong shape.
        """
        if self.window < window:
            raise ValueError(
                f"batch windows have {self.window} steps, the learner needs {window} (horizon + n_step - 1)"
            )
        count, lead = self.size, (window, self.size)
        fields: dict[str, Any] = {"task": self.task}
        for name in ("obs", "pixels", "privileged"):
            value = getattr(self, name)
            fields[name] = value if value is None else value[: window + 1]
        for name in ("action", "reward", "terminated", "valid", "plan_mean", "plan_std", "has_plan"):
            value = getattr(self, name)
            fields[name] = value if value is None else value[:window].to(self.action.dtype)
        for name, value in fields.items():
            expected = {"task": (count,)}.get(name, lead)
            if name in ("obs", "pixels", "privileged"):
                expected = (window + 1, count)
            if value is not None and tuple(value.shape[: len(expected)]) != expected:
                raise ValueError(
                    f"batch field {name} has shape {tuple(value.shape)}, expected it to start with {expected}"
                )
            if (
                name in ("reward", "terminated", "valid", "has_plan")
                and value is not None
                and value.shape[2:] != (1,)
            ):
                raise ValueError(f"batch field {name} has shape {tuple(value.shape)}, expected {(*lead, 1)}")
        plan = [fields[name] is None for name in ("plan_mean", "plan_std", "has_plan")]
        if any(plan) and not all(plan):
            raise ValueError("plan_mean, plan_std and has_plan go together: give all three or none")
        return Batch(**fields)


@dataclass(frozen=True)
class UpdateDraws:
    """Random numbers of one update. H horizon, B batch, A action.

    td_noise (H, B, A), policy_noise (H + 1, B, A): standard normal. td_heads, policy_heads (2,) int64: the
    value heads of the target and of the policy step; None takes all heads. shifts (W + 1, B, 2): where
    the images of a window's W + 1 observations are cut out (`model.encoder.shift`), pixels only.
    """

    td_noise: Tensor
    td_heads: Tensor | None
    policy_noise: Tensor
    policy_heads: Tensor | None
    shifts: Tensor | None = None

    def shifts_of(self, observations: int | slice) -> Tensor | None:
        """Shifts of these observations of the window, (B, 2) or (n, B, 2); None for state vectors."""
        return None if self.shifts is None else self.shifts[observations]


def draw_update(
    shape: tuple[int, int, int],
    num_q: int,
    generator: torch.Generator,
    device: torch.device,
    images: int = 0,
) -> UpdateDraws:
    """Draws for shape = (H, B, A) and num_q value heads; up to two heads there is nothing to choose.

    images: observations of a window whose image shifts are drawn, 0 for state vectors.
    """

    def normal(steps: int) -> Tensor:
        return torch.randn(steps, *shape[1:], generator=generator, device=device)

    def heads() -> Tensor | None:
        return None if num_q <= 2 else torch.randperm(num_q, generator=generator, device=device)[:2]

    shifts = draw_shifts((images, shape[1]), generator, device) if images else None
    return UpdateDraws(normal(shape[0]), heads(), normal(shape[0] + 1), heads(), shifts)
