"""One mode of fine-tuning: a model of its own, what learns of it, when it has learned enough."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdmpc2_core.agent import Agent
from tdmpc2_core.data.episodes import Episode
from tdmpc2_core.data.held_out import Split
from tdmpc2_core.files import write_torch
from tdmpc2_core.learning.dynamics import DynamicsLearner, LatentEpisodes, Part, joined
from tdmpc2_core.learning.learner import Learner
from tdmpc2_core.learning.replay import ReplayBuffer, concatenate
from tdmpc2_core.model import WorldModel
from tdmpc2_core.model.world_model import with_residual
from tdmpc2_core.scoring.prediction import Prediction, predict
from tdmpc2_core.train.finetune_config import FineTuneConfig, RecordedMode


class _Frozen:
    """Updates of the dynamics, or of their residual, on recorded and simulated latents."""

    def __init__(
        self, model: WorldModel, part: Part, config: FineTuneConfig, data: list[list[Episode]], seed: int
    ) -> None:
        self.generators = [torch.Generator().manual_seed(seed + k) for k in range(len(data))]
        self._data = [LatentEpisodes(model, e, g) for e, g in zip(data, self.generators, strict=True)]
        self._sizes, self._horizon = _shares(config, len(data)), config.dynamics.horizon
        self.learner = DynamicsLearner(model, part, config.dynamics)

    def update(self) -> float:
        """One step; its loss."""
        drawn = zip(self._data, self._sizes, strict=True)
        return float(self.learner.update(joined([d.sample(n, self._horizon) for d, n in drawn])))


class _Whole:
    """Updates of the whole model by the learner of online training."""

    def __init__(self, agent: Agent, config: FineTuneConfig, data: list[list[Episode]], seed: int) -> None:
        generator = torch.Generator(device=agent.device).manual_seed(seed)
        learner = replace(config.learner, discount=agent.discount, batch_size=config.batch_size)
        self.learner = Learner(agent.model, learner, generator)
        self.generators = [torch.Generator().manual_seed(seed + 1 + k) for k in range(len(data))]
        self._sizes = _shares(config, len(data))
        made = zip(data, self.generators, strict=True)
        self._data = [_replay(episodes, g, agent.device) for episodes, g in made]

    def update(self) -> float:
        """One step; its loss."""
        drawn = zip(self._data, self._sizes, strict=True)
        batch = concatenate([d.sample(n, self.learner.config.window) for d, n in drawn])
        return float(self.learner.update(batch)["total_loss"])


def _shares(config: FineTuneConfig, sources: int) -> list[int]:
    """Windows of a batch from the recording, and from the simulation where there is one."""
    own = config.batch_size - round(config.mix_sim * config.batch_size) if sources > 1 else config.batch_size
    return [max(1, own), config.batch_size - own][:sources]


def _replay(episodes: list[Episode], generator: torch.Generator, device: torch.device) -> ReplayBuffer:
    sizes = episodes[0].observation.shape[1], episodes[0].action.shape[1]
    rows = sum(len(episode) + 1 for episode in episodes) + 1
    buffer = ReplayBuffer(1, rows, *sizes, device=device, generator=generator)
    for episode in episodes:
        buffer.add_episode(0, episode)
    return buffer


class Trial:
    """One mode; goes on from its file in `folder` where there is one.

    Args:
        agent: the parent; its model is left as it is.
        simulation: episodes to mix in, or none.

    Attributes:
        updates: so far; total: at most.
        ended_by: early stopping, updates, time or request; empty while it learns.
        looks: (updates, error) of every look at the data for stopping, the parent's error first, as 1.
    """

    def __init__(
        self,
        mode: RecordedMode,
        agent: Agent,
        config: FineTuneConfig,
        split: Split,
        simulation: list[Episode],
        folder: Path,
    ) -> None:
        self.mode, self.config, self.path = mode, config, folder / f"{mode}.pt"
        self._parent, self._stop = agent, split.stop
        width = config.dynamics.residual_dim
        self.model = with_residual(agent.model, width) if mode == "residual" else deepcopy(agent.model)
        data = [split.learn, simulation] if simulation else [split.learn]
        self._work: _Frozen | _Whole = (
            _Whole(agent.with_model(self.model, config.seed), config, data, config.seed)
            if mode == "full"
            else _Frozen(self.model, mode, config, data, config.seed)
        )
        self._first = predict(agent.model, self._stop)
        self.total = config.updates
        self.updates, self.ended_by, self.looks = 0, "", [(0, 1.0)]
        self._best = self._copy()
        if self.path.exists():
            self._load()

    def update(self) -> float:
        """One step; its loss."""
        loss = self._work.update()
        self.updates += 1
        return loss

    @property
    def due(self) -> bool:
        """Whether it is time for `check` and `save`."""
        return self.updates % self.config.check_every == 0 or self.updates >= self.total

    def check(self) -> None:
        """Look at the data for stopping, keep the best state, and end what has learned enough."""
        if self.looks[-1][0] == self.updates:
            return
        error = self._error(predict(self.model, self._stop))
        if error < min(known for _, known in self.looks):
            self._best = self._copy()
        self.looks.append((self.updates, error))
        lowest = int(np.argmin([known for _, known in self.looks]))
        if not self.ended_by and len(self.looks) - 1 - lowest >= self.config.patience:
            self.ended_by = "early stopping"
        elif not self.ended_by and self.updates >= self.config.updates:
            self.ended_by = "updates"

    def _error(self, found: Prediction) -> float:
        """Latent error over the parent's; where rewards are learned, the mean of it and that of rewards."""
        ratio = found.error / self._first.error
        before = np.nanmean(self._first.reward) if np.isfinite(self._first.reward).any() else 0.0
        if self.mode != "full" or not before > 0.0:
            return ratio
        return 0.5 * (ratio + float(np.nanmean(found.reward)) / float(before))

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def agent(self) -> Agent:
        """The parent's planner on the best model so far."""
        model = deepcopy(self.model)
        model.load_state_dict(self._best)
        return self._parent.with_model(model.requires_grad_(True), self.config.seed)

    # ---- going on ----
    def save(self) -> None:
        """Write everything that going on needs, whole or not at all. Raises OSError."""
        state: dict[str, Any] = {
            "model": self._copy(),
            "best": self._best,
            "learner": self._work.learner.state_dict(),
            "generators": [generator.get_state() for generator in self._work.generators],
            "updates": self.updates,
            "looks": self.looks,
            "ended_by": self.ended_by,
        }
        write_torch(self.path, state)

    def _load(self) -> None:
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self._best = state["best"]
        self._work.learner.load_state_dict(state["learner"])
        for generator, kept in zip(self._work.generators, state["generators"], strict=True):
            generator.set_state(kept)
        self.updates, self.ended_by = state["updates"], state["ended_by"]
        self.looks = [(int(updates), float(error)) for updates, error in state["looks"]]
        if self.ended_by in ("request", "time") or (
            self.ended_by == "updates" and self.updates < self.config.updates
        ):
            self.ended_by = ""  # asked to go on
