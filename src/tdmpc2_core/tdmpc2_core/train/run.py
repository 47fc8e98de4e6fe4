"""A training run's folder: settings, checkpoints, episodes, logs, and how it goes on after a kill."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint import manifest
from tdmpc2_core.config import from_mapping, read_yaml, to_mapping
from tdmpc2_core.data.episodes import EpisodeStore
from tdmpc2_core.envs.registry import env_spec
from tdmpc2_core.errors import UserError, missing_extra
from tdmpc2_core.files import check_writable, replacing, write_text, write_torch
from tdmpc2_core.learning.learner import Learner
from tdmpc2_core.model import WorldModel, world_model_config
from tdmpc2_core.scoring.evaluation import AnyEvaluation
from tdmpc2_core.train.train_config import LogTo, TrainConfig

_MAY_CHANGE = (
    *("steps", "out", "threads", "device", "matmul_precision"),
    *("log", "log_every", "eval_every", "checkpoint_every", "eval_seconds", "eval_episodes"),
    *("learner.lr", "learner.enc_lr_scale"),
)
Settings = TypeVar("Settings")


def keep_settings(folder: Path, config: Settings, may_change: Collection[str]) -> Settings | None:
    """Write a run's settings, a typed dataclass, as ``config.yaml``; a run that goes on must have the same.

    Args:
        may_change: dotted keys of those that may be others than before.

    Returns:
        The settings before; None where the folder holds no run.

    Raises:
        UserError: the folder holds a run with other settings than those that may change, or is not writable.
    """
    path, before = folder / "config.yaml", None
    if path.exists():
        # A setting that is newer than the run had what is its default now.
        before = from_mapping(type(config), read_yaml(path), str(path))
        stored, wanted = _flat(to_mapping(before)), _flat(to_mapping(config))
        changed = [
            f"{key}={stored.get(key)}, not {wanted.get(key)}"
            for key in dict.fromkeys([*wanted, *stored])
            if key not in may_change and stored.get(key) != wanted.get(key)
        ]
        if changed:
            raise UserError(
                f"{path}: this run was started with {', and with '.join(changed)}; "
                f"use another out= folder, or the same settings to continue it"
            )
    check_writable(path, f"out={folder}")
    write_text(path, yaml.safe_dump(to_mapping(config), sort_keys=False))
    return before


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted keys, as the command line takes them."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        below = isinstance(value, Mapping) and value
        flat |= _flat(value, f"{prefix}{key}.") if below else {f"{prefix}{key}": value}
    return flat


@contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Where the start of a run is refused inside, its ``config.yaml`` and its empty folders are removed."""
    settings = folder / "config.yaml"
    had = settings.exists()
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except Exception:
        with suppress(OSError):
            if not had:
                settings.unlink(missing_ok=True)
            for path in [*(below for below in folder.iterdir() if below.is_dir()), *made]:
                path.rmdir()  # the first that holds something ends this
        raise


class Stop:
    """Ctrl-C and SIGTERM while a run works: noted, and raised by `check`, where all is in one piece.

    What is written then is whole: further signals change nothing. A signal that the caller of the program
    ignores, as shells do for what they start in the background, is left alone.
    """

    def __init__(self) -> None:
        self.requested = False
        self._at_once = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._former[number] = signal.signal(number, self._note) or signal.SIG_DFL
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.requested = True
        if self._at_once:
            self._at_once = False
            raise KeyboardInterrupt

    @contextmanager
    def keeping(self, keep: Callable[[], str]) -> Iterator[None]:
        """Work that a signal ends in one piece: `keep` then writes what there is, and its sentence is raised.

        Raises:
            KeyboardInterrupt: a signal came.
        """
        with self:
            try:
                yield
            except (KeyboardInterrupt, BrokenPipeError):  # Ctrl-C also ends what reads a pipe, such as tee
                raise KeyboardInterrupt(keep()) from None

    def check(self) -> None:
        """Raise KeyboardInterrupt where a signal came."""
        if self.requested:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Work that leaves nothing behind: a signal ends it at once, by KeyboardInterrupt."""
        self.check()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False


class CsvTable:
    """A CSV file that grows by whole rows; new columns rewrite the header once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []
        if path.exists() and path.stat().st_size:
            with open(path, newline="") as file:
                self._columns = next(csv.reader(file))

    def add(self, row: dict[str, float | int | str]) -> None:
        """Append one row and flush it."""
        fresh = [name for name in row if name not in self._columns]
        if fresh:
            old = self.rows()
            self._columns += fresh
            with replacing(self.path) as partial, open(partial, "w", newline="") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(old)
        whole = self.path.stat().st_size
        try:
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        except OSError as problem:  # half a row would be read as a whole one
            os.truncate(self.path, whole)
            problem.filename = str(self.path)
            raise

    def rows(self) -> list[dict[str, str]]:
        """Every row so far, as text."""
        if not self.path.exists():
            return []
        with open(self.path, newline="") as file:
            return list(csv.DictReader(file))


