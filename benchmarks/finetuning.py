"""Is a robot better for fine-tuning? The shipped bundle on changed machines, before and after, by mode.

The "real" robot is the simulation with changed physics (`MACHINES` of `identification/simulated.py`). The
bundle drives it for some minutes, with sensor noise and without exploration; `tdmpc2 identify` fits a robot
to that, and each mode of `tdmpc2 finetune` learns from both. Robots of equal seeds then meet equal commands,
noise and pushes under the new bundle and under the one before, on the true machine. `oracle` is refresh with
the true machine in place of the fitted one: what identification could give at most. `gate` is the mode with
the largest gain among those that pass, by the fitted simulation alone; where none does, the robot goes on
under the bundle before. Recovered: the share of the error that the change added to that of the unchanged
machine and that went away. Every row is written when it is there; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import figure, parser, print_table, results_of, save, save_figure, saved, script

from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint.bundle import robot_files
from tdmpc2_core.config import apply_overrides
from tdmpc2_core.errors import UserError, natural, positive
from tdmpc2_core.files import making, write_json
from tdmpc2_core.identification import (
    IdentifyConfig,
    as_mapping,
    identified_embodiment,
    identify,
    write_robot,
)
from tdmpc2_core.identification.simulated import MACHINES, machine, record
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.paired import Outcomes, acting, gain, outcomes
from tdmpc2_core.train.finetune import FineTuneConfig, fine_tune, run_folder

NAME = "finetuning"
MODES = ("dynamics", "residual", "refresh")
WHO = ("before", *MODES, "oracle", "gate")
_TEST_SEED = 5000  # of the robots that judge; those of the data have seed 1
_EPISODE = 20.0  # s


class Case:
    """One changed machine: its data, what was fitted to them, and the bundles; kept in a folder."""

    def __init__(self, args: argparse.Namespace, change: str) -> None:
        self.args, self.change = args, change
        self.folder = args.work / change.replace(" ", "_")
        self.agent = Agent.load(args.bundle)
        if self.agent.embodiment is None:
            raise UserError(f"{args.bundle}: holds no robot")
        self.robot = self.agent.embodiment
        self.true = machine(self.robot, change)

    def timed(self, name: str, work: Callable[[], None]) -> float:
        """Wall time of a step, s; a step that an earlier start did is not done again."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            started = time.perf_counter()
            work()
            write_json(path, {"seconds": time.perf_counter() - started})
        return float(json.loads(path.read_text())["seconds"])

    def recorded(self) -> Path:
        """The episode store of the machine under the bundle."""
        store = self.folder / "data"

        def work() -> None:
            episodes = max(1, round(60.0 * self.args.minutes / _EPISODE))
            with making(store) as partial:
                record(partial, self.true.embodiment, acting(self.agent), episodes, _EPISODE, seed=1)

        if not store.exists():
            work()
        return store

    def fitted(self) -> tuple[Path, dict[str, Any]]:
        """Folder of the identified robot; time, and what was found against the truth."""
        folder, report, data = self.folder / "robot", self.folder / "identified.json", self.recorded()

        def work() -> None:
            config = IdentifyConfig(segments=self.args.segments)
            found = identify(self.robot, [data], config, lambda text: print(text, file=sys.stderr))
            write_json(report, as_mapping(found))
            if not folder.exists():
                write_robot(folder, identified_embodiment(self.robot, found), robot_files(self.robot))

        seconds = self.timed("identify", work)
        rows = {row["parameter"]: row for row in json.loads(report.read_text())["parameters"]}
        truth = {name: row["nominal"] for name, row in rows.items()} | self.true.truth
        keys = ("estimate", "interval", "identifiable", "used")
        found = {name: {"true": truth[name]} | {key: row[key] for key in keys} for name, row in rows.items()}
        return folder, {"seconds": seconds, "parameters": found}

    def simulation(self, mode: str) -> Path:
        """The robot folder that a mode learns in and is judged in."""
        if mode != "oracle":
            return self.fitted()[0]
        folder = self.folder / "true"
        if not folder.exists():
            write_robot(folder, self.true.embodiment, robot_files(self.robot))
        return folder

    def tuned(self, mode: str) -> tuple[Agent, dict[str, Any]]:
        """What a mode makes of the data, the bundle before where it is refused, and how it was judged."""
        out = self.folder / mode.replace(" ", "_")

        def work() -> None:
            learned = "refresh" if mode == "oracle" else mode
            config = FineTuneConfig(mode=learned, mix_sim=self.args.mix_sim, sim_robot=self.simulation(mode))
            config = apply_overrides(config, self.args.settings)
            if not out.exists():
                fine_tune(self.args.bundle, [self.recorded()], out, config)

        seconds = self.timed(f"{out.name}.time", work)
        report = json.loads((run_folder(out) / "report.json").read_text())
        verdict = report["modes"]["refresh" if mode == "oracle" else mode]["verdict"]
        made = Agent.load(out) if out.exists() else self.agent
        judged = {name: verdict["closed_loop"][name] for name in ("reward", "error", "falls")}
        return made, {"seconds": seconds, "reasons": verdict["reasons"], "in the simulator": judged}


def driven(args: argparse.Namespace, agent: Agent, robot: Embodiment) -> Outcomes:
    """The robots that judge, under an agent."""
    return outcomes(acting(agent), robot, args.robots, args.seconds, _TEST_SEED)


def kept(one: Outcomes) -> dict[str, Any]:
    """Outcomes as plain values, from which `again` makes them."""
    return {name: np.asarray(values).tolist() for name, values in vars(one).items()}


