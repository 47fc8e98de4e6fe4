"""Online training: environments side by side, one replay memory, one learner (section 3 of the paper).

A run is a folder. Stopped by Ctrl-C or SIGTERM, it goes on where it was; killed, from its last checkpoint,
every finished episode in memory.
"""

from __future__ import annotations

import time
from typing import Any, NoReturn

import numpy as np
import torch
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.data.episodes import Episode, EpisodeRecorder
from tdmpc2_core.envs.registry import make_env
from tdmpc2_core.envs.robot.env import RobotEnv
from tdmpc2_core.learning.batch import Batch
from tdmpc2_core.learning.learner import Learner
from tdmpc2_core.learning.memory import keep_freed_memory
from tdmpc2_core.learning.replay import ReplayBuffer, concatenate
from tdmpc2_core.scoring.evaluation import evaluate_agent, summary
from tdmpc2_core.teachers.demonstrator import Demonstrator, demonstrate, robot_env
from tdmpc2_core.train.behaviour import Behaviour
from tdmpc2_core.train.run import Stop, TrainingRun

EVALUATION_SEED = 10_000


def set_matmul_precision(precision: str) -> None:
    """Precision of float32 matrix products, on GPUs and (medium only) in the CPU library."""
    torch.set_float32_matmul_precision(precision)
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # torch puts an object there
    matmul.fp32_precision = "bf16" if precision == "medium" else "ieee"