class RunLog:
    """Training and evaluation tables of a run folder, and the same rows in TensorBoard or Weights & Biases.

    Args:
        counts: name of the first column of the tables, in which rows are counted.

    Raises:
        UserError: the package that ``to`` names is not installed.
    """

    def __init__(self, folder: Path, to: LogTo = "csv", counts: str = "step") -> None:
        if to != "csv" and importlib.util.find_spec(to) is None:
            raise missing_extra(f"log={to}", to)
        self._tables = {name: CsvTable(folder / f"{name}.csv") for name in ("train", "eval", "events")}
        self._folder, self._to, self._counts = folder, to, counts
        self._write: Callable[[dict[str, float], int], None] | None = None

    def scalars(self, table: str, step: int, values: dict[str, float]) -> None:
        """One row of ``table`` (train or eval) at ``step``."""
        row = {name: f"{value:.6g}" for name, value in values.items()}
        self._tables[table].add({self._counts: step, **row})
        if self._write is None:  # at the first row, as it makes a folder
            self._write = _MIRRORS[self._to](self._folder)
        self._write({f"{table}/{name}": float(value) for name, value in values.items()}, step)

    def event(self, step: int, what: str) -> None:
        """Start, resume, checkpoint: one line with the step at which it happened."""
        self._tables["events"].add({"step": step, "event": what})


