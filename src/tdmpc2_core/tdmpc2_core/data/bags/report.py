"""What became of every second of a bag, as JSON and as a picture; and what `bag info` prints."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tdmpc2_core.data.bags.survey import Survey
from tdmpc2_core.errors import missing_extra
from tdmpc2_core.files import replacing
from tdmpc2_core.robots import Embodiment

USED = "episode"


@dataclass
class Span:
    """Seconds of a bag and what became of them; times of reception, s."""

    begin: float
    end: float
    reason: str  # `USED`, or why they were discarded
    detail: str = ""

    @property
    def seconds(self) -> float:
        """Length."""
        return max(0.0, self.end - self.begin)


@dataclass
class BagReport:
    """One converted bag."""

    bag: str
    begin: float
    end: float
    topics: dict[str, str]
    decided_by: str = ""  # where decisions come from
    spans: list[Span] = field(default_factory=list)
    episodes: int = 0
    decisions: int = 0
    as_live: tuple[int, int] | None = None  # observations equal to the planner's own, of how many
    latency: dict[str, float] = field(default_factory=dict)  # s
    latency_from: str = ""
    base_velocity: dict[str, Any] = field(default_factory=dict)
    rewards: dict[str, str] = field(default_factory=dict)  # why a term is not computed; empty: it is
    refused: Counter[str] = field(default_factory=Counter)  # messages that could not be used, by sentence
    notes: list[str] = field(default_factory=list)

    def until(self, time: float, reason: str, detail: str = "") -> None:
        """What came after the last span, up to `time` (s), has this fate."""
        begin = self.spans[-1].end if self.spans else self.begin
        if time <= begin:
            return
        last = self.spans[-1] if self.spans else None
        if last is not None and reason != USED and last.reason == reason:
            last.end = time
        else:
            self.spans.append(Span(begin, time, reason, detail))

    def discarded(self) -> dict[str, float]:
        """Seconds by reason."""
        result: Counter[str] = Counter()
        for span in self.spans:
            if span.reason != USED:
                result[span.reason] += span.seconds  # type: ignore[assignment]
        return dict(result)

    @property
    def used(self) -> float:
        """Seconds in episodes."""
        return sum(span.seconds for span in self.spans if span.reason == USED)

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return vars(self) | {
            "used_s": self.used,
            "discarded_s": self.discarded(),
            "spans": [vars(span) | {"seconds": span.seconds} for span in self.spans],
            "refused": dict(self.refused),
        }

    def __str__(self) -> str:
        latency = self.latency.get("decision", math.nan)
        lines = [
            f"{self.bag}: {self.episodes} episodes, {self.decisions} decisions, {self.used:.1f} s of "
            f"{self.end - self.begin:.1f} s; decisions from {self.decided_by}; latency {latency * 1e3:.1f} ms"
        ]
        if self.as_live:
            lines.append(
                f"  {self.as_live[0]} of {self.as_live[1]} observations are the planner's own, bit for bit"
            )
        lines += [f"  {seconds:7.1f} s  {reason}" for reason, seconds in self.discarded().items()]
        masked = [f"{name} ({why})" for name, why in self.rewards.items() if why]
        lines += [f"  reward is NaN: {'; '.join(masked)}"] if masked else []
        lines += [f"  {count} times refused: {text}" for text, count in self.refused.most_common(5)]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def draw_timeline(path: Path, reports: Sequence[BagReport]) -> None:
    """A picture of what became of every second. Raises UserError without matplotlib, OSError."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise missing_extra("the timeline", "matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    reasons = list(dict.fromkeys(span.reason for report in reports for span in report.spans))
    reasons.sort(key=lambda reason: reason != USED)
    colours = pyplot.get_cmap("tab10")
    height = 1.6 + 0.5 * len(reports) + 0.22 * len(reasons)
    fig, axes = pyplot.subplots(figsize=(9.0, height), layout="constrained")
    for row, report in enumerate(reports):
        for reason in reasons:
            bars = [(s.begin - report.begin, s.seconds) for s in report.spans if s.reason == reason]
            place = reasons.index(reason)
            colour = "#2ca02c" if reason == USED else colours((place - 1) % 10 if place != 3 else 7)
            axes.broken_barh(bars, (row - 0.35, 0.7), facecolors=colour, edgecolor="white", linewidth=0.3)
    for place, reason in enumerate(reasons):
        seconds = sum(s.seconds for report in reports for s in report.spans if s.reason == reason)
        colour = "#2ca02c" if reason == USED else colours((place - 1) % 10 if place != 3 else 7)
        axes.broken_barh([], (0, 0), facecolors=colour, label=f"{reason[:90]}: {seconds:.1f} s")
    axes.set(xlabel="s since the bag's start", yticks=range(len(reports)))
    axes.set_yticklabels([report.bag for report in reports])
    axes.invert_yaxis()
    fig.legend(loc="outside lower left", fontsize="small", frameon=False)
    with replacing(path) as partial:
        fig.savefig(partial, dpi=110)
    pyplot.close(fig)


def info(survey: Survey, robot: Embodiment | None, namespace: str, given: dict[str, str]) -> dict[str, Any]:
    """What a bag holds and what it serves, as plain values."""
    begin, end = survey.span
    content: dict[str, Any] = {
        "bag": str(survey.bag.path),
        "files": [file.name for file in survey.bag.files],
        "start": begin,
        "seconds": end - begin,
        "messages": survey.count,
        "topics": [topic.summary() for topic in survey.topics.values()],
        "notes": list(survey.bag.notes),
    }
    if robot is not None:
        found = survey.assignment(robot, namespace, given)
        content["embodiment"] = robot.name
        content["roles"] = found.topics
        content["refused"] = found.refused
        content["observation"] = survey.served(robot, found)
        content["reward"] = survey.rewarded(robot, found)
    return content


def info_text(content: dict[str, Any]) -> str:
    """`info` as a table."""
    lines = [
        f"{content['bag']}: {len(content['files'])} files, {content['messages']} messages, "
        f"{content['seconds']:.1f} s"
    ]
    rows = [("topic", "type", "messages", "Hz", "lost", "gaps s", "stamps")]
    for topic in content["topics"]:
        gaps = sum(gap["seconds"] for gap in topic["gaps"])
        stamps = topic["stamps"] + (f", back {topic['stamps_back']} times" if topic["stamps_back"] else "")
        numbers = (str(topic["messages"]), f"{topic['rate_hz']:.1f}", str(topic["lost"]), f"{gaps:.1f}")
        rows.append((topic["topic"], topic["type"], *numbers, stamps))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        lines.append(
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    if "embodiment" in content:
        for what in ("observation", "reward"):
            usable = [name for name, problem in content[what].items() if not problem]
            lines.append(f"{content['embodiment']}: {what} usable: {', '.join(usable) or 'nothing'}")
            lines += [f"  missing {name}: {why}" for name, why in content[what].items() if why]
        lines += [f"refused: {sentence}" for sentence in content["refused"]]
    return "\n".join(lines + [f"note: {note}" for note in content["notes"]])