class OnlineTrainer:
    """One run: collect, learn, evaluate, checkpoint, until ``config.steps`` agent steps."""

    def __init__(self, run: TrainingRun) -> None:
        self.run, self.config = run, run.config
        config = self.config
        torch.set_num_threads(config.threads or torch.get_num_threads())
        set_matmul_precision(config.matmul_precision)
        keep_freed_memory()
        self.spec = run.spec
        self.agent: Agent = run.agent
        self.learner: Learner = run.learner
        stored = 104_729 * len(run.demonstrations)  # no episode twice where a run goes on among them
        self.rng = np.random.default_rng(config.seed + 7919 * run.progress.resumes + stored)
        seeds = self.rng.integers(2**31, size=config.num_envs)
        task = self.spec.embodiment or self.spec.name
        self.environments = [make_env(task, int(seed), config.env) for seed in seeds]
        self._robots = [env for env in self.environments if isinstance(env, RobotEnv)]
        for robot, level in zip(self._robots, run.progress.levels, strict=False):
            robot.level = level
        shown = bool(config.demonstration_steps) and not run.progress.steps
        self._demonstrator = Demonstrator(robot_env(self.environments[0]).embodiment) if shown else None
        self._recorders: list[EpisodeRecorder] = []  # of the episodes under way
        self._stop = Stop()
        self.window = config.learner.window
        self.replay = self._buffer(config.num_envs, config.replay_capacity // config.num_envs, seed=1)
        self.demonstrations = self._buffer(1, max(2 * config.demonstration_steps, 2), seed=2)
        self._behaviour = Behaviour(config, self.agent, self.environments, self.rng)
        self._sums: dict[str, torch.Tensor] = {}  # learner metrics since the last log row, on the device
        self._summed = 0
        self._finished: list[
            tuple[float, int]
        ] = []  # (return per step, length) of episodes since the last log row

    def _buffer(self, lanes: int, capacity: int, seed: int) -> ReplayBuffer:
        generator = torch.Generator().manual_seed(
            self.config.seed * 31 + seed + 101 * self.run.progress.resumes
        )
        dims = self.spec.observation_dim, self.spec.action_dim
        return ReplayBuffer(lanes, capacity, *dims, self.run.device, generator, self.config.replay_sampling)

    # ---- phases ----
    def train(self) -> None:
        """Run to the end; returns when ``config.steps`` agent steps are done.

        Ctrl-C and SIGTERM write a checkpoint and the unfinished episodes, as truncated ones.

        Raises:
            KeyboardInterrupt: after that, with a sentence.
            UserError, OSError: the disk refuses.
        """
        with self._stop.keeping(self._keep):
            self._restore_replay()
            if not self.run.progress.steps:
                self._demonstrate()
                self._pretrain()
            self._loop()
            self._checkpoint("finished")

    def _keep(self) -> str:
        self._keep_unfinished()
        self._checkpoint("stopped")
        return (
            f"stopped at step {self.run.progress.steps}, update {self.run.progress.updates}; "
            f"the same command goes on from there, or tdmpc2 train --resume {self.run.folder}"
        )

    def _checkpoint(self, why: str) -> None:
        self.run.progress.levels = [robot.level for robot in self._robots]
        self.run.checkpoint(why)

    def _restore_replay(self) -> None:
        progress = self.run.progress
        for index, (episode, _) in enumerate(self.run.demonstrations):
            self._stop.check()
            self._add_demonstration(episode, seen=index < progress.demonstrations)
        for index, (episode, _) in enumerate(self.run.episodes):
            self._stop.check()
            self.replay.add_episode(index % self.config.num_envs, episode)
        if progress.resumes:
            self.run.log.event(
                progress.steps,
                f"resumed at update {progress.updates} with {len(self.run.episodes)} episodes",
            )

    def _add_demonstration(self, episode: Episode, seen: bool) -> None:
        self.demonstrations.add_episode(0, episode)
        if not seen:
            self.agent.observe(episode.observation)
            self.run.progress.demonstrations += 1

    def _demonstrate(self) -> None:
        config = self.config
        if self._demonstrator is None:
            return
        env = robot_env(self.environments[0])
        with tqdm(total=config.demonstration_steps, desc="demonstrate", unit="step") as bar:
            bar.update(min(len(self.demonstrations), config.demonstration_steps))
            while len(self.demonstrations) < config.demonstration_steps:
                self._stop.check()
                episode = demonstrate(
                    env, self._demonstrator, self.rng, config.demonstration_std, lambda: self._stop.requested
                )
                self.run.demonstrations.append(episode, source="demonstration")
                self._add_demonstration(episode, seen=False)
                bar.update(len(episode))

    def _pretrain(self) -> None:
        """Updates on the demonstrations; as no step is done yet, those so far were such updates."""
        config, progress = self.config, self.run.progress
        if not self.demonstrations.can_sample(self.window) or progress.updates >= config.pretrain_updates:
            return
        every = max(1, round(config.checkpoint_every * config.updates_per_step))
        left = range(progress.updates, config.pretrain_updates)
        for done in tqdm(
            left, desc="pretrain", unit="update", initial=left.start, total=config.pretrain_updates
        ):
            self._stop.check()
            if done % every == 0:
                self._checkpoint("checkpoint")
            self._update(self.demonstrations.sample(config.learner.batch_size, self.window))
        self._checkpoint("pretrained on demonstrations")

    def _loop(self) -> None:
        config, progress = self.config, self.run.progress
        observations = np.stack([env.reset() for env in self.environments])
        self._recorders = [EpisodeRecorder(observation) for observation in observations]
        first = np.ones(config.num_envs, dtype=bool)
        started, started_at = time.monotonic(), progress.steps
        bar = tqdm(total=config.steps, initial=progress.steps, desc="train", unit="step", smoothing=0.05)
        with bar:
            self._catch_up()
            while progress.steps < config.steps:
                self._stop.check()
                self.agent.observe(observations)
                observations, first = self._collect(observations, first)
                before = progress.steps
                progress.steps += config.num_envs
                bar.update(config.num_envs)
                progress.due += config.num_envs * config.updates_per_step
                if before < config.random_steps:  # the seed phase ends with as many updates as it had steps
                    progress.due = (
                        float(config.random_steps) if progress.steps >= config.random_steps else 0.0
                    )
                self._catch_up()
                if self._crossed(before, config.log_every):
                    rate = (progress.steps - started_at) / (time.monotonic() - started)
                    self._log_row(rate, bar)
                if self._crossed(before, config.eval_every):
                    self._evaluate(bar)
                if self._crossed(before, config.checkpoint_every):
                    self._checkpoint("checkpoint")

    def _catch_up(self) -> None:
        """The updates that are due."""
        progress = self.run.progress
        while progress.due >= 1.0 and self.replay.can_sample(self.window):
            self._stop.check()
            self._update(self._sample())
            progress.due -= 1.0

    def _crossed(self, before: int, every: int) -> bool:
        return before // every != self.run.progress.steps // every

    # ---- parts of a decision ----
    def _collect(self, observations: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One decision everywhere, into the replay; returns the next observations and episode starts."""
        recorders = self._recorders
        decision = self._behaviour.decide(observations, first, self.run.progress.steps)
        following, begins = np.empty_like(observations), np.zeros(len(first), dtype=bool)
        for lane, env in enumerate(self.environments):
            action, (mean, std, value) = decision.action[lane], decision.plan(lane)
            outcome = env.step(action)
            done = action, outcome.reward, outcome.terminated, mean, std
            self.replay.add(lane, observations[lane], *done)
            recorders[lane].add(outcome.observation, *done, value)
            following[lane] = outcome.observation
            if outcome.terminated or outcome.truncated:
                self.replay.close(lane, outcome.observation)
                self._finish(recorders[lane].episode(outcome.truncated), lane)
                following[lane] = env.reset()
                recorders[lane] = EpisodeRecorder(following[lane])
                begins[lane] = True
                self._behaviour.restart(lane)
        return following, begins

    def _finish(self, episode: Episode, lane: int) -> None:
        self.run.episodes.append(episode, source="online", lane=lane, step=self.run.progress.steps)
        self.run.progress.episodes += 1
        self._finished.append((float(episode.reward.mean()), len(episode)))

    def _keep_unfinished(self) -> None:
        """Store the episodes under way as truncated ones."""
        for lane, recorder in enumerate(self._recorders):
            if len(recorder):
                self._finish(recorder.episode(truncated=True), lane)
        self._recorders = []

    def _sample(self) -> Batch:
        """One batch, part demonstrations, part own experience."""
        config = self.config
        share = 0.0
        if self.demonstrations.can_sample(self.window):
            done = min(1.0, self.run.progress.steps / config.demonstration_anneal)
            share = config.demonstration_share + done * (
                config.demonstration_share_end - config.demonstration_share
            )
        shown = round(share * config.learner.batch_size)
        parts = (
            [self.replay.sample(config.learner.batch_size - shown, self.window)]
            if shown < config.learner.batch_size
            else []
        )
        if shown:
            parts.append(self.demonstrations.sample(shown, self.window))
        return concatenate(parts)

    def _update(self, batch: Batch) -> None:
        for name, value in self.learner.update(batch).items():
            if name in self._sums:
                self._sums[name] += value
            else:
                self._sums[name] = value.clone()
        self._summed += 1
        self.run.progress.updates += 1

    # ---- reporting ----
    def _log_row(self, rate: float, bar: tqdm[NoReturn]) -> None:
        row = {name: float(total) / self._summed for name, total in self._sums.items()}
        self._sums, self._summed = {}, 0
        if self._finished:
            row["return_per_step"] = float(np.mean([value for value, _ in self._finished]))
            row["episode_length"] = float(np.mean([length for _, length in self._finished]))
            self._finished = []
            bar.set_postfix(reward=f"{row['return_per_step']:.2f}", length=f"{row['episode_length']:.0f}")
        row |= {"updates": self.run.progress.updates, "steps_per_second": rate}
        self.run.log.scalars("train", self.run.progress.steps, row)

    def _evaluate(self, bar: tqdm[NoReturn]) -> None:
        config = self.config
        task = None if self.spec.embodiment else self.spec.name
        with self._stop.at_once():
            result = evaluate_agent(
                self.agent, config.eval_seconds, config.eval_episodes, EVALUATION_SEED, task
            )
        self.agent.reset()
        self.run.log.scalars("eval", self.run.progress.steps, vars(result))
        self.run.keep_best(result)
        bar.write(f"step {self.run.progress.steps}: {summary(result)}")
