"""Is a robot better for fine-tuning? The shipped bundle on a changed robot, before and after, by mode.

The "real" robot is the simulation with changed physics (`CHANGES` of `envs/robot/randomisation.py`). The
bundle drives it for some minutes, without noise; each mode of `tdmpc2 finetune` learns from that; robots
of equal seeds then meet the same commands, noise and pushes under the new bundle, the one before and its
policy prior. Differences are means over robots with 95 % bootstrap intervals. Where the gate refuses a mode,
the robot goes on under the bundle before.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import figure, parser, print_table, results_of, save, save_figure, script

from tdmpc2_core.agent import Agent
from tdmpc2_core.config import apply_overrides
from tdmpc2_core.data.episodes import EpisodeStore
from tdmpc2_core.envs.robot.bursts import BurstConfig
from tdmpc2_core.envs.robot.randomisation import changed
from tdmpc2_core.errors import UserError, natural, positive
from tdmpc2_core.robots import Embodiment
from tdmpc2_core.scoring.paired import Outcomes, acting, gain, outcomes
from tdmpc2_core.train.collect import SimulationConfig, simulated
from tdmpc2_core.train.finetune import FineTuneConfig, fine_tune

NAME = "finetuning"
CHANGED = ("payload", "friction", "delay", "weak joint", "gains")
MODES = ("dynamics", "residual", "full")
_TEST_SEED = 5000  # of the robots that judge; those of the data have seed 1


def collect(agent: Agent, robot: Embodiment, folder: Path, minutes: float) -> float:
    """Drive the robot for so long in all, ten at a time; s that it took."""
    started, rate = time.perf_counter(), robot.control_rate
    alone = BurstConfig(clean_share=1.0)
    settings = SimulationConfig(decisions=round(60.0 * minutes * rate), robots=10, bursts=alone)
    simulated(agent, robot, EpisodeStore(folder), settings, seed=1)
    return time.perf_counter() - started


def row_of(change: str, who: str, one: Outcomes, before: Outcomes, more: dict[str, Any]) -> dict[str, Any]:
    """One line of the published table."""
    found = gain(one, before)
    return {
        "robot": change,
        "who acts": who,
        "error": round(float(one.error.mean()), 4),
        "less before [95 %]": "" if one is before else str(found.error),
        "reward": round(float(one.reward.mean()), 3),
        "reward less before [95 %]": "" if one is before else str(found.reward),
        "falls": int(one.falls.sum()),
        "s": round(more.get("seconds", 0.0), 1),
        "gate": more.get("gate", ""),
    }


def tuned(
    agent: Agent, store: Path, out: Path, config: FineTuneConfig, bundle: str
) -> tuple[Agent, dict[str, Any]]:
    """What a mode makes of the data, written or not, and how it was judged."""
    started = time.perf_counter()
    found = fine_tune(bundle, [store], out, config)
    seconds = time.perf_counter() - started
    made = Agent.load(out) if found.improved else agent
    gate = "written" if found.improved else f"refused: {'; '.join(found.reasons)}"
    loss = {"error before": found.loss_before, "error after": found.loss_after, "updates": found.updates}
    return made, {"seconds": seconds, "gate": gate, **loss}


def measure(args: argparse.Namespace, change: str, work: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows and details of one changed robot."""
    agent = Agent.load(args.bundle)
    if agent.embodiment is None:
        raise UserError(f"{args.bundle}: holds no robot")
    robot, store = changed(agent.embodiment, change), work / "data"
    details: dict[str, Any] = {"robot": change, "collect s": collect(agent, robot, store, args.minutes)}

    def drive(driven: Agent, method: str | None = None) -> Outcomes:
        planner = None if method is None else replace(driven.planner_config, method=method)
        return outcomes(acting(driven, planner), robot, args.robots, args.seconds, _TEST_SEED)

    started = time.perf_counter()
    before = drive(agent)
    details["drive s"] = time.perf_counter() - started
    rows = [
        row_of(change, "before", before, before, {}),
        row_of(change, "prior", drive(agent, "policy"), before, {}),
    ]
    for mode in args.modes:
        config = apply_overrides(FineTuneConfig(mode=mode, mix_sim=args.mix_sim), args.settings)
        made, more = tuned(agent, store, work / mode, config, args.bundle)
        after = before if made is agent else drive(made)
        rows.append(row_of(change, mode, after, before, more))
        details[mode] = more | {"gain": asdict(gain(after, before))}
        print_table(rows)
    return rows, details


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Error of following, by robot and by who acts."""
    fig, axes = figure("Following, before and after fine-tuning", "error, m/s", "")
    axes.barh([f"{row['robot']}, {row['who acts']}" for row in rows], [row["error"] for row in rows])
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=7)
    save_figure(fig, path, dpi=130)


def main() -> int:
    """Print the table; write finetuning.json and .png."""
    options = parser(__doc__ or "", "python benchmarks/finetuning.py --changes payload friction --minutes 5")
    options.add_argument("--bundle", default="quadruped", help="bundle or shipped robot")
    options.add_argument("--changes", nargs="+", default=list(CHANGED), help="changed robots")
    options.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    options.add_argument("--minutes", type=positive, default=5.0, help="of data, of one robot in all")
    options.add_argument("--mix-sim", type=float, default=0.5, help="share of simulated data")
    options.add_argument("--robots", type=natural, default=32, help="that judge")
    options.add_argument("--seconds", type=positive, default=20.0, help="for which they do")
    options.add_argument("settings", nargs="*", metavar="key=value", help="of tdmpc2 finetune")
    args: argparse.Namespace = options.parse_args()
    args.changes, words = [w for w in args.changes if "=" not in w], [w for w in args.changes if "=" in w]
    args.settings += words
    args.out = results_of(args.out, args.bundle)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    for change in args.changes:
        with TemporaryDirectory() as work:
            more, detail = measure(args, change, Path(work))
        rows, details = [*rows, *more], [*details, detail]
        save(args.out, NAME, rows, details=details, minutes=args.minutes, mix_sim=args.mix_sim)
    plot(rows, args.out / f"{NAME}.png")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
