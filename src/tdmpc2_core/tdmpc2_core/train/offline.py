"""Training on recorded episodes of one or several tasks, without an environment (`tdmpc2 pretrain`).

Reads the published data sets mt30 and mt80 (TD-MPC2 paper, section 4), other folders of such chunks, and the
runs of `tdmpc2 train` and `tdmpc2 collect`; of several robots it makes one agent with as many bodies.
``torchrun -m tdmpc2_core.cli pretrain ...`` learns in several processes.

A run is a folder: ``config.yaml``, ``checkpoint/`` (newest bundle, ``learner.pt``), ``train.csv``,
``eval.csv``. Stopped by Ctrl-C or SIGTERM, it goes on where it was; killed, from its last checkpoint.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, Protocol

import numpy as np
import torch
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint import manifest
from tdmpc2_core.checkpoint.bundle import ROBOT_FOLDER, check_same_robot, load_bundle
from tdmpc2_core.checkpoint.published_tasks import TASK_SETS, published_task
from tdmpc2_core.config import check_fields, from_mapping, read_yaml, setting, to_mapping
from tdmpc2_core.data.episodes import Episode, read_episode, stored_files
from tdmpc2_core.envs.registry import DOMAINS, env_spec, known_task
from tdmpc2_core.errors import UserError
from tdmpc2_core.learning.batch import Batch
from tdmpc2_core.learning.learner import Learner, LearnerConfig
from tdmpc2_core.learning.losses import discount_for
from tdmpc2_core.learning.replay import ReplayBuffer, Sampling, concatenate
from tdmpc2_core.learning.shards import Shards
from tdmpc2_core.model import WorldModel, world_model_config
from tdmpc2_core.planning.planners import PlannerConfig, planner_preset
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.robots.embodiment import FILE_NAME
from tdmpc2_core.scoring.evaluation import evaluate_robot, evaluate_task, summary
from tdmpc2_core.train.online import EVALUATION_SEED
from tdmpc2_core.train.run import RunLog, Stop, command_line, keep_settings, pick_device, save_checkpoint
from tdmpc2_core.train.student import student_learner
from tdmpc2_core.train.together import Together
from tdmpc2_core.train.train_config import LOG_WHY, LogTo, TrainConfig

_MAY_CHANGE = (
    *("updates", "out", "threads", "device", "learner.lr", "learner.enc_lr_scale"),
    *("eval_every", "eval_episodes", "checkpoint_every", "log", "log_every"),
)
_ROBOT_SECONDS = 10.0  # of a robot's evaluation episode
_STATISTICS = 200  # batches that observation statistics come from
_TASK_DIM = 96  # of task embeddings, where the size and the set have none of their own


@dataclass(frozen=True)
class OfflineConfig:
    """Everything that decides a run; saved in its folder and checked on resume."""

    data: tuple[str, ...] = setting(
        (),
        why="folders of chunk_*.pt, run folders of `tdmpc2 collect` or `train`, or TASK=FOLDER of an episode "
        "store",
    )
    tasks: str = setting(
        "", why="of the chunks, in the order of their numbers: mt30, mt80 or names with commas between"
    )
    start: str = setting(
        "", why="bundle to go on from, such as an imported checkpoint; a new model of model_size if empty"
    )
    like: tuple[str, ...] = setting(
        (), why="NEW=KNOWN: the embedding of a task that `start` lacks begins as that of a similar one"
    )
    out: Path = setting(Path("runs/offline"), why="run folder")
    seed: int = setting(1, low=0, why="of weights and batches")
    updates: int = setting(100_000, above=0, why="gradient steps")
    model_size: Literal["tiny", "robot", "1", "5", "19", "48", "317"] = setting(
        "5", why="row of the architecture table"
    )
    normalise_observations: bool = setting(
        False, why="mean and std of every task's entries inside a new model; robots need it"
    )
    discount: float = setting(
        0.0, low=0, high=1, unit="per decision", why="of every task; 0: by the length of its episodes"
    )
    sampling: Literal["decisions", "episodes"] = setting(
        "episodes", why="of episode stores, drawn with equal weight; episodes over-draws short ones"
    )
    device: str = setting("auto", why="torch device; auto: a GPU where there is one")
    threads: int = setting(1, low=1, why="torch threads of a process")
    log_every: int = setting(500, above=0, unit="updates", why="rows of train.csv")
    eval_every: int = setting(
        10_000, above=0, unit="updates", why="evaluation on every task that runs on this machine"
    )
    eval_episodes: int = setting(2, low=0, why="of each task; 0 evaluates none")
    log: LogTo = setting("csv", why=LOG_WHY)
    checkpoint_every: int = setting(2_000, above=0, unit="updates", why="what a kill can cost")
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    planner: PlannerConfig = field(default_factory=lambda: planner_preset("paper"))

    def __post_init__(self) -> None:
        check_fields(self)


PRESETS = ("paper", "robots")


def offline_preset(name: str) -> OfflineConfig:
    """Settings to start from.

    ``paper``: those of TD-MPC2 on recorded data.
    ``robots``: for what `tdmpc2 collect` recorded; the prior imitates what the teacher would have done, with
    the student's losses, and the values are those of the prior.
    """
    if name == "paper":
        return OfflineConfig()
    return OfflineConfig(
        model_size="robot",
        normalise_observations=True,
        discount=0.97,
        sampling="decisions",
        learner=replace(student_learner(), horizon=4, n_step=3),
        planner=planner_preset("policy"),
        eval_episodes=8,
    )


class Source(Protocol):
    """Where windows come from."""

    def __len__(self) -> int:
        """Decisions."""
        ...

    def sample(self, batch_size: int, window: int) -> Batch:
        """`batch_size` windows of `window` decisions."""
        ...


class Data(NamedTuple):
    """What a run learns from: sources, the names, sizes and episode lengths of their tasks."""

    sources: list[Source]
    tasks: tuple[str, ...]
    observation_dim: int  # of all rows; shorter observations are filled up with zeros
    action_dim: int  # of all rows
    action_dims: tuple[int, ...]
    lengths: tuple[int, ...]
    observation_dims: tuple[int, ...] = ()  # of the tasks of episode stores
    bodies: tuple[Embodiment, ...] = ()  # the tasks that are robots


class Stored(NamedTuple):
    """Episode stores of a task, and the robot that it is."""

    folders: list[Path]
    robot: Embodiment | None


def read_data(config: OfflineConfig, seed: int, agent: Agent | None = None) -> Data:
    """All data of a run, as long as the model of `agent` needs it where one is given.

    Raises:
        UserError: a folder holds no data, an episode or chunk is damaged, a task has no name or size, or the
            data does not fit the agent's model.
    """
    needed = (0, 0) if agent is None else (agent.model.config.obs_dim, agent.model.config.action_dim)
    data = _read(config, seed, needed)
    given = data.observation_dim, data.action_dim
    if agent is not None and given != needed:
        raise UserError(
            f"data= has {given[0]} observation and {given[1]} action entries, the model {needed[0]} and "
            f"{needed[1]}; start from a model of these sizes"
        )
    return data


def _read(config: OfflineConfig, seed: int, needed: tuple[int, int]) -> Data:
    if not config.data:
        raise UserError("data= is empty; give folders of chunks, runs of `tdmpc2 train`, or TASK=FOLDER")
    chunked, stored = list[Path](), dict[str, Stored]()
    for given in config.data:
        task, _, folder = given.rpartition("=")
        path = Path(folder)
        if any(path.glob("chunk_*.pt")):
            chunked.append(path)
        else:
            name, store, robot = (task, path, None) if task else _run_of(path)
            known = stored.setdefault(name, Stored([], robot))
            if robot and known.robot and robot.fingerprint != known.robot.fingerprint:
                raise UserError(
                    f"{path}: was recorded with another {name!r} than {known.folders[0]}; use those of one"
                )
            known.folders.append(store)
    if chunked and stored:
        raise UserError("data= names chunks and episode stores; a run has one of the two")
    return _chunks(config, chunked, seed) if chunked else _stores(stored, config.sampling, seed, needed)


def _run_of(folder: Path) -> tuple[str, Path, Embodiment | None]:
    """Task, episode store and robot of a run of `tdmpc2 collect` or `train`."""
    settings, store = folder / "config.yaml", folder / "episodes"
    if (folder / ROBOT_FOLDER / FILE_NAME).is_file():
        robot = Embodiment.load(folder / ROBOT_FOLDER)
        return robot.name, store, robot
    if not settings.is_file() or not store.is_dir():
        raise UserError(
            f"{folder}: neither chunk_*.pt nor a run of `tdmpc2 collect` or `train`; give TASK={folder} for "
            "episodes"
        )
    run = from_mapping(TrainConfig, read_yaml(settings), str(settings))
    spec = env_spec(run.environment)
    return spec.name, store, spec.embodiment


def _names(config: OfflineConfig, count: int) -> tuple[str, ...]:
    names = TASK_SETS.get(config.tasks) or tuple(filter(None, config.tasks.split(",")))
    if len(names) < count:
        raise UserError(
            f"the chunks have {count} tasks and tasks={config.tasks} names {len(names)}; give mt30, mt80 or "
            "all their names in order, commas between"
        )
    return names


def _sizes(task: str) -> tuple[int, int, int]:
    """Observation and action entries and episode length of a task."""
    published = published_task(task)
    if published is not None:
        return published.obs_dim, published.action_dim, published.episode_length
    spec = env_spec(known_task(task))
    return spec.observation_dim, spec.action_dim, spec.episode_length


def _chunks(config: OfflineConfig, folders: list[Path], seed: int) -> Data:
    shards = [Shards(folder, torch.Generator().manual_seed(seed + k)) for k, folder in enumerate(folders)]
    names = _names(config, max(each.tasks for each in shards))
    sizes = {(each.observation_dim, each.action_dim) for each in shards}
    if len(sizes) > 1:
        raise UserError(f"data= has chunks of different sizes of obs and action: {sorted(sizes)}")
    ((observation_dim, action_dim),) = sizes
    known = [_sizes(name) for name in names]
    return Data(
        list(shards),
        names,
        observation_dim,
        action_dim,
        action_dims=tuple(a for _, a, _ in known),
        lengths=tuple(n for _, _, n in known),
    )


def _stores(stored: dict[str, Stored], sampling: Sampling, seed: int, needed: tuple[int, int]) -> Data:
    """needed: observation and action entries that the model has."""
    episodes: list[list[Episode]] = []
    for folders, robot in stored.values():
        paths = [path for folder in folders for path in stored_files(folder)]
        episodes.append([read_episode(path)[0] for path in paths])
        _check_body(robot, episodes[-1], folders[0])
    observation_dims = tuple(each[0].observation.shape[1] for each in episodes)
    observation_dim = max(needed[0], *observation_dims)
    action_dims = tuple(each[0].action.shape[1] for each in episodes)
    action_dim = max(needed[1], *action_dims)
    rows = sum(len(episode) + 1 for each in episodes for episode in each)
    replay = ReplayBuffer(
        1, rows, observation_dim, action_dim, sampling=sampling, several_tasks=len(stored) > 1,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    for task, each in enumerate(episodes):
        for episode in each:
            replay.add_episode(0, _padded(episode, task, observation_dim, action_dim))
    lengths = tuple(max(map(len, each)) for each in episodes)
    bodies = tuple(each.robot for each in stored.values() if each.robot is not None)
    return Data(
        [replay], tuple(stored), observation_dim, action_dim, action_dims, lengths, observation_dims, bodies
    )


def _check_body(robot: Embodiment | None, episodes: list[Episode], folder: Path) -> None:
    """Raise UserError where episodes have other sizes than the robot that they are said to be of."""
    if robot is None:
        return
    sizes = robot.observation_dim, robot.action_dim
    for episode in episodes:
        if (episode.observation.shape[1], episode.action.shape[1]) != sizes:
            raise UserError(
                f"{folder}: an episode has {episode.observation.shape[1]} observation and "
                f"{episode.action.shape[1]} action entries, robot {robot.name!r} has {sizes[0]} and "
                f"{sizes[1]}; record it again"
            )


def _padded(episode: Episode, task: int, observation_dim: int, action_dim: int) -> Episode:
    """With zeros up to the longest of all tasks."""

    def wide(values: np.ndarray, size: int) -> np.ndarray:
        return np.pad(values, ((0, 0), (0, size - values.shape[1])))

    return replace(
        episode,
        task=task,
        observation=wide(episode.observation, observation_dim),
        action=wide(episode.action, action_dim),
        plan_mean=wide(episode.plan_mean, action_dim),
        plan_std=wide(episode.plan_std, action_dim),
    )


class OfflineTrainer:
    """Updates on recorded episodes until ``config.updates``.

    Raises:
        UserError: data or start are of no use, or the folder holds a run with other settings.
    """

    def __init__(self, config: OfflineConfig) -> None:
        self.config, self.folder, self.together = config, config.out, Together()
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        if config.learner.batch_size % self.together.count:
            raise UserError(
                f"learner.batch_size={config.learner.batch_size} has no equal parts for "
                f"{self.together.count} processes"
            )
        self.device = pick_device(self.together.device(config.device))
        newest = manifest.whole(self.folder / "checkpoint")
        state: dict[str, Any] = {}
        if newest is not None:
            state = torch.load(newest / "learner.pt", map_location="cpu", weights_only=True)
        self.updates = int(state.get("updates", 0))
        stored = newest or config.start
        known = Agent.of_bundle(load_bundle(stored), self.device, seed=config.seed) if stored else None
        self.data = read_data(config, config.seed + 7919 * self.updates, known)
        if self.together.first:
            keep_settings(self.folder, config, _MAY_CHANGE)
        self.agent = self._new() if known is None else known if newest is not None else self._started(known)
        several = self.agent.model.config.num_tasks > 0
        discounts = self._discounts
        learner = replace(
            config.learner,
            discount=config.learner.discount if several else discounts[0],
            task_discounts=discounts if several else (),
        )
        self.learner = Learner(
            self.agent.model, learner, torch.Generator(device=self.device).manual_seed(config.seed),
            reduce=self.together.average, gather=self.together.gather,
        )  # fmt: skip
        if state:
            self.learner.load_state_dict(state["learner"])
        weights = torch.tensor([len(source) for source in self.data.sources], dtype=torch.float64)
        self._shares = (weights / weights.sum()).tolist()
        self._learn_statistics()
        self._stop, self._log, self._clock = Stop(), RunLog(self.folder, config.log), time.monotonic()

    def _new(self) -> Agent:
        config, data = self.config, self.data
        several = len(data.tasks) > 1
        size = int(config.model_size) if config.model_size.isdigit() else config.model_size
        task_set = config.tasks if config.tasks in TASK_SETS and isinstance(size, int) else None
        extra: dict[str, Any] = {"normalise_obs": config.normalise_observations}
        if several:
            extra |= {"action_dims": data.action_dims, "obs_dims": data.observation_dims}
        if several and task_set is None:
            extra["task_dim"] = _TASK_DIM
        model = WorldModel(
            world_model_config(size, data.observation_dim, data.action_dim, task_set, **extra),
            torch.Generator().manual_seed(config.seed),
        ).to(self.device)
        return self._agent(model, config.planner, self._discounts[0])

    def _agent(self, model: WorldModel, planner: PlannerConfig, discount: float) -> Agent:
        """For the tasks of the data; robots among them are its bodies, a single one is its own."""
        data, several = self.data, model.config.num_tasks > 0
        alone = None if several else next(iter(data.bodies), None)
        return Agent(
            model, planner, discount, alone, seed=self.config.seed, tasks=() if alone else data.tasks,
            task_discounts=self._discounts if several else (), bodies=data.bodies if several else (),
        )  # fmt: skip

    @property
    def _discounts(self) -> tuple[float, ...]:
        return tuple(self.config.discount or discount_for(length) for length in self.data.lengths)

    def _started(self, agent: Agent) -> Agent:
        """The bundle's agent for the tasks of the data: the same ones, or some beside them."""
        model, data = agent.model, self.data
        own = {robot.name: robot for robot in (*agent.bodies, *filter(None, [agent.embodiment]))}
        for robot in data.bodies:
            if robot.name in own:
                check_same_robot(self.config.start, own[robot.name], robot)
        if agent.tasks == data.tasks or (agent.embodiment and list(own) == list(data.tasks)):
            return agent
        if not model.config.num_tasks:
            raise UserError(
                f"start={self.config.start}: knows {', '.join(agent.tasks or own)} and the data "
                f"{', '.join(data.tasks)}; a bundle of one task goes on with that task"
            )
        similar = dict(pair.split("=", 1) for pair in self.config.like if "=" in pair)
        rows = []
        for task in data.tasks:
            known = similar.get(task, task)
            if known not in agent.tasks:
                raise UserError(f"start={self.config.start}: knows no {task!r}; give like={task}=KNOWN_TASK")
            rows.append(agent.tasks.index(known))
        sizes = data.observation_dims if model.config.obs_dims else ()
        config = replace(model.config, action_dims=data.action_dims, obs_dims=sizes)
        other = WorldModel(config, torch.Generator().manual_seed(self.config.seed)).to(self.device)
        state = model.state_dict() | {"action_masks": other.action_masks}
        if sizes:
            names = [f"normaliser.{name}" for name in ("mean", "variance", "count")]
            state |= {name: state[name][rows] for name in names}
            new = torch.tensor([task not in agent.tasks for task in data.tasks], device=self.device)
            state["normaliser.count"] = state["normaliser.count"] * ~new
        other.load_state_dict(state | {"task_embedding": state["task_embedding"][rows]})
        return self._agent(other, agent.planner_config, agent.discount)

    def _learn_statistics(self) -> None:
        """Mean and std of the observations of tasks that have none yet."""
        normaliser = self.agent.model.normaliser
        fresh = normaliser.count == 0
        if not (normaliser.enabled and bool(fresh.any())):
            return
        for _ in range(_STATISTICS):
            batch = self._sampled(1)
            obs, task = batch.obs[0], batch.task
            if fresh.ndim and task is not None:
                obs, task = obs[fresh[task]], task[fresh[task]]
            self.agent.observe(obs, task)

    # ---- the loop ----
    def train(self) -> None:
        """Run to the end; a checkpoint is written then, too, and on Ctrl-C and SIGTERM.

        Raises:
            KeyboardInterrupt: after that, with a sentence.
            UserError, OSError: a loss is not finite, or the disk refuses.
        """
        with self._stop.keeping(self._keep):
            self._loop()
            self.checkpoint()
        self.together.close()

    def _keep(self) -> str:
        self.checkpoint()
        return f"stopped at update {self.updates}; the same command goes on from there"

    def _loop(self) -> None:
        config, sums = self.config, dict[str, torch.Tensor]()
        bar = tqdm(
            total=config.updates, initial=self.updates, desc="pretrain", unit="update",
            disable=not self.together.first,
        )  # fmt: skip
        with bar:
            while self.updates < config.updates:
                if self.together.any(self._stop.requested):
                    raise KeyboardInterrupt
                batch, draws = self._batch()
                metrics = self.learner.update(batch, draws)
                for name, value in metrics.items():
                    sums[name] = sums[name] + value if name in sums else value
                self.updates += 1
                bar.update()
                if self.updates % config.log_every == 0:
                    self._log_row(sums, bar)
                    sums = {}
                if self.updates % config.eval_every == 0:
                    self._evaluate(bar)
                if self.updates % config.checkpoint_every == 0:
                    self.checkpoint()

    def _batch(self) -> tuple[Batch, Any]:
        batch = self._sampled(self.learner.config.window)
        return self.together.part(batch, self.learner.draw(batch.size))

    def _sampled(self, window: int) -> Batch:
        size = self.config.learner.batch_size
        sizes = [round(share * size) for share in self._shares[1:]]
        parts = [
            source.sample(count, window)
            for source, count in zip(self.data.sources, [size - sum(sizes), *sizes], strict=True)
            if count
        ]
        return concatenate(parts).to(self.device)

    def _log_row(self, sums: dict[str, torch.Tensor], bar: tqdm[NoReturn]) -> None:
        row = {name: value / self.config.log_every for name, value in self.together.mean(sums).items()}
        if not np.isfinite(row["total_loss"]):
            raise UserError(
                f"{self.folder}: the loss is not finite at update {self.updates}; the checkpoint before it "
                "stands; go on from it with a lower learner.lr"
            )
        now = time.monotonic()
        row["updates_per_second"] = self.config.log_every / (now - self._clock)
        self._clock = now
        if self.together.first:
            self._log.scalars("train", self.updates, row)
            bar.set_postfix(loss=f"{row['total_loss']:.3f}")

    def _evaluate(self, bar: tqdm[NoReturn]) -> None:
        """Every task that runs on this machine; scores of 100, as published: a tenth of DMControl's returns,
        elsewhere the share of successes. Of robots the mean reward of a decision, as `tdmpc2 eval` has it."""
        if not self.together.first or not self.config.eval_episodes:
            return
        agent, scores = self.agent.fork(seed=self.config.seed), dict[str, float]()
        runnable = {task for domain in DOMAINS if domain.status == "runnable" for task in domain.tasks}
        for task in [task for task in self.data.tasks if task in runnable]:
            found = evaluate_task(agent, task, self.config.eval_episodes, EVALUATION_SEED)
            told = np.isfinite(found.success)
            scores[task] = 100 * found.success if told else found.mean_return / 10
        row = {"score": float(np.mean(list(scores.values()))), **scores} if scores else {}
        for robot in self.data.bodies:
            driver = self.agent.driving(robot, self.folder) if self.agent.bodies else agent
            result = evaluate_robot(driver, robot, _ROBOT_SECONDS, self.config.eval_episodes, EVALUATION_SEED)
            row[f"reward of {robot.name}"] = result.return_per_step
            bar.write(f"update {self.updates}, {robot.name}: {summary(result)}", file=sys.stderr)
        if scores:
            bar.write(f"update {self.updates}: score {row['score']:.1f} over {len(scores)} tasks")
        if row:
            self._log.scalars("eval", self.updates, row)
        self._clock = time.monotonic()

    def checkpoint(self) -> None:
        """Write bundle and learner; the former checkpoint stays until this one is whole."""
        if not self.together.first:
            return
        about = {"command": command_line(sys.argv[1:]), "updates": self.updates}
        settings = to_mapping(self.config)
        settings.pop("out")
        state = {"learner": self.learner.state_dict(), "updates": self.updates}
        save_checkpoint(self.folder, self.agent, about | {"settings": settings}, state)
