"""A world model rolled out through given actions, beside the encodings of what was then observed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tdmpc2_core.model.world_model import WorldModel


class Foretold(NamedTuple):
    """S rollouts, one decision on.

    Attributes:
        before, latent: (S, L) foretold latents before and after the decision.
        row: (S,) row of the latent that was encoded before it; the one after it stands in the next row.
        inside: (S,) bool: the decision belongs to the start's stretch; the others' figures mean nothing.
    """

    before: Tensor
    latent: Tensor
    row: Tensor
    inside: Tensor


@torch.no_grad()
def open_loop(
    model: WorldModel,
    encoded: Tensor,
    action: Tensor,
    starts: Tensor,
    ends: Tensor,
    horizon: int,
    task: int | None = None,
) -> Iterator[Foretold]:
    """Foretell from each start through the actions that follow it, `horizon` decisions one by one.

    Args:
        encoded: (R, L) encoded latents; the stretches lie one after the other.
        action: (R, A) actions taken there; the one in a stretch's last row is not used.
        starts: (S,) rows to start in.
        ends: (S,) last row of each start's stretch.
        task: index of the task, None for a single-task model.
    """
    index = None if task is None else torch.full((len(starts),), task, device=encoded.device)
    z = encoded[starts]
    for step in range(horizon):
        row = torch.minimum(starts + step, ends - 1)
        before, z = z, model.next(z, action[row], index)
        yield Foretold(before, z, row, starts + step < ends)
