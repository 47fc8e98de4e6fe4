"""Learning how one robot moves, with all else of its world model frozen: the dynamics, or a residual on them.

The encoder stays, so latents of recorded observations are computed once. Rewards are not needed. Fine-tuning
the dynamics alone is what SimDist does on a real quadruped; a residual on frozen dynamics is ReDRAW's.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from tdmpc2_core.config import check_fields, setting
from tdmpc2_core.data.episodes import Episode
from tdmpc2_core.learning.losses import masked_mean, rollout, time_weights
from tdmpc2_core.model import WorldModel
from tdmpc2_core.model.kernels import KERNELS_WHY, KernelChoice, kernels, using

Part = Literal["dynamics", "residual"]
_GRAD_NORM = 20.0  # as of the learner
_ROWS = 4096  # observations that are encoded at once


@dataclass(frozen=True)
class DynamicsConfig:
    """How the dynamics, or their residual, learn."""

    lr: float = setting(2e-4, above=0, unit="per update", why="Adam step; SimDist's on a real robot")
    horizon: int = setting(8, low=1, unit="decisions", why="predicted in a row: at least those of a plan")
    rho: float = setting(0.9, above=0, high=1, why="decay of the loss weights along them")
    residual_dim: int = setting(64, low=1, unit="units", why="width of the residual head")
    residual_decay: float = setting(
        1e-4, low=0, unit="per update", why="weight decay of the residual: towards the dynamics as they were"
    )
    kernels: KernelChoice = setting("auto", why=KERNELS_WHY)

    def __post_init__(self) -> None:
        check_fields(self)


class Windows(NamedTuple):
    """Latents (H + 1, B, L), actions (H, B, A), and ones (H, B, 1) while inside the episode."""

    z: Tensor
    action: Tensor
    valid: Tensor


class LatentEpisodes:
    """Episodes as a frozen encoder sees them, drawn as windows; every decision is as likely to begin one."""

    def __init__(self, model: WorldModel, episodes: Sequence[Episode], generator: torch.Generator) -> None:
        device = next(model.parameters()).device
        self._generator = generator
        observed = np.concatenate([episode.observation for episode in episodes])
        parts = torch.from_numpy(observed).split(_ROWS)
        with torch.no_grad():
            self.z = torch.cat([model.encode(rows.to(device)) for rows in parts])
        lengths = [len(episode) for episode in episodes]
        firsts = np.concatenate([[0], np.cumsum([length + 1 for length in lengths])[:-1]])
        self._starts = torch.cat(
            [torch.arange(k, k + n) for k, n in zip(firsts.tolist(), lengths, strict=True)]
        )
        ends = [torch.full((n,), k + n) for k, n in zip(firsts.tolist(), lengths, strict=True)]
        self._ends = torch.cat(ends)  # rows of the last observations
        size = episodes[0].action.shape[1]
        self.action = torch.zeros(len(self.z), size, device=device)
        for first, episode in zip(firsts.tolist(), episodes, strict=True):
            self.action[first : first + len(episode)] = torch.from_numpy(episode.action).to(device)

    def __len__(self) -> int:
        return len(self._starts)

    def sample(self, count: int, horizon: int) -> Windows:
        """`count` windows of `horizon` decisions."""
        drawn = torch.randint(len(self), (count,), generator=self._generator)
        rows = self._starts[drawn] + torch.arange(horizon + 1)[:, None]
        ends = self._ends[drawn]
        valid = (rows[:-1] < ends).float()[..., None].to(self.z.device)
        rows = torch.minimum(rows, ends).to(self.z.device)
        return Windows(self.z[rows], self.action[rows[:-1]], valid)


def joined(parts: Sequence[Windows]) -> Windows:
    """Windows side by side."""
    return Windows(*(torch.cat([getattr(p, name) for p in parts], 1) for name in Windows._fields))


class DynamicsLearner:
    """Trains one part of a world model in place; everything else of it is frozen.

    Args:
        model: one with a residual head, where that is the part.
    """

    def __init__(self, model: WorldModel, part: Part, config: DynamicsConfig) -> None:
        chosen = model.dynamics if part == "dynamics" else model.residual_head
        if chosen is None:
            raise ValueError("the model has no residual head: make it with with_residual")
        self.model, self.config = model.requires_grad_(False), config
        self._params: list[nn.Parameter] = list(chosen.requires_grad_(True).parameters())
        device = self._params[0].device
        self._rho = time_weights(config.rho, config.horizon, device)
        self._kernels = kernels(config.kernels)
        decay = config.residual_decay / config.lr if part == "residual" else 0.0
        fused = device.type in ("cpu", "cuda")
        self.optimiser = torch.optim.AdamW(self._params, lr=config.lr, weight_decay=decay, fused=fused)

    def update(self, windows: Windows) -> Tensor:
        """One step on windows of `config.horizon` decisions; the open-loop error () before it."""
        with using(self._kernels):
            predicted = rollout(self.model, windows.z[0], windows.action, None)[1:]
            error = (predicted - windows.z[1:]).square().mean(-1, keepdim=True)
            loss = masked_mean(error, windows.valid * self._rho)
            loss.backward()
        nn.utils.clip_grad_norm_(self._params, _GRAD_NORM)
        self.optimiser.step()
        increment_version(self._params)  # planners see new weights by it; the fused kernel leaves it alone
        self.optimiser.zero_grad(set_to_none=True)
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the model."""
        return {"optimiser": deepcopy(self.optimiser.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.optimiser.load_state_dict(state["optimiser"])
