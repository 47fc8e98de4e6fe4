"""The figures beside the scene: mode, command, value and trust as text and as curves."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from viser import ViserServer

_SECONDS, _PERIOD = 20.0, 0.2  # of the curves, s; between their points
_CURVES = {"value": "predicted return", "disagreement": "of the value heads", "trust": "1 is best"}


class Panel:
    """Text and curves; `update` may be called as often as one likes, by one thread."""

    def __init__(self, server: ViserServer) -> None:
        from viser import uplot

        self._due = 0.0
        self._rows: deque[tuple[float, ...]] = deque(maxlen=round(_SECONDS / _PERIOD))
        self._text = server.gui.add_markdown("waiting for the robot's topics")
        self._plots = {
            name: server.gui.add_uplot(
                (np.zeros(1), np.full(1, np.nan)),
                (uplot.Series(label="s"), uplot.Series(label=name, stroke="#286ee6", width=2)),
                title=f"{name}, {about}",
                scales={"x": uplot.Scale(time=False, auto=True)},
                aspect=2.2,
            )
            for name, about in _CURVES.items()
        }

    def update(self, now: float, text: Mapping[str, str], figures: Mapping[str, float]) -> None:
        """Show rows of text, and figures of `now`, s; those that are missing are gaps in the curves."""
        if now < self._due:
            return
        self._due = now + _PERIOD
        lines = [f"| {name} | {' '.join(value.replace('|', '/').split())} |" for name, value in text.items()]
        self._text.content = "\n".join(["| | |", "|---|---|", *lines])
        self._rows.append((now, *(figures.get(name, math.nan) for name in _CURVES)))
        times, *curves = np.array(self._rows).T
        for plot, curve in zip(self._plots.values(), curves, strict=True):
            plot.data = (times - now, curve)
