"""Fine-tuning a robot's bundle on recorded episodes: the learner of online training, without a simulation."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tdmpc2_core.agent import Agent
from tdmpc2_core.config import check_fields, setting
from tdmpc2_core.data.episodes import Episode, read_episode
from tdmpc2_core.errors import UserError
from tdmpc2_core.learning.batch import Batch, UpdateDraws
from tdmpc2_core.learning.learner import Learner
from tdmpc2_core.learning.losses import time_weights, world_model_losses
from tdmpc2_core.learning.replay import ReplayBuffer
from tdmpc2_core.train.train_config import robot_learner

_LOOKS = 10  # looks at the held-out episodes over a whole run


@dataclass(frozen=True)
class FineTuneConfig:
    """How to fine-tune."""

    updates: int = setting(2000, above=0, why="learner updates")
    max_seconds: float = setting(0.0, low=0, unit="s", why="end earlier; 0: no limit")
    seed: int = setting(0, low=0, why="of batches and learner")
    batch_size: int = setting(256, above=0, why="windows per update")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class FineTuneProgress:
    """Where it stands; `loss` is the mean training loss since the last report."""

    updates: int
    total: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class FineTuneResult:
    """What came of it; losses are those of latent prediction and reward on held-out episodes.

    `ended_by`: updates, time, or request. Nothing was written where `loss_after` is not below `loss_before`.
    """

    updates: int
    seconds: float
    loss_before: float
    loss_after: float
    ended_by: str

    @property
    def improved(self) -> bool:
        """Whether a bundle was written."""
        return math.isfinite(self.loss_after) and self.loss_after < self.loss_before


def read_stores(paths: Sequence[str | os.PathLike[str]], agent: Agent) -> list[Episode]:
    """All episodes of several episode stores, checked against the agent's sizes.

    Raises:
        UserError: no store, a damaged episode, one of another robot, or fewer than two episodes.
    """
    config, episodes = agent.model.config, list[Episode]()
    for path in map(Path, paths):
        files = sorted(path.glob("[0-9]*.safetensors"))
        if not files and (path / "metadata.yaml").is_file():
            raise UserError(f"{path}: is a rosbag2; give the folder of an episode store")
        if not files:
            raise UserError(f"{path}: holds no episodes; give the folder of an episode store")
        for file in files:
            episode, _ = read_episode(file)
            sizes = episode.observation.shape[1], episode.action.shape[1]
            if sizes != (config.obs_dim, config.action_dim):
                raise UserError(
                    f"{file}: has {sizes[0]} observation and {sizes[1]} action entries, the bundle "
                    f"{config.obs_dim} and {config.action_dim}; use episodes of the same robot"
                )
            episodes.append(episode)
    if len(episodes) < 2:
        raise UserError(
            f"{len(episodes)} episodes in {', '.join(map(str, paths)) or 'no store'}; two are needed, as one "
            "is held out"
        )
    return episodes


def fine_tune(
    base: str | os.PathLike[str],
    data: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    config: FineTuneConfig,
    report: Callable[[FineTuneProgress], bool] = lambda progress: True,
) -> FineTuneResult:
    """Train the model of bundle `base` on the episode stores `data` and write the best state to `output`.

    Every tenth episode, the last one at least, is held out; the state with the lowest loss on them is kept.

    Args:
        report: called about once a second; False ends the run with the best state so far.

    Raises:
        UserError: an input is of no use, or `output` exists already.
    """
    started = time.monotonic()
    if Path(output).exists():
        raise UserError(f"{output}: exists already; give a folder that does not exist yet")
    agent = Agent.load(base, seed=config.seed)
    if agent.model.config.num_tasks or agent.model.config.obs_kind != "state":
        raise UserError(f"{base}: fine-tuning is for models of one task that observe a state")
    run = _Run(agent, read_stores(data, agent), config)
    result = run.train(started, report)
    if result.improved:
        agent.model.load_state_dict(run.best)
        agent.save(output, provenance=dict(agent.provenance) | {"fine_tuned": vars(result)})
    return result


class _Run:
    def __init__(self, agent: Agent, episodes: list[Episode], config: FineTuneConfig) -> None:
        self.config, self.model = config, agent.model
        generator = torch.Generator(device=agent.device).manual_seed(config.seed)
        self._learner = Learner(agent.model, replace(robot_learner(), discount=agent.discount), generator)
        window = self._learner.config.window
        held = [e for k, e in enumerate(episodes) if k % 10 == 9] or episodes[-1:]
        used = [e for e in episodes if all(e is not other for other in held)]
        self._replay, check = (self._buffer(part, window, k) for k, part in enumerate((used, held)))
        self._check: Batch = check.sample(max(config.batch_size, 256), window)
        self._draws: UpdateDraws = self._learner.draw(self._check.size)
        self.best: dict[str, Tensor] = {}

    def _buffer(self, episodes: list[Episode], window: int, number: int) -> ReplayBuffer:
        sizes = episodes[0].observation.shape[1], episodes[0].action.shape[1]
        rows = sum(len(episode) + 1 for episode in episodes) + 1
        generator = torch.Generator().manual_seed(2 * self.config.seed + number)
        buffer = ReplayBuffer(1, rows, *sizes, device=self._learner.device, generator=generator)
        for episode in episodes:
            buffer.add_episode(0, episode)
        if not buffer.can_sample(window):
            raise UserError(f"{rows} recorded decisions are too few; a window takes {window + 2}")
        return buffer

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Latent prediction and reward on the held-out windows, weighted as in training."""
        learner, config = self._learner, self._learner.config
        batch = self._check.prepare(config.window)
        next_z, target = learner.targets(batch, self._draws)
        rho = time_weights(config.rho, config.horizon, learner.device)
        losses = world_model_losses(self.model, batch, next_z, target, rho, config.loss_weights, None)
        weights = config.loss_weights
        return float(weights.consistency * losses.consistency + weights.reward * losses.reward)

    def _keep(self) -> None:
        self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def train(self, started: float, report: Callable[[FineTuneProgress], bool]) -> FineTuneResult:
        """Updates until one of the ends; `best` is the state with the lowest held-out loss."""
        config = self.config
        before = lowest = self.held_out_loss()
        self._keep()
        sums, counted, told, ended_by, done = 0.0, 0, time.monotonic(), "updates", 0
        every = max(1, config.updates // _LOOKS)
        while done < config.updates:
            batch = self._replay.sample(config.batch_size, self._learner.config.window)
            sums += float(self._learner.update(batch)["total_loss"])
            done, counted = done + 1, counted + 1
            now = time.monotonic()
            if done % every == 0 or done == config.updates:
                loss = self.held_out_loss()
                if loss < lowest:
                    lowest = loss
                    self._keep()
            if now - told >= 1.0 or done == config.updates:
                if not report(FineTuneProgress(done, config.updates, sums / counted, now - started)):
                    ended_by = "request"
                    break
                sums, counted, told = 0.0, 0, now
            if config.max_seconds and now - started >= config.max_seconds:
                ended_by = "time"
                break
        return FineTuneResult(done, time.monotonic() - started, before, lowest, ended_by)