def _tensorboard(folder: Path) -> Callable[[dict[str, float], int], None]:
    from torch.utils.tensorboard import SummaryWriter

    board = SummaryWriter(str(folder / "tensorboard"))

    def write(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            board.add_scalar(name, value, step)
        board.flush()  # a kill loses no row that the tables have

    return write


def _wandb(folder: Path) -> Callable[[dict[str, float], int], None]:
    """A run named after the folder; WANDB_MODE, WANDB_PROJECT and the like are its own to heed."""
    wandb = importlib.import_module("wandb")
    run = wandb.init(dir=str(folder), name=folder.name)
    return lambda values, step: run.log(values, step=step)


_MIRRORS: dict[LogTo, Callable[[Path], Callable[[dict[str, float], int], None]]] = {
    "csv": lambda folder: lambda values, step: None,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}


@dataclass
class Counters:
    """Counters that a checkpoint keeps."""

    steps: int = 0  # agent steps
    updates: int = 0
    episodes: int = 0
    seconds: float = 0.0  # wall time over all parts of the run
    resumes: int = 0
    best_return_per_step: float = float("-inf")
    demonstrations: int = 0  # episodes that the observation statistics have seen
    due: float = 0.0  # updates that the steps so far still ask for
    levels: list[float] = field(default_factory=list)  # of the robots in a curriculum


class TrainingRun:
    """Folder layout: ``config.yaml``, ``checkpoint/`` (newest bundle + ``learner.pt``), ``best/`` (bundle
    with the highest evaluation), ``episodes/``, ``demonstrations/``, ``train.csv``, ``eval.csv``,
    ``events.csv``.

    An existing checkpoint in the folder is continued.

    Raises:
        UserError: the folder is not writable or holds a run with other settings.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.folder = config.folder
        self.config = config
        self.spec = env_spec(config.environment)
        self.episodes = EpisodeStore(self.folder / "episodes")
        self.demonstrations = EpisodeStore(self.folder / "demonstrations")
        self.log = RunLog(self.folder, config.log)
        self.progress = Counters()
        torch.manual_seed(config.seed)
        self.device = pick_device(config.device)
        self.agent = self._new_agent(self.device)
        generator = torch.Generator(device=self.device).manual_seed(config.seed)
        self.learner = Learner(self.agent.model, config.learner, generator)
        keep_settings(self.folder, config, _MAY_CHANGE)
        newest = manifest.whole(self.folder / "checkpoint")
        if newest is not None:
            self._resume(newest)
        self._clock = time.monotonic()

    def _new_agent(self, device: torch.device) -> Agent:
        config, spec = self.config, self.spec
        size = int(config.model_size) if config.model_size.isdigit() else config.model_size
        model = WorldModel(
            world_model_config(
                size,
                spec.observation_dim,
                spec.action_dim,
                episodic=spec.terminates,
                normalise_obs=config.normalise_observations,
            )
        ).to(device)
        return Agent(
            model,
            config.planner,
            config.learner.discount,
            embodiment=spec.embodiment,
            control_period=spec.control_period,
            seed=config.seed,
            tasks=() if spec.embodiment else (spec.name,),
        )

    # ---- checkpoints ----
    def checkpoint(self, why: str) -> None:
        """Write bundle and learner state; the former checkpoint stays until the new one is whole."""
        self.progress.seconds += time.monotonic() - self._clock
        self._clock = time.monotonic()
        state = {"learner": self.learner.state_dict(), "progress": json.dumps(asdict(self.progress))}
        save_checkpoint(self.folder, self.agent, self.provenance(), state)
        self.log.event(self.progress.steps, f"{why} at update {self.progress.updates}")

    def _resume(self, folder: Path) -> None:
        agent = Agent.load(folder, device=self.device, embodiment=self.spec.embodiment)
        self.agent.model.load_state_dict(agent.model.state_dict())
        state = torch.load(folder / "learner.pt", map_location="cpu", weights_only=True)
        self.learner.load_state_dict(state["learner"])
        former = {"demonstrations": len(self.demonstrations)}  # of a checkpoint that has no such counter
        self.progress = Counters(**former | json.loads(state["progress"]))
        self.progress.resumes += 1

    def keep_best(self, result: AnyEvaluation) -> None:
        """Keep the bundle in ``best/`` when this evaluation is the highest so far."""
        if result.return_per_step > self.progress.best_return_per_step:
            self.progress.best_return_per_step = result.return_per_step
            self.agent.save(
                self.folder / "best", provenance=self.provenance() | {"evaluation": asdict(result)}
            )

    def provenance(self) -> dict[str, Any]:
        """How these weights came about: command, steps, updates, wall time; no folder of this machine."""
        settings = to_mapping(self.config)
        settings.pop("out", None)
        return {
            "command": command_line(sys.argv[1:]),
            "steps": self.progress.steps,
            "updates": self.progress.updates,
            "episodes": self.progress.episodes,
            "wall_seconds": round(self.progress.seconds + time.monotonic() - self._clock),
            "resumes": self.progress.resumes,
            "settings": settings,
        }


def save_checkpoint(folder: Path, agent: Agent, provenance: dict[str, Any], state: dict[str, Any]) -> None:
    """Write ``checkpoint/`` of a run: bundle and ``learner.pt``; the former one stays until this is whole.

    Raises:
        UserError, OSError: the disk refuses.
    """
    partial = folder / "checkpoint.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        agent.save(partial, provenance=provenance)
        write_torch(partial / "learner.pt", state, durable=True)
        manifest.replace_directory(partial, folder / "checkpoint")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def command_line(words: Sequence[str]) -> str:
    """The call of tdmpc2 without folders of this machine: no ``out``, of ``--resume`` the name alone."""
    kept = [word for word in words if not word.startswith("out=")]
    for index, word in enumerate(kept):
        if word == "--resume" and index + 1 < len(kept):
            kept[index + 1] = Path(kept[index + 1]).name
        elif word.startswith("--resume="):
            kept[index] = f"--resume={Path(word.partition('=')[2]).name}"
    return shlex.join(["tdmpc2", *kept])


def pick_device(name: str, option: str = "device=") -> torch.device:
    """The torch device of a name; ``auto`` takes a GPU where there is one. option: how the user names it.

    Raises:
        UserError: torch knows no such device, or this machine lacks it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{option}{name}: not available here ({reason}); use cpu, or auto") from None
    return device


def stored_settings(folder: Path) -> TrainConfig:
    """Settings of the run in ``folder``.

    Raises:
        UserError: the folder holds no run, or its settings cannot be read.
    """
    path = Path(folder) / "config.yaml"
    if not path.exists():
        raise UserError(
            f"{folder}: holds no training run (config.yaml is missing); start one with `tdmpc2 train`"
        )
    return from_mapping(TrainConfig, read_yaml(path) | {"out": str(folder)}, str(path))