def again(values: dict[str, Any]) -> Outcomes:
    """Inverse of `kept`."""
    return Outcomes(**{name: np.array(rows) for name, rows in values.items()})


def row_of(
    change: str, who: str, one: Outcomes, before: Outcomes, nominal: Outcomes, more: dict[str, Any]
) -> dict[str, Any]:
    """One line of the published table."""
    found = gain(one, before)
    lost = float(before.error.mean() - nominal.error.mean())
    return {
        "machine": change,
        "who acts": who,
        "error, m/s": round(float(one.error.mean()), 4),
        "less before [95 %]": "" if who == "before" else str(found.error),
        "recovered": "" if who == "before" else round(-found.error.mean / lost, 2),
        "reward less before [95 %]": "" if who == "before" else str(found.reward),
        "falls": int(one.falls.sum()),
        "s": round(more.get("seconds", 0.0)),
        "gate": "" if who == "before" else "refused" if more["reasons"] else "passed",
    }


def chosen(details: dict[tuple[str, str], dict[str, Any]], change: str) -> str | None:
    """The mode that the gate writes, of those that were tried; None: it refuses all."""
    tried = {mode: details[change, mode] for mode in MODES if (change, mode) in details}
    passed = {
        mode: row["in the simulator"]["reward"]["mean"] for mode, row in tried.items() if not row["reasons"]
    }
    return max(passed, key=lambda mode: passed[mode]) if passed else None


class Table:
    """Rows and details as they come, and the file with them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        rows, details = saved(args.out, NAME)
        keys = [(row["machine"], row["who"]) for row in details]
        self.rows = dict(zip(keys, rows, strict=True))
        self.details = dict(zip(keys, details, strict=True))

    def add(
        self, change: str, who: str, one: Outcomes, before: Outcomes, nominal: Outcomes, **more: Any
    ) -> None:
        """Write one row more."""
        self.rows[change, who] = row_of(change, who, one, before, nominal, more)
        found = {} if who == "before" else {"gain": asdict(gain(one, before))}
        self.details[change, who] = {"machine": change, "who": who, **more, **found, "outcomes": kept(one)}
        about = {
            name: getattr(self.args, name)
            for name in ("minutes", "segments", "robots", "seconds", "settings")
        }
        save(self.args.out, NAME, list(self.rows.values()), details=list(self.details.values()), **about)
        print_table(list(self.rows.values()))

    def outcomes(self, change: str, who: str) -> Outcomes:
        """Of a row that is there."""
        return again(self.details[change, who]["outcomes"])


def measure(case: Case, table: Table, nominal: Outcomes) -> None:
    """The rows of one machine that are not there yet."""
    args, change, true = case.args, case.change, case.true.embodiment
    if (change, "before") not in table.rows:
        one = driven(args, case.agent, true)
        table.add(change, "before", one, one, nominal)
    before = table.outcomes(change, "before")
    for who in args.who:
        if (change, who) in table.rows or who in ("before", "gate"):
            continue
        more = {} if who == "oracle" else {"identification": case.fitted()[1]}
        made, judged = case.tuned(who)
        one = before if made is case.agent else driven(args, made, true)
        table.add(change, who, one, before, nominal, **judged, **more)
    if "gate" in args.who and all((change, mode) in table.rows for mode in MODES):
        mode = chosen(table.details, change)
        one = before if mode is None else table.outcomes(change, mode)
        seconds = sum(table.details[change, each]["seconds"] for each in MODES) + case.fitted()[1]["seconds"]
        reasons = [] if mode else ["no mode passed"]
        table.add(change, "gate", one, before, nominal, seconds=seconds, reasons=reasons, mode=mode)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Error of following, by machine and by who acts."""
    fig, axes = figure("Following, before and after fine-tuning", "error, m/s", "")
    names = [f"{row['machine']}, {row['who acts']}" for row in rows]
    axes.barh(names, [row["error, m/s"] for row in rows])
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=6)
    save_figure(fig, path, dpi=130)


def main() -> int:
    """Print the table; write finetuning.json and .png."""
    options = parser(__doc__ or "", "python benchmarks/finetuning.py --changes payload friction --minutes 5")
    options.add_argument("--bundle", default="quadruped", help="bundle or shipped robot")
    options.add_argument("--changes", nargs="+", default=list(MACHINES), help="changed machines")
    options.add_argument("--who", nargs="+", default=list(WHO), choices=WHO, help="rows to make")
    options.add_argument("--minutes", type=positive, default=5.0, help="of data, of one robot in all")
    options.add_argument("--segments", type=natural, default=IdentifyConfig().segments, help="of identify")
    options.add_argument("--mix-sim", type=float, default=0.5, help="share of simulated data")
    options.add_argument("--robots", type=natural, default=32, help="that judge, each with a seed of its own")
    options.add_argument("--seconds", type=positive, default=20.0, help="for which they do")
    options.add_argument("--work", type=Path, default=Path("runs") / NAME, help="data, robots and bundles")
    options.add_argument("--threads", type=natural, default=2)
    options.add_argument("settings", nargs="*", metavar="key=value", help="of tdmpc2 finetune")
    args: argparse.Namespace = options.parse_args()
    args.changes, words = [w for w in args.changes if "=" not in w], [w for w in args.changes if "=" in w]
    args.settings += words
    args.out = results_of(args.out, args.bundle)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    table = Table(args)
    for change in args.changes:
        case = Case(args, change)
        key = ("unchanged", "before")
        if key not in table.rows:
            one = driven(args, case.agent, machine(case.robot).embodiment)
            table.add(*key, one, one, one)
        measure(case, table, table.outcomes(*key))
    plot(list(table.rows.values()), args.out / f"{NAME}.png")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
