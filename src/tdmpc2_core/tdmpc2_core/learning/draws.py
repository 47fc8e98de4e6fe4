"""Random numbers of an update, drawn in one place so that tests can hand in their own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class UpdateDraws:
    """Random numbers of one update. H horizon, B batch, A action.

    td_noise (H, B, A), policy_noise (H + 1, B, A): standard normal. td_heads, policy_heads (2,) int64: the
    value heads of the target and of the policy step; None takes all heads.
    """

    td_noise: Tensor
    td_heads: Tensor | None
    policy_noise: Tensor
    policy_heads: Tensor | None


def draw_update(
    shape: tuple[int, int, int], num_q: int, generator: torch.Generator, device: torch.device
) -> UpdateDraws:
    """Draws for shape = (H, B, A) and num_q value heads; up to two heads there is nothing to choose."""

    def normal(steps: int) -> Tensor:
        return torch.randn(steps, *shape[1:], generator=generator, device=device)

    def heads() -> Tensor | None:
        return None if num_q <= 2 else torch.randperm(num_q, generator=generator, device=device)[:2]

    return UpdateDraws(normal(shape[0]), heads(), normal(shape[0] + 1), heads())
