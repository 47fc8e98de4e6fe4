"""Recording a simulated robot that a bundle drives (`tdmpc2 collect`): data to learn from without it.

Robots act with bursts of noise that throw them off, on randomised ground and machines, as the trainers' do.
Beside every decision stands what the driver, or a teacher, would have done there, to be imitated (objective
``bmpc``).

A run is a folder: ``config.yaml``, ``embodiment/`` (the robot), ``episodes/``. Stopped by Ctrl-C or SIGTERM
it keeps the episodes in progress; the same command adds what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint.bundle import ROBOT_FOLDER, robot_files
from tdmpc2_core.config import setting
from tdmpc2_core.data.episodes import EpisodeRecorder, EpisodeStore
from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.envs.robot.bursts import BurstConfig, BurstNoise
from tdmpc2_core.files import making, write_bytes
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.train.run import Stop, keep_settings

_MAY_CHANGE = ("decisions", "out", "threads")


@dataclass(frozen=True)
class SimulationConfig:
    """Decisions of simulated robots."""

    decisions: int = setting(12_000, above=0, unit="decisions", why="over all robots")
    robots: int = setting(32, low=1, why="side by side")
    bursts: BurstConfig = field(
        default_factory=lambda: BurstConfig(std=(0.02, 0.6), on=(5, 50), off=(5, 80), clean_share=0.3)
    )


@dataclass(frozen=True)
class CollectConfig(SimulationConfig):
    """Settings of a recording; saved in its folder and checked when it goes on."""

    decisions: int = setting(100_000, above=0, unit="decisions", why="over all robots; where a run ends")
    robot: str = setting("quadruped", why="shipped robot, or path of an embodiment folder or file")
    bundle: str = setting("", why="drives the robot; the one that comes with the suite if empty")
    teacher: str = setting(
        "", why="bundle whose prior says what it would have done; the driver itself if empty"
    )
    planner: str = setting("policy", why="preset that the driver plans with; empty takes the bundle's own")
    label_std: float = setting(
        0.05, above=0, unit="normalised action", why="spread around what the teacher would have done"
    )
    out: Path | None = setting(None, why="run folder; runs/NAME-data of the robot if absent")
    seed: int = setting(1, low=0, why="of robots and noise")
    threads: int = setting(1, low=1, why="of torch")

    @property
    def folder(self) -> Path:
        """That of the run. Raises UserError when there is no such robot."""
        return self.out or Path("runs") / f"{Embodiment.load(self.robot).name}-data"


class Teacher:
    """Says what a bundle's prior would do; std: the spread that is recorded around it, normalised action."""

    def __init__(self, agent: Agent, std: float) -> None:
        self._agent, self._std = agent, np.float32(std)

    def label(self, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and std (N, A) at observations (N, O)."""
        mean = self._agent.act(observed, evaluate=True, use_prior=True).action
        return mean, np.full_like(mean, self._std)


def simulated(
    agent: Agent,
    embodiment: Embodiment,
    store: EpisodeStore,
    config: SimulationConfig,
    seed: int,
    told: Callable[[int], None] = lambda decisions: None,
    teacher: Teacher | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Episodes of a simulated robot that the agent drives, into `store`, with bursts of noise.

    Those of robots that have not fallen end, truncated, with the last decision.

    Args:
        told: called after every step with the decisions so far.
        teacher: says the plans that are recorded; without one they are the agent's.
        stopped: asked after every step; True makes it the last.
    """
    robots = min(config.robots, config.decisions)
    env, noise = BatchEnv(embodiment, robots, seed), BurstNoise(robots, config.bursts, seed)
    actor = agent.fork(seed=seed)
    observed, first = env.reset(), np.ones(robots, dtype=bool)
    open_ones = [EpisodeRecorder(row) for row in observed]
    steps, step, last = -(-config.decisions // robots), 0, False
    while not last:
        found = actor.act(observed, first, evaluate=True)
        mean, std = teacher.label(observed) if teacher else (found.plan_mean, found.plan_std)
        sent = noise.disturb(found.action).astype(np.float32)
        result = env.step(sent)
        first = result.terminated | result.truncated
        noise.restart(first)
        step += 1
        last = step == steps or stopped()
        for k, recorder in enumerate(open_ones):
            recorder.add(
                result.final_observation[k],
                sent[k],
                float(result.reward[k]),
                bool(result.terminated[k]),
                mean[k],
                std[k],
                float(found.value[k]),
            )
            if first[k] or last:
                store.append(recorder.episode(not result.terminated[k]), source="simulation")
                open_ones[k] = EpisodeRecorder(result.observation[k])
        observed = result.observation
        told(step * robots)


def collect(config: CollectConfig) -> int:
    """Record until the folder holds `config.decisions`; returns how many it holds.

    Raises:
        UserError: the robot or a bundle is unknown or they do not fit, or the folder has other settings.
        KeyboardInterrupt: stopped; what was recorded is in the folder.
    """
    embodiment = Embodiment.load(config.robot)
    torch.set_num_threads(config.threads)
    bundle, planner = config.bundle or embodiment.name, config.planner or None
    driver = Agent.load(bundle, embodiment=embodiment, planner=planner)
    named = Agent.load(config.teacher, embodiment=embodiment) if config.teacher else driver
    keep_settings(config.folder, config, _MAY_CHANGE)
    store, robot = EpisodeStore(config.folder / "episodes"), config.folder / ROBOT_FOLDER
    if not robot.exists():
        with making(robot) as partial:
            for name, data in robot_files(embodiment).items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                write_bytes(partial / name, data)
    held = sum(len(episode) for episode, _ in store)
    missing = config.decisions - held
    if missing <= 0:
        return held
    stop, part = Stop(), SimulationConfig(missing, config.robots, config.bursts)
    seed = int(np.random.default_rng([config.seed, len(store)]).integers(2**31))
    with tqdm(total=config.decisions, initial=held, desc=embodiment.name, unit="decision") as bar, stop:

        def told(decisions: int) -> None:
            bar.update(held + decisions - bar.n)

        simulated(
            driver, embodiment, store, part, seed, told,
            Teacher(named, config.label_std), lambda: stop.requested,
        )  # fmt: skip
    if stop.requested:
        raise KeyboardInterrupt(f"{config.folder}: stopped; the same command adds what is missing")
    return held + -(-missing // config.robots) * config.robots
