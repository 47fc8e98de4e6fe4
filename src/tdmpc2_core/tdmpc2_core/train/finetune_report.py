"""What fine-tuning found, before and after: figures, table, JSON, plot, and the progress bar."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tdmpc2_core.agent import Agent
from tdmpc2_core.data.episodes import Episode
from tdmpc2_core.files import replacing, write_json
from tdmpc2_core.scoring.acceptance import Verdict
from tdmpc2_core.scoring.prediction import Prediction, predict, value_calibration
from tdmpc2_core.train.finetune_config import FineTuneProgress, Mode

BEFORE = "before"
_SHOWN = (1, 5, 10, 20)  # decisions that the table has


@dataclass
class Findings:
    """One model on the data that judge: the parent's, whose mode is None, or what a mode made."""

    mode: Mode | None
    prediction: Prediction
    calibration: dict[str, float]
    simulation: Prediction | None
    verdict: Verdict | None = None
    updates: int = 0
    ended_by: str = ""
    looks: list[tuple[int, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """In tables and plots."""
        return self.mode or BEFORE

    def figures(self) -> dict[str, Any]:
        """What a report and a bundle's provenance keep."""
        found: dict[str, Any] = {
            "open-loop error / variance": self.prediction.error,
            "by decisions ahead": self.prediction.curves(),
            "value calibration": self.calibration,
        }
        if self.simulation is not None:
            found["open-loop error / variance in simulation"] = self.simulation.error
        if self.verdict is not None:
            found["verdict"] = asdict(self.verdict)
        return found


def measured(
    mode: Mode | None, agent: Agent, stretches: Sequence[Episode], simulation: Prediction | None
) -> Findings:
    """Figures of a model on held-out stretches."""
    found = predict(agent.model, stretches)
    return Findings(mode, found, value_calibration(agent.model, stretches, agent.discount), simulation)


def write_report(
    folder: Path,
    sources: Mapping[str, Any],
    settings: Mapping[str, Any],
    found: Sequence[Findings],
    chosen: Mode,
) -> Path:
    """Write ``report.json``, and ``report.png`` where matplotlib is installed; the path of the former."""
    content = {
        "sources": dict(sources),
        "settings": dict(settings),
        "chosen": chosen,
        "written": any(f.mode == chosen and f.verdict is not None and f.verdict.accepted for f in found),
        "stretches": len(found[0].prediction.latent),
        BEFORE: found[0].figures(),
        "modes": {
            f.name: {"updates": f.updates, "ended_by": f.ended_by, "looks": f.looks, **f.figures()}
            for f in found[1:]
        },
        "table": table(found),
    }
    write_json(folder / "report.json", content)
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:  # of the extra video; the JSON has all
        return folder / "report.json"
    _plot(found, folder / "report.png")
    return folder / "report.json"


def table(found: Sequence[Findings]) -> list[dict[str, str]]:
    """Rows of equal keys: the parent, then the modes."""
    rows = []
    for one in found:
        curves = one.prediction.curves()
        horizon = len(curves["reward error"])
        ahead = [k for k in _SHOWN if k <= horizon]
        row = {"model": one.name}
        row |= {f"error@{k}": f"{curves['latent error / nothing changes'][k - 1]:.3f}" for k in ahead}
        row["reward error"] = _short(one.prediction.reward)
        row["value error"] = _short(one.prediction.value)
        if one.simulation is not None:
            row["in simulation"] = f"{one.simulation.error:.3f}"
        verdict = one.verdict
        row["less error [95 %]"] = "" if verdict is None else str(verdict.gain)
        row["prior moves"] = "" if verdict is None else f"{verdict.shift.prior:.3f}"
        row["planner moves (chance)"] = (
            "" if verdict is None else f"{verdict.shift.planner:.3f} ({verdict.shift.draws:.3f})"
        )
        if any(f.verdict is not None and f.verdict.closed_loop is not None for f in found):
            closed = None if verdict is None else verdict.closed_loop
            row["reward in simulator [95 %]"] = "" if closed is None else str(closed.reward)
        row["accepted"] = "" if verdict is None else ("yes" if verdict.accepted else "no")
        rows.append(row)
    return rows


def read_table(report: Path) -> list[dict[str, str]]:
    """The rows that a report has."""
    rows: list[dict[str, str]] = json.loads(report.read_text())["table"]
    return rows


def _short(values: np.ndarray) -> str:
    known = np.isfinite(values)
    return f"{values[known].mean():.3g}" if known.any() else "-"


def shown(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows of equal keys as aligned columns."""
    names = list(rows[0])
    lines = [names, *([row[name] for name in names] for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(names))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )


def _plot(found: Sequence[Findings], path: Path) -> None:
    """Errors of latents and rewards against decisions ahead."""
    from matplotlib.figure import Figure

    names = ("latent error / nothing changes", "latent error / variance", "reward error", "value error")
    fig = Figure(figsize=(9.0, 6.0), layout="constrained")
    for axes, name in zip(fig.subplots(2, 2).flat, names, strict=True):
        for one in found:
            curve = one.prediction.curves()[name]
            axes.plot(range(1, len(curve) + 1), curve, label=one.name)
        axes.set(title=name, xlabel="decisions ahead", ylim=(0.0, None))
        axes.grid(alpha=0.3)
    fig.axes[0].legend()
    with replacing(path) as partial:
        fig.savefig(partial, dpi=110)


class ProgressBar:
    """`report` of `fine_tune` for a terminal: updates, their rate and the time left."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def __call__(self, progress: FineTuneProgress) -> bool:
        """Show it; the run goes on."""
        if self._bar is None:
            self._bar = tqdm(total=progress.total, initial=progress.updates, unit="update")
        if progress.stage == "training":
            self._bar.update(max(0, progress.updates - self._bar.n))
            self._bar.set_postfix(loss=f"{progress.loss:.4g}")
        self._bar.set_description(progress.stage)
        return True

    def close(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()
