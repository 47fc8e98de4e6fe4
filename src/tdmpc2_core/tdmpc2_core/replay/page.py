"""A replay as a table, as JSON, and as one HTML page that loads nothing."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc2_core.errors import missing_extra
from tdmpc2_core.files import write_json, write_text
from tdmpc2_core.replay.along import Along, summary

_STYLE = "body{font:15px sans-serif;max-width:75em;margin:2em auto}td{padding:0 1em 0 0}img{max-width:100%}"
_SERIES = ("action_difference", "reward_predicted", "reward", "disagreement", "consistency", "trust", "value")


def rows_of(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Figures of a `summary` as text, by name."""
    latent = [value for value in found["latent_error"] if math.isfinite(value)]
    worst = found["worst"]
    rows = [
        (
            "recording",
            f"{found['episodes']} episodes, {found['decisions']} decisions, {found['seconds']:.1f} s",
        ),
        ("reward error", f"{found['reward_error']:.4g} ({found['rewards_known']:.0%} of rewards known)"),
        ("latent error / variance", ", ".join(f"{value:.3g}" for value in latent)),
        ("disagreement, consistency", f"{found['disagreement']:.4g}, {found['consistency']:.4g}"),
        ("trust, mean and least", f"{found['trust']:.3f}, {found['trust_least']:.3f}"),
        ("value", f"{found['value']:.4g}"),
        ("worst", f"{worst['seconds']:.1f} s from {worst['start']:.2f} s: {worst['why']}"),
    ]
    differences = found["action_difference"].items()
    return rows + [(f"|planned - recorded| {name}", f"{value:.4f}") for name, value in differences]


def table(found: dict[str, Any]) -> str:
    """`rows_of` for a terminal."""
    rows = rows_of(found)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {text}" for name, text in rows)


def write_replay(folder: Path, along: Along, joints: Sequence[str], title: str) -> dict[str, Any]:
    """`replay.json` and `replay.html` in a folder; returns the summary.

    Raises UserError without matplotlib, OSError.
    """
    found = summary(along, joints)
    series = {"time": along.time.tolist()} | {name: getattr(along, name).tolist() for name in _SERIES}
    series["latent"] = along.latent.tolist()
    page = _page(along, joints, found, title)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "replay.json", found | {"series": series})
    write_text(folder / "replay.html", page)
    return found


def _page(along: Along, joints: Sequence[str], found: dict[str, Any], title: str) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(text)}</td></tr>" for name, text in rows_of(found)
    )
    name, picture = html.escape(title), base64.b64encode(_picture(along, joints, found)).decode()
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{name}</h1><table>{rows}</table>"
        f'<img alt="figures over time" src="data:image/png;base64,{picture}"></body></html>\n'
    )


def _picture(along: Along, joints: Sequence[str], found: dict[str, Any]) -> bytes:
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise missing_extra("the page", "matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    fig, axes = pyplot.subplots(6, 1, figsize=(12.0, 17.0), sharex=True, layout="constrained")
    apart = np.abs(along.planned - along.recorded)
    horizon = along.latent.shape[1]
    foretold = sorted({1, max(1, horizon // 2), horizon})
    panels: list[tuple[str, list[tuple[str, Any]]]] = [
        ("|planned - recorded|", [(joint, apart[:, k]) for k, joint in enumerate(joints)]),
        ("reward", [("predicted", along.reward_predicted), ("realised", along.reward)]),
        ("latent error / variance", [(f"{k} decisions", along.latent[:, k - 1]) for k in foretold]),
        ("distrust", [("disagreement", along.disagreement), ("consistency", along.consistency)]),
        ("trust", [("trust", along.trust)]),
        ("value", [("planned", along.value), ("recorded", along.value_recorded)]),
    ]
    breaks = np.flatnonzero(np.diff(along.episode)) + 1
    for axis, (label, lines) in zip(axes, panels, strict=True):
        for name, values in lines:
            axis.plot(
                np.insert(along.time, breaks, np.nan), np.insert(values, breaks, np.nan), lw=0.8, label=name
            )
        axis.axvspan(
            found["worst"]["start"],
            found["worst"]["start"] + found["worst"]["seconds"],
            color="#d62728",
            alpha=0.12,
        )
        axis.set_ylabel(label)
        axis.legend(loc="upper right", fontsize="x-small", ncols=4)
    axes[-1].set_xlabel("s since the first decision; the worst stretch is shaded")
    data = io.BytesIO()
    fig.savefig(data, format="png", dpi=90)
    pyplot.close(fig)
    return data.getvalue()
