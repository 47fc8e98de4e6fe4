"""Training an expert by reinforcement alone: no scripted controller, no labels (`tdmpc2 expert`).

A run is a folder: ``config.yaml``, ``expert.safetensors``, ``learner.pt`` to go on from, ``train.csv``.
Stopped by Ctrl-C or SIGTERM, it goes on where it was; killed, from its last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from tdmpc2_core.config import check_fields, from_mapping, setting, to_mapping
from tdmpc2_core.envs.robot.batch import BatchEnv
from tdmpc2_core.errors import UserError
from tdmpc2_core.files import write_bytes, write_json, write_torch
from tdmpc2_core.learning.expert import Experience, Expert, ExpertConfig, ExpertLearner
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.train.run import RunLog, Stop, keep_settings
from tdmpc2_core.train.train_config import LOG_WHY, LogTo

_MAY_CHANGE = ("decisions", "threads", "log", "checkpoint_every", "out", "expert.lr")


@dataclass(frozen=True)
class ExpertRunConfig:
    """Settings of a run; saved in its folder and checked on resume."""

    robot: str = setting("quadruped", why="shipped robot, or path of an embodiment folder or file")
    out: Path | None = setting(None, why="run folder; runs/NAME-expert of the robot if absent")
    seed: int = setting(1, low=0, why="of robots, networks and draws")
    decisions: int = setting(10_000_000, above=0, unit="decisions", why="over all robots")
    robots: int = setting(256, low=1, why="simulated side by side")
    threads: int = setting(2, low=1, why="of physics and of torch; they take turns")
    log: LogTo = setting("csv", why=LOG_WHY)
    checkpoint_every: int = setting(25, low=1, unit="rollouts", why="what a kill can cost")
    expert: ExpertConfig = field(default_factory=ExpertConfig)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def folder(self) -> Path:
        """That of the run. Raises UserError when there is no such robot."""
        return self.out or Path("runs") / f"{Embodiment.load(self.robot).name}-expert"


def save_expert(expert: Expert, folder: Path, embodiment: Embodiment) -> None:
    """Write weights and what is needed to read them again. Raises OSError."""
    tensors = {name: value.detach().contiguous() for name, value in expert.state_dict().items()}
    write_bytes(folder / "expert.safetensors", save(tensors), durable=True)
    about: dict[str, Any] = {
        "observation_dim": expert.observation_dim,
        "action_dim": embodiment.action_dim,
        "fingerprint": _fingerprint(embodiment),
        "config": to_mapping(expert.config),
    }
    write_json(folder / "expert.json", about)


def _fingerprint(embodiment: Embodiment) -> str:
    """Of what an expert depends on: all that a policy does but observations, which it does not read."""
    view = embodiment.policy_view()
    del view["observation"]
    return hashlib.sha256(json.dumps(view, sort_keys=True).encode()).hexdigest()


def load_expert(folder: Path, embodiment: Embodiment) -> Expert:
    """The expert of a run.

    Raises:
        UserError: the folder holds none, or one of another robot.
    """
    try:
        about = json.loads((folder / "expert.json").read_text())
        weights = load_file(folder / "expert.safetensors")
    except (OSError, ValueError) as problem:
        raise UserError(f"{folder}: holds no expert ({problem}); make one with `tdmpc2 expert`") from None
    if about["fingerprint"] != _fingerprint(embodiment):
        raise UserError(f"{folder}: is the expert of another robot than {embodiment.name}; train one for it")
    config = from_mapping(ExpertConfig, about["config"], str(folder / "expert.json"), "config")
    expert = Expert(about["observation_dim"], about["action_dim"], config)
    expert.load_state_dict(weights)
    return expert.eval()


class ExpertTrainer:
    """Rollouts of many robots, updates between them, until ``config.decisions``.

    Raises:
        UserError: the robot is unknown, or the folder holds a run with other settings.
    """

    def __init__(self, config: ExpertRunConfig) -> None:
        self.config, self.folder = config, config.folder
        self.embodiment = Embodiment.load(config.robot)
        self._log = RunLog(self.folder, config.log, counts="decisions")
        before = keep_settings(self.folder, config, _MAY_CHANGE)
        torch.set_num_threads(config.threads)
        state = self._stored()
        self.done, self.resumes = int(state.get("done", 0)), int(state.get("resumes", -1)) + 1
        seed = int(np.random.default_rng([config.seed, self.resumes]).integers(2**31))
        self.env = BatchEnv(self.embodiment, config.robots, seed, threads=config.threads)
        if "level" in state:
            self.env.level = state["level"].numpy()
        self.env.reset()
        self._observed = torch.from_numpy(self.env.privileged())
        torch.manual_seed(config.seed)
        self.expert = Expert(self._observed.shape[1], self.embodiment.action_dim, config.expert)
        generator = torch.Generator().manual_seed(config.seed + 7919 * self.resumes)
        self.learner = ExpertLearner(self.expert, generator)
        if state:
            self.expert.load_state_dict(state["expert"])
            self.learner.load_state_dict(state["learner"])
        if before and before.expert.lr != config.expert.lr:
            self.learner.lr = config.expert.lr  # the run moves it; only a new setting starts it anew
            for group in self.learner.optimiser.param_groups:
                group["lr"] = config.expert.lr
        self._stop = Stop()

    def _stored(self) -> dict[str, Any]:
        path = self.folder / "learner.pt"
        return torch.load(path, weights_only=True) if path.exists() else {}

    def train(self) -> None:
        """Run to the end; a checkpoint is written then, too, and on Ctrl-C and SIGTERM.

        Raises:
            KeyboardInterrupt: after that, with a sentence.
            OSError: the disk refuses.
        """
        with self._stop.keeping(self._keep):
            self._loop()
            self.checkpoint()

    def _keep(self) -> str:
        self.checkpoint()
        return f"expert stopped at decision {self.done}; the same command goes on from there"

    def _loop(self) -> None:
        config, rollouts = self.config, 0
        per_rollout = config.robots * config.expert.decisions
        bar = tqdm(total=config.decisions, initial=self.done, desc="expert", unit="decision", unit_scale=True)
        with bar:
            while self.done < config.decisions:
                started = time.monotonic()
                experience, seen = self._collect()
                row = self.learner.update(experience, self.done / config.decisions) | seen
                self.done += per_rollout
                rollouts += 1
                row["decisions per second"] = per_rollout / (time.monotonic() - started)
                self._log.scalars("train", self.done, row)
                bar.update(per_rollout)
                bar.set_postfix(reward=f"{row['reward']:.3f}", falls=f"{row['falls per 1000']:.2f}")
                if rollouts % config.checkpoint_every == 0:
                    self.checkpoint()

    def _collect(self) -> tuple[Experience, dict[str, float]]:
        expert, env = self.expert, self.env
        expert.normaliser.train()
        rows: list[dict[str, Tensor]] = []
        for _ in range(self.config.expert.decisions):
            self._stop.check()
            observed = self._observed
            expert.normaliser.update(observed)
            action, log_prob, value = expert.act(observed, self.learner.generator)
            step = env.step(action.numpy())
            timeout = torch.zeros(env.count)
            if step.truncated.any():
                with torch.no_grad():
                    timeout = expert.value(torch.from_numpy(step.final_privileged))
            rows.append(
                {
                    "observation": observed,
                    "action": action,
                    "log_prob": log_prob,
                    "value": value,
                    "reward": torch.from_numpy(step.reward).float(),
                    "terminated": torch.from_numpy(step.terminated),
                    "truncated": torch.from_numpy(step.truncated),
                    "timeout": timeout,
                }
            )
            self._observed = torch.from_numpy(step.privileged)
        with torch.no_grad():
            last = expert.value(self._observed)
        columns = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        experience = Experience(**columns, last_value=last)
        falls = 1000.0 * float(experience.terminated.float().mean())
        return experience, {"reward": float(experience.reward.mean()), "falls per 1000": falls}

    def checkpoint(self) -> None:
        """Write the expert, and all that a run goes on from as one file, so that a kill leaves it whole."""
        save_expert(self.expert, self.folder, self.embodiment)
        state = {
            "expert": self.expert.state_dict(),
            "learner": self.learner.state_dict(),
            "done": self.done,
            "resumes": self.resumes,
            "level": torch.from_numpy(self.env.level),
        }
        write_torch(self.folder / "learner.pt", state, durable=True)
