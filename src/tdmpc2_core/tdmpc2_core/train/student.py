"""Training a robot's world model and policy prior under an expert (`tdmpc2 student`).

Many robots act by the prior, with bursts of noise that throw them off; the expert, which sees what only a
simulator knows, labels what it would do. A critic of the true state, fitted to the prior that acts, gives the
values, and plans played from one saved state their order. No scripted controller takes part.

A run is a folder: ``config.yaml``, ``expert/`` (an expert's run, trained first where there is none),
``checkpoint/`` (newest bundle, ``learner.pt``), ``best/``, ``train.csv``, ``eval.csv``. Stopped by Ctrl-C or
SIGTERM, it goes on where it was, killed, from its last checkpoint; decisions are made anew.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint import manifest
from tdmpc2_core.config import check_fields, setting, to_mapping
from tdmpc2_core.envs.robot.batch import PRIVILEGED, BatchEnv
from tdmpc2_core.envs.robot.bursts import BurstConfig, BurstNoise
from tdmpc2_core.errors import UserError
from tdmpc2_core.learning.actor import ActorOptions
from tdmpc2_core.learning.branches import BranchBuffer, Branches
from tdmpc2_core.learning.expert import Critic, CriticConfig, CriticLearner, Experience, Expert
from tdmpc2_core.learning.learner import Learner, LearnerConfig, PrivilegedTargets
from tdmpc2_core.learning.memory import keep_freed_memory
from tdmpc2_core.learning.replay import ReplayBuffer
from tdmpc2_core.model import WorldModel, world_model_config
from tdmpc2_core.planning.planners import PlannerConfig, planner_preset
from tdmpc2_core.planning.trust_region import TrustRegion
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.evaluation import evaluate_agent, summary
from tdmpc2_core.train.expert import ExpertRunConfig, ExpertTrainer, load_expert
from tdmpc2_core.train.online import EVALUATION_SEED, set_matmul_precision
from tdmpc2_core.train.run import RunLog, Stop, command_line, keep_settings, save_checkpoint
from tdmpc2_core.train.train_config import LOG_WHY, LogTo

_MAY_CHANGE = (
    *("updates", "threads", "matmul_precision", "out"),
    *("log", "eval_every", "eval_seconds", "eval_episodes", "checkpoint_every"),
    *("learner.lr", "learner.enc_lr_scale", "lr_end", "critic.lr"),
)


def student_learner() -> LearnerConfig:
    """What differs from the paper: labels in place of bootstraps, and windows longer than the plan."""
    return LearnerConfig(
        horizon=8,
        rho=0.9,
        consistency_coef=20.0,
        reward_coef=0.3,
        value_coef=0.3,
        imitation_coef=1.0,
        soft_termination=True,
        actor_states="mixed",
        actor=ActorOptions(objective="bmpc", entropy_coef=0.0, plan_min_std=0.02),
    )


def student_planner() -> PlannerConfig:
    """A search in the neighbourhood of the prior."""
    return replace(
        planner_preset("tiny"),
        horizon=8,
        iterations=1,
        num_pi_trajs=16,
        prior_weight=1.0,
        min_std=0.05,
        max_std=0.3,
        noise_correlation=0.9,
        soft_termination=True,
        trust_region=TrustRegion(valued_mode=True),
    )


@dataclass(frozen=True)
class BranchingConfig:
    """Several plans from one state, by which the model learns which is better."""

    count: int = setting(8, low=0, why="branches of a state, the prior's own among them; 0: none")
    decisions: int = setting(8, low=1, unit="decisions", why="of a branch; then the critic values it")
    every: int = setting(2, low=1, why="rollouts between")
    spread: tuple[float, float] = setting(
        (0.03, 0.4), above=0, unit="normalised action", why="of the noise on the prior, drawn per state"
    )
    correlation: tuple[float, float] = setting((0.0, 0.95), low=0, below=1, why="of that noise, as of bursts")
    capacity: int = setting(30_000, low=1, unit="states", why="the newest are kept")
    batch: int = setting(24, low=1, unit="states", why="per update")


@dataclass(frozen=True)
class StudentConfig:
    """Settings of a run; saved in its folder and checked on resume."""

    robot: str = setting("quadruped", why="shipped robot, or path of an embodiment folder or file")
    out: Path | None = setting(None, why="run folder; runs/NAME of the robot if absent")
    expert: Path | None = setting(None, why="folder of an expert's run; without one it is trained first")
    expert_decisions: int = setting(8_000_000, above=0, unit="decisions", why="of an expert trained first")
    seed: int = setting(1, low=0, why="of robots, networks and draws")
    updates: int = setting(20_000, above=0, why="of the world model; where a run ends")
    threads: int = setting(2, low=1, why="of physics and of torch; they take turns")
    matmul_precision: str = setting(
        "medium", accepted=("highest", "high", "medium"), why="of products while learning; see tdmpc2 train"
    )
    model_size: str = setting("robot", accepted=("tiny", "robot", "1", "5"), why="row of the table of sizes")
    robots: int = setting(128, low=1, why="simulated side by side")
    decisions: int = setting(16, low=2, unit="decisions", why="per robot, between updates")
    updates_per_cycle: int = setting(8, low=1, why="after each of those rollouts")
    capacity: int = setting(1_000_000, low=1000, unit="decisions", why="over all robots")
    warm_up: int = setting(60_000, above=0, unit="decisions", why="before the first update; sets the ranges")
    guided: float = setting(
        0.3, low=0, high=1, why="share of the updates in which the expert acts, ever less"
    )
    prior_std: float = setting(
        0.05, above=0, unit="normalised action", why="spread of the prior around what the expert does"
    )
    state_coef: float = setting(0.5, low=0, why="weight of reading the true state from the latents")
    lr_end: float = setting(0.1, above=0, high=1, why="learning rate at the end, of that at the start")
    eval_every: int = setting(2_500, above=0, unit="updates", why="evaluation on the fixed course")
    eval_seconds: float = setting(10.0, above=0, unit="s", why="length of an evaluation episode")
    eval_episodes: int = setting(16, low=1, why="evaluated side by side")
    log: LogTo = setting("csv", why=LOG_WHY)
    checkpoint_every: int = setting(1_000, above=0, unit="updates", why="what a kill can cost")
    branches: BranchingConfig = field(default_factory=BranchingConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    bursts: BurstConfig = field(
        default_factory=lambda: BurstConfig(std=(0.02, 0.6), on=(5, 50), off=(5, 80), clean_share=0.05)
    )
    learner: LearnerConfig = field(default_factory=student_learner)
    planner: PlannerConfig = field(default_factory=student_planner)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def folder(self) -> Path:
        """That of the run. Raises UserError when there is no such robot."""
        return self.out or Path("runs") / Embodiment.load(self.robot).name


class Rollout(NamedTuple):
    """T decisions of N robots for the critic, and which of the actions (T, N) were without noise."""

    experience: Experience
    followed: Tensor
    reward: float
    falls: float


class Collector:
    """Robots that act by the prior or, as long as it guides, by the expert; bursts of noise on both.

    Args:
        guided: share of the robots that the expert drives, drawn anew with every episode.
        level: of the robots (N,) in their curriculum; that of its start if absent.
    """

    def __init__(
        self,
        config: StudentConfig,
        embodiment: Embodiment,
        expert: Expert,
        critic: Critic,
        seed: int,
        level: Tensor | None = None,
    ) -> None:
        self.config, self.expert, self.critic = config, expert, critic
        self.env = BatchEnv(embodiment, config.robots, seed, threads=config.threads)
        self.noise = BurstNoise(config.robots, config.bursts, seed)
        self.guided = 1.0
        self._rng = np.random.default_rng(seed)
        self._by_expert = np.ones(config.robots, dtype=bool)
        if level is not None:
            self.env.level = level.numpy()
        self._observed = torch.from_numpy(self.env.reset())
        self._privileged = torch.from_numpy(self.env.privileged())

    @torch.no_grad()
    def collect(self, replay: ReplayBuffer, model: WorldModel | None) -> Rollout:
        """One rollout into the replay; without a model the expert acts alone."""
        rows: list[dict[str, Tensor]] = []
        for _ in range(self.config.decisions):
            observed, privileged = self._observed, self._privileged
            wanted = self.expert.mean(privileged)
            chosen = wanted
            if model is not None:
                prior = model.policy(model.encode(observed)).mean
                chosen = torch.where(torch.from_numpy(self._by_expert)[:, None], wanted, prior)
            quiet = torch.from_numpy(~self.noise.active)
            action = torch.from_numpy(self.noise.disturb(chosen.numpy())).float()
            step = self.env.step(action.numpy())
            ended = step.terminated | step.truncated
            self.noise.restart(ended)
            self._by_expert[ended] = self._rng.random(int(ended.sum())) < self.guided
            reward, terminated = torch.from_numpy(step.reward).float(), torch.from_numpy(step.terminated)
            spread = torch.full_like(wanted, self.config.prior_std)
            replay.add_step(observed, action, reward, terminated, wanted, spread, privileged)
            final = torch.from_numpy(step.final_privileged)
            if ended.any():
                lanes = np.flatnonzero(ended)
                replay.close_lanes(lanes, torch.from_numpy(step.final_observation[lanes]), final[lanes])
            rows.append(
                {
                    "observation": privileged,
                    "action": action,
                    "log_prob": torch.zeros_like(reward),
                    "value": self.critic(privileged),
                    "reward": reward,
                    "terminated": terminated,
                    "truncated": torch.from_numpy(step.truncated),
                    "timeout": self.critic(final),
                    "followed": quiet,
                }
            )
            self._observed = torch.from_numpy(step.observation)
            self._privileged = torch.from_numpy(step.privileged)
        columns = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        followed = columns.pop("followed")
        experience = Experience(**columns, last_value=self.critic(self._privileged))
        calm = experience.reward[followed]
        falls = 1000.0 * float(experience.terminated.float().mean())
        return Rollout(experience, followed, float(calm.mean()), falls)

    @torch.no_grad()
    def branch(self, model: WorldModel) -> Branches:
        """Branches from the present states of some robots; all robots are then back where they were."""
        config, rng = self.config.branches, self._rng
        kept, groups = self.env.state(), self.config.robots // config.count
        starts = rng.choice(self.config.robots, groups, replace=False)
        rows = np.repeat(starts, config.count)
        low, high = (float(bound) for bound in np.log(config.spread))
        spread = np.exp(rng.uniform(low, high, (groups, 1, 1)))
        held = rng.uniform(*config.correlation, (groups, 1, 1))
        size = self.env.embodiment.action_dim
        noise = rng.normal(size=(groups, config.count, size))
        discount = self.config.critic.discount
        worth, alive = np.zeros(len(rows)), np.ones(len(rows))
        actions = np.zeros((groups, config.count, config.decisions, size), np.float32)
        first = self._observed[starts]
        self.env.restore(kept.take(rows.tolist()))
        observed = first
        for t in range(config.decisions):
            prior = model.policy(model.encode(observed)).mean.numpy()[:, None]
            shaken = spread * noise * (np.arange(config.count) > 0)[:, None]  # the first is the prior
            actions[:, :, t] = np.clip(prior + shaken, -1.0, 1.0)
            step = self.env.step(actions[:, :, t].reshape(-1, size))
            worth += discount**t * alive * step.reward
            alive *= ~step.terminated
            final = self.critic(torch.from_numpy(step.final_privileged)).numpy()
            over = step.truncated | (t + 1 == config.decisions)
            worth += discount ** (t + 1) * alive * over * final
            alive *= ~over
            observed = torch.from_numpy(step.final_observation[:: config.count])
            noise = held * noise + np.sqrt(1.0 - held**2) * rng.normal(size=noise.shape)
        self.env.restore(kept)
        shape = groups, config.count
        return Branches(first, torch.from_numpy(actions), torch.from_numpy(worth).float().view(shape))

    @property
    def readings(self) -> tuple[str, ...]:
        """Names of the privileged entries (P,), block by block."""
        blocks = self.env.privileged_layout().items()
        return tuple(name for name, where in blocks for _ in range(where.stop - where.start))

    @property
    def scales(self) -> Tensor:
        """What the privileged entries (P,) are multiples of, in SI units."""
        scale = {row.name: row.scale for row in PRIVILEGED}
        return torch.tensor([scale[name] for name in self.readings])

    @property
    def observed(self) -> Tensor:
        """The present observations (N, O)."""
        return self._observed


@dataclass
class Progress:
    """Counters that a checkpoint keeps."""

    updates: int = 0
    decisions: int = 0
    seconds: float = 0.0  # wall time over all parts of the run, an expert's left out
    resumes: int = 0
    best: float = float("-inf")  # reward per decision of the bundle in best/


class StudentTrainer:
    """Rollouts and updates in turn, until ``config.updates``.

    Raises:
        UserError: the robot is unknown, the expert is another robot's, a state has more branches than there
            are robots, or the folder holds a run with other settings.
    """

    def __init__(self, config: StudentConfig) -> None:
        self.config, self.folder = config, config.folder
        if config.branches.count > config.robots:
            count = config.branches.count
            raise UserError(f"branches.count is {count}, must be at most robots ({config.robots})")
        self.embodiment = Embodiment.load(config.robot)
        self.log = RunLog(self.folder, config.log)
        keep_settings(self.folder, config, _MAY_CHANGE)
        torch.set_num_threads(config.threads)
        keep_freed_memory()
        self.expert = self._expert()
        # a kill may have left it under another name
        self._newest = manifest.whole(self.folder / "checkpoint")
        self.progress, state = Progress(), self._stored()
        if state:
            self.progress = Progress(**state["progress"])
            self.progress.resumes += 1
        seed = int(np.random.default_rng([config.seed, self.progress.resumes]).integers(2**31))
        self.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(config.seed)
        known = self.expert.observation_dim
        critic = Critic(self.expert.normaliser, known, config.critic.hidden)
        self.critic = CriticLearner(critic, config.critic, self.generator)
        level = state.get("level")
        self.collector = Collector(config, self.embodiment, self.expert, critic, seed, level)
        self.replay = ReplayBuffer(
            config.robots,
            config.capacity // config.robots,
            self.embodiment.observation_dim,
            self.embodiment.action_dim,
            generator=torch.Generator().manual_seed(seed + 1),
            privileged_dim=known,
        )
        branching = config.branches
        self.branches = BranchBuffer(
            branching.capacity,
            (max(branching.count, 1), branching.decisions, self.embodiment.action_dim),
            self.embodiment.observation_dim,
            torch.Generator().manual_seed(seed + 2),
        )
        if state:
            self.critic.load_state_dict(state["critic"])
            for group in self.critic.optimiser.param_groups:
                group["lr"] = config.critic.lr  # it may be another than before
        self._warm_up()
        self.agent = self._agent()
        self.learner = self._learner()
        if state:
            self.learner.load_state_dict(state["learner"])
        self._stop = Stop()
        self._clock, self._cycles = time.monotonic(), 0

    # ---- set-up ----
    def _expert(self) -> Expert:
        folder = self.config.expert or self.folder / "expert"
        if self.config.expert is None:
            own = ExpertRunConfig(
                robot=self.config.robot, out=folder, seed=self.config.seed,
                decisions=self.config.expert_decisions, threads=self.config.threads, log=self.config.log,
            )  # fmt: skip
            ExpertTrainer(own).train()
        return load_expert(folder, self.embodiment)

    def _stored(self) -> dict[str, Any]:
        return {} if self._newest is None else torch.load(self._newest / "learner.pt", weights_only=True)

    def _warm_up(self) -> None:
        config = self.config
        with tqdm(total=config.warm_up, desc="warm up", unit="decision", unit_scale=True) as bar:
            done = 0
            while done < config.warm_up:
                rollout = self.collector.collect(self.replay, None)
                self.critic.update(rollout.experience, rollout.followed)
                done += config.robots * config.decisions
                bar.update(config.robots * config.decisions)

    def _agent(self) -> Agent:
        config, robot = self.config, self.embodiment
        if self._newest is not None:
            return Agent.load(self._newest, embodiment=robot, planner=config.planner)
        size = int(config.model_size) if config.model_size.isdigit() else config.model_size
        sample = self.replay.sample(20_000, 1)
        assert sample.privileged is not None
        with torch.no_grad():
            values = self.critic.critic(sample.privileged).flatten()
        model = WorldModel(
            world_model_config(
                size,
                robot.observation_dim,
                robot.action_dim,
                episodic=True,
                normalise_obs=True,
                reward_range=_range(sample.reward.flatten()),
                value_range=_range(torch.cat([values, torch.zeros(1)])),
                readings=self.collector.readings,
            ),
            torch.Generator().manual_seed(config.seed),
        )
        normaliser, scale = self.expert.normaliser, self.collector.scales
        with torch.no_grad():
            model.state_mean.copy_(normaliser.mean / scale)
            model.state_scale.copy_(normaliser.variance.sqrt().clamp(min=normaliser.min_std) / scale)
        agent = Agent(model, config.planner, config.critic.discount, robot, seed=config.seed)
        agent.observe(sample.obs[0].numpy())
        return agent

    def _learner(self) -> Learner:
        critic = self.critic.critic
        targets = PrivilegedTargets(critic, critic.normal, self.config.state_coef)
        config = replace(self.config.learner, discount=self.config.critic.discount)
        return Learner(self.agent.model, config, self.generator, privileged=targets)

    # ---- the loop ----
    def train(self) -> None:
        """Run to the end; a checkpoint is written then, too, and on Ctrl-C and SIGTERM.

        Raises:
            KeyboardInterrupt: after that, with a sentence.
            UserError, OSError: the disk refuses.
        """
        with self._stop.keeping(self._keep):
            self._loop()
            self.checkpoint()

    def _keep(self) -> str:
        self.checkpoint()
        return f"student stopped at update {self.progress.updates}; the same command goes on from there"

    def _loop(self) -> None:
        config, progress = self.config, self.progress
        bar = tqdm(total=config.updates, initial=progress.updates, desc="student", unit="update")
        sums: dict[str, float] = {}
        cycles = 0
        with bar:
            while progress.updates < config.updates:
                before = progress.updates
                row = self._cycle()
                cycles += 1
                for name, value in row.items():
                    sums[name] = sums.get(name, 0.0) + value
                bar.update(progress.updates - before)
                bar.set_postfix(reward=f"{row['reward']:.3f}", falls=f"{row['falls per 1000']:.2f}")
                if _crossed(before, progress.updates, 200):
                    means = {name: total / cycles for name, total in sums.items()}
                    self.log.scalars("train", progress.updates, means | {"decisions": progress.decisions})
                    sums, cycles = {}, 0
                if _crossed(before, progress.updates, config.eval_every):
                    self._evaluate(bar)
                if _crossed(before, progress.updates, config.checkpoint_every):
                    self.checkpoint()

    def _cycle(self) -> dict[str, float]:
        config, progress = self.config, self.progress
        done = progress.updates / config.updates
        self.collector.guided = max(0.0, 1.0 - done / config.guided) if config.guided else 0.0
        set_matmul_precision("highest")
        self._stop.check()
        rollout = self.collector.collect(self.replay, self.agent.model)
        explained = self.critic.update(rollout.experience, rollout.followed)
        self._cycles += 1
        if config.branches.count and self._cycles % config.branches.every == 0:
            self.branches.add(self.collector.branch(self.agent.model))
        self.agent.observe(self.collector.observed.numpy())
        progress.decisions += config.robots * config.decisions
        row = {"reward": rollout.reward, "falls per 1000": rollout.falls, "critic explained": explained}
        self._set_rate(config.lr_end ** max(0.0, 2.0 * done - 1.0))
        set_matmul_precision(config.matmul_precision)
        sums: dict[str, Tensor] = {}
        for _ in range(config.updates_per_cycle):
            self._stop.check()
            batch = self.replay.sample(config.learner.batch_size, config.learner.window)
            told = self.branches.sample(config.branches.batch) if len(self.branches) else None
            for name, value in self.learner.update(batch, branches=told).items():
                sums[name] = sums[name] + value if name in sums else value.clone()
            progress.updates += 1
        set_matmul_precision("highest")
        return row | {name: float(total) / config.updates_per_cycle for name, total in sums.items()}

    def _set_rate(self, share: float) -> None:
        """Learning rates as a share of their first ones; those fall over the second half of a run."""
        lr, encoder = self.config.learner.lr, self.config.learner.enc_lr_scale
        for group in self.learner.optimiser.param_groups:
            group["lr"] = share * lr * (encoder if group["name"] == "encoder" else 1.0)
        for group in self.learner.policy_optimiser.param_groups:
            group["lr"] = share * lr

    def _evaluate(self, bar: tqdm[NoReturn]) -> None:
        config, progress = self.config, self.progress
        for name, planner in (("prior", replace(config.planner, method="policy")), ("plan", config.planner)):
            agent = self.agent.fork(planner, config.seed)
            with self._stop.at_once():
                result = evaluate_agent(agent, config.eval_seconds, config.eval_episodes, EVALUATION_SEED)
            self.log.scalars("eval", progress.updates, {"plans": float(name == "plan"), **vars(result)})
            bar.write(f"update {progress.updates}, {name}: {summary(result)}", file=sys.stderr)
            if name == "prior" and result.return_per_step > progress.best:
                progress.best = result.return_per_step
                found = self.provenance() | {"evaluation": asdict(result)}
                self.agent.save(self.folder / "best", provenance=found)

    # ---- checkpoints ----
    def checkpoint(self) -> None:
        """Write bundle and learner state; the former checkpoint stays until the new one is whole."""
        self.progress.seconds += time.monotonic() - self._clock
        self._clock = time.monotonic()
        state = {
            "learner": self.learner.state_dict(),
            "critic": self.critic.state_dict(),
            "level": torch.from_numpy(self.collector.env.level),
            "progress": asdict(self.progress),
        }
        save_checkpoint(self.folder, self.agent, self.provenance(), state)

    def provenance(self) -> dict[str, Any]:
        """How these weights came about: command, decisions, updates, wall time."""
        settings = to_mapping(self.config)
        settings = {name: value for name, value in settings.items() if name not in ("out", "expert")}
        return {
            "command": command_line([word for word in sys.argv[1:] if not word.startswith("expert=")]),
            "updates": self.progress.updates,
            "decisions": self.progress.decisions,
            "wall_seconds": round(self.progress.seconds + time.monotonic() - self._clock),
            "resumes": self.progress.resumes,
            "settings": settings,
        }


def _crossed(before: int, after: int, every: int) -> bool:
    return before // every != after // every


def _range(values: Tensor) -> tuple[float, float]:
    """Bins for values (n,): all but one in a thousand at either end, and a tenth more on both sides."""
    low, high = (float(x) for x in values.quantile(torch.tensor([0.001, 0.999])))
    room = 0.1 * max(high - low, 1e-3)
    return round(low - room, 3), round(high + room, 3)
