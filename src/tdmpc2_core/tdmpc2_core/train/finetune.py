"""Fine-tuning a robot's bundle on recorded episodes (`tdmpc2 finetune`): learn, judge, write if better.

Modes: `dynamics` trains the latent dynamics with all else frozen, `residual` a head added to them, `full`
everything with the learner of online training, `refresh` prior and values in a simulation fitted to the robot
(`train/finetune_refresh.py`); `auto` tries the first two. The bundle is written only where it is
better than its parent beyond chance: in that simulation where there is one, else in foretelling held-out data
while it acts not too differently (`scoring/acceptance.py`).

Beside the output lies the run's folder, OUT.run: ``config.yaml``, ``sources.json``, ``simulation/`` with
episodes, MODE.pt (learners), ``report.json``, ``report.png``. Stopped or killed, the same command goes on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint import manifest
from tdmpc2_core.checkpoint.bundle import check_same_robot
from tdmpc2_core.config import to_mapping
from tdmpc2_core.data.episodes import Episode, EpisodeStore
from tdmpc2_core.data.held_out import Split, split_by_time
from tdmpc2_core.errors import UserError
from tdmpc2_core.files import claimed, write_json
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.acceptance import Verdict, judge
from tdmpc2_core.scoring.paired import Outcomes, acting, gain, outcomes
from tdmpc2_core.scoring.prediction import Prediction, policy_shift, predict
from tdmpc2_core.train.collect import simulated
from tdmpc2_core.train.finetune_config import FineTuneConfig, FineTuneProgress, FineTuneResult, Mode
from tdmpc2_core.train.finetune_data import digest_of, read_stores
from tdmpc2_core.train.finetune_refresh import RefreshTrial
from tdmpc2_core.train.finetune_report import Findings, measured, write_report
from tdmpc2_core.train.finetune_trial import Trial
from tdmpc2_core.train.run import Stop, keep_settings, nothing_left

__all__ = ["FineTuneConfig", "FineTuneProgress", "FineTuneResult", "Report", "fine_tune", "run_folder"]

Report = Callable[[FineTuneProgress], bool]
"""Called about once a second; False ends the run with the best state so far."""

AnyTrial = Trial | RefreshTrial

_MAY_CHANGE = (
    *("updates", "max_seconds", "threads", "patience", "check_every"),
    *("max_shift", "sim_robot", "sim_robots", "sim_seconds", "refresh.rollouts", "refresh.settling"),
)
_CLOSED_LOOP_SEED = 7000  # of the robots in the comparison, others than those of the data mixed in


def run_folder(output: str | os.PathLike[str]) -> Path:
    """Folder of the run that writes the bundle `output`."""
    target = Path(output)
    return target.with_name(f"{target.name}.run")


def fine_tune(
    base: str | os.PathLike[str],
    data: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    config: FineTuneConfig,
    report: Report = lambda progress: True,
) -> FineTuneResult:
    """Train the model of bundle `base` on the episode stores `data`; write `output` where it is better.

    Raises:
        UserError: an input is of no use, `output` exists already, its run was started with other inputs, or
            another process works on it.
        KeyboardInterrupt: Ctrl-C or SIGTERM in the main thread; what was learned is stored.
    """
    if Path(output).exists():
        raise UserError(f"{output}: exists already; give a folder that does not exist yet")
    folder = run_folder(output)
    with claimed(folder, f"--out {output}"):
        with nothing_left(folder):
            run = _Run(Path(base), [Path(path) for path in data], Path(output), config, report)
        return run.work()


class _Run:
    def __init__(
        self, base: Path, data: list[Path], output: Path, config: FineTuneConfig, report: Report
    ) -> None:
        self.started = time.monotonic()
        self.config, self.output, self.folder = config, output, run_folder(output)
        self.agent = Agent.load(base, seed=config.seed)
        if self.agent.model.config.num_tasks or self.agent.model.config.obs_kind != "state":
            raise UserError(f"{base}: fine-tuning is for models of one task that observe a state")
        robot = self.agent.embodiment
        if config.mix_sim and (robot is None or robot.directory is None):
            raise UserError(f"{base}: holds no robot that can be simulated; use --mix-sim 0")
        self.fitted = self._fitted(base)
        if self.fitted is None and "refresh" in config.modes:
            raise UserError(
                "mode refresh learns in a simulation of the robot as identified: give --sim-robot"
            )
        episodes = read_stores(data, self.agent)
        history = 1 if robot is None else max(block.history for block in robot.observation_layout)
        self.split: Split = split_by_time(episodes, config.held_out, history)
        if config.threads:
            torch.set_num_threads(config.threads)
        keep_settings(self.folder, config, _MAY_CHANGE)
        self.sources = self._sources(base, data, episodes)
        self.stop = Stop()
        self._report, self._done, self._ended = report, 0, False

    def _fitted(self, base: Path) -> Embodiment | None:
        """The robot of the comparison in closed loop."""
        if self.config.sim_robot is None:
            return None
        fitted = Embodiment.load(self.config.sim_robot)
        if self.agent.embodiment is None:
            raise UserError(f"{base}: holds no robot to compare in --sim-robot")
        check_same_robot(self.config.sim_robot, self.agent.embodiment, fitted)
        return fitted

    def _sources(self, base: Path, data: list[Path], episodes: list[Episode]) -> dict[str, Any]:
        """What identifies bundle and data; a run that goes on must have the same."""
        known = sum(int((~torch.from_numpy(e.reward).isnan()).sum()) for e in episodes)
        parent = self.agent.provenance.get("fine_tuned", {})
        found = {
            "parent": {
                "name": base.name,
                "sha256": manifest.digest((manifest.find(base) / manifest.NAME).read_bytes()),
                "parent": parent.get("parent"),
            },
            "data": [{"name": path.name, "sha256": digest_of(path)} for path in data],
            "episodes": len(episodes),
            "decisions": sum(len(e) for e in episodes),
            "known rewards": known,
        }
        path = self.folder / "sources.json"
        if path.exists() and json.loads(path.read_text()) != found:
            raise UserError(
                f"{self.folder}: this run was started with another bundle or other data; use another --out, "
                "or the same inputs to continue it"
            )
        write_json(path, found)
        return found

    # ---- the run ----
    def work(self) -> FineTuneResult:
        """Learn in every mode, judge, write."""
        trials: list[AnyTrial] = []

        def keep() -> str:
            if trials:
                trials[-1].save()
            done = sum(trial.updates for trial in trials)
            return f"finetune stopped at update {done}; the same command goes on from there"

        with self.stop.keeping(keep):
            extra = self._simulation()
            for mode in self.config.modes:
                trial = self._trial(mode, extra)
                trials.append(trial)
                if not trial.ended_by and not self._ended:
                    self._learn(trial)
                self._done += trial.updates
                trial.save()
            with self.stop.at_once():
                found = self._judge([t for t in trials if t.updates], extra)
            return self._finish(found, trials)

    def _trial(self, mode: Mode, extra: Split) -> AnyTrial:
        if mode != "refresh":
            return Trial(mode, self.agent, self.config, self.split, extra.learn, self.folder)
        assert self.fitted is not None
        return RefreshTrial(self.agent, self.fitted, self.config, self.folder)

    def _tell(self, updates: int, loss: float, stage: str = "training") -> bool:
        refresh = self.config.refresh
        total = sum(
            refresh.rollouts + refresh.settling if mode == "refresh" else self.config.updates
            for mode in self.config.modes
        )
        seconds = time.monotonic() - self.started
        return self._report(FineTuneProgress(self._done + updates, total, loss, seconds, stage))

    def _simulation(self) -> Split:
        """Episodes of the robot's own simulation; nothing is held out of a run without them."""
        if not self.config.mix_sim or self.config.modes == ("refresh",):
            return Split([], [], [])
        folder, robot = self.folder / "simulation", self.agent.embodiment
        assert robot is not None
        whole = folder / "complete.json"
        if not whole.exists():
            for old in folder.glob("[0-9]*.safetensors"):  # of a start that was killed
                old.unlink()
            settings = self.config.simulation

            def told(decisions: int) -> None:
                self.stop.check()
                self._tell(0, float("nan"), f"simulating {decisions}/{settings.decisions}")

            simulated(self.agent, robot, EpisodeStore(folder), settings, self.config.seed, told)
            write_json(whole, {"decisions": settings.decisions})
        episodes = [episode for episode, _ in EpisodeStore(folder)]
        return split_by_time(episodes, self.config.held_out)

    def _learn(self, trial: AnyTrial) -> None:
        """Until updates, time, patience or the caller end it."""
        config, sums, counted = self.config, 0.0, 0
        began = told = time.monotonic()
        while not trial.ended_by:
            self.stop.check()
            sums, counted = sums + trial.update(), counted + 1
            if trial.due:
                trial.check()
                trial.save()
            now = time.monotonic()
            if now - told >= 1.0 or trial.updates >= trial.total:
                if not self._tell(trial.updates, sums / counted):
                    self._ended, trial.ended_by = True, "request"
                sums, counted, told = 0.0, 0, now
            limit = config.max_seconds / len(config.modes)
            if limit and now - began >= limit and not trial.ended_by:
                trial.ended_by = "time"
        trial.check()

    # ---- judging ----
    def _judge(self, trials: list[AnyTrial], extra: Split) -> list[Findings]:
        """Parent first, then what each mode made, on data that decided nothing yet."""
        self._tell(0, float("nan"), "checking")
        before, parent_runs = self._measure(self.agent, extra, None), self._closed_loop(self.agent)
        found = [before]
        for trial in trials:
            agent = trial.agent()
            made = self._measure(agent, extra, trial.mode)
            closed = None
            if parent_runs is not None:
                runs = self._closed_loop(agent)
                assert runs is not None
                closed = gain(runs, parent_runs)
            shift = policy_shift(self.agent, agent, self.split.judge)
            limit = self.config.max_shift
            made.verdict = judge(before.prediction, made.prediction, shift, limit, closed, self.config.seed)
            made.updates, made.ended_by, made.looks = trial.updates, trial.ended_by, trial.looks
            found.append(made)
        return found

    def _measure(self, agent: Agent, extra: Split, mode: Mode | None) -> Findings:
        simulation: Prediction | None = predict(agent.model, extra.judge) if extra.judge else None
        return measured(mode, agent, self.split.judge, simulation)

    def _closed_loop(self, agent: Agent) -> Outcomes | None:
        if self.fitted is None:
            return None
        config = self.config
        return outcomes(
            acting(agent), self.fitted, config.sim_robots, config.sim_seconds, _CLOSED_LOOP_SEED + config.seed
        )

    def _finish(self, found: list[Findings], trials: list[AnyTrial]) -> FineTuneResult:
        before, made = found[0], found[1:]

        def rank(findings: Findings) -> tuple[bool, float]:
            assert findings.verdict is not None
            return findings.verdict.rank

        best = max(made, key=rank)
        verdict, mode = best.verdict, best.mode
        assert isinstance(verdict, Verdict) and mode is not None
        path = write_report(self.folder, self.sources, to_mapping(self.config), found, mode)
        result = FineTuneResult(
            mode=mode,
            updates=best.updates,
            seconds=time.monotonic() - self.started,
            loss_before=before.prediction.error,
            loss_after=best.prediction.error,
            ended_by=best.ended_by,
            reasons=verdict.reasons,
            report=path,
        )
        if result.improved:
            agent = next(trial for trial in trials if trial.mode == mode).agent()
            settings = {k: v for k, v in to_mapping(self.config).items() if k != "sim_robot"}
            tuned = {
                **self.sources,
                "mode": mode,
                "updates": best.updates,
                "ended_by": best.ended_by,
                "settings": settings,
                "before": before.figures(),
                "after": best.figures(),
            }
            agent.save(self.output, dict(self.agent.provenance) | {"fine_tuned": tuned}, measured=())
            for trial in trials:
                trial.path.unlink(missing_ok=True)
        return result
