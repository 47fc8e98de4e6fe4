"""Random numbers of an update, drawn in one place so that tests can hand in their own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tdmpc2_core.model.encoder import draw_shifts


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
