"""What can go wrong on a running robot, by severity: what tells, who notices, what is done, what ends it.

Planner and supervisor act by this table; the page docs/reference/safety-events.md and its simulation in HTML
are written from it: ``python -m tdmpc2_core.control.events docs/reference``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal

from tdmpc2_core.files import write_text


class Action(IntEnum):
    """What is done about an event; the higher one wins."""

    NOTE = 0
    PLAN_ON = 1
    POLICY = 2
    HOLD = 3
    SILENT = 4
    POSTURE = 5
    LIE = 6


WORDS = {
    Action.NOTE: "note it",
    Action.PLAN_ON: "play the last plan on",
    Action.POLICY: "act by the policy prior",
    Action.HOLD: "hold the measured pose",
    Action.SILENT: "send nothing; the controller holds its last target",
    Action.POSTURE: "go to the safe posture, or balance (`safety.balance`)",
    Action.LIE: "hold the joints where the robot lies",
}


@dataclass(frozen=True)
class Event:
    """One row. after: how long the trigger lasts; parameter: what sets it; ends: how the robot goes on."""

    name: str
    trigger: str
    by: Literal["planner", "supervisor"]
    after: str
    parameter: str
    action: Action
    ends: str


_RELEASE = "supervisor/release: planner alive, robot upright and still, then a command of zero"
_ZERO = "a command of zero, once the robot is upright"

EVENTS = (
    Event("beyond_limits", "the model predicts worse than its limits allow", "planner", "one decision",
          "planner: disagreement_limit, consistency_limit", Action.NOTE, "by itself"),
    Event("filtered", "the safety filter changes a command", "planner", "one command",
          "embodiment: safety", Action.NOTE, "by itself"),
    Event("late_plan", "no plan by 85 % of the control period", "planner", "one tick",
          "planner: deadline_ms", Action.PLAN_ON, "by itself"),
    Event("plan_over", "the last plan has been played to its end", "planner", "one tick",
          "", Action.POLICY, "by itself"),
    Event("out_of_trust", "the robot behaves unlike the good runs its bundle was calibrated on", "planner",
          "0.1 s to some s, by how much",
          "planner: out_of_trust (note, prior, hold or posture); tdmpc2 calibrate --trust", Action.POLICY,
          "2 s below 80 % of the threshold; hold and posture: after 1 s also " + _ZERO),
    Event("no_goal", "a robot with goals has none", "planner", "one tick", "", Action.HOLD, "a goal"),
    Event("not_finite", "observation or plan is not finite", "planner", "one tick",
          "", Action.HOLD, "by itself"),
    Event("stale_sensor", "a source that the observation needs is missing, old or from the future", "planner",
          "max_age + 1 tick", "embodiment: observation.terms.max_age", Action.HOLD,
          "fresh samples; after 1 s also " + _ZERO),
    Event("supervisor_silent", "the planner waits for a supervisor and hears none", "planner", "0.5 s",
          "planner: supervisor", Action.HOLD, "its heartbeat"),
    Event("estop", "planner/estop is called", "planner", "one tick", "", Action.HOLD,
          "planner/clear_estop, then " + _ZERO),
    Event("tipped", "the base is tilted beyond max_tilt", "planner", "0.1 s",
          "embodiment: termination.max_tilt", Action.HOLD, _ZERO),
    Event("no_controller", "the controller is inactive, not loaded, or its manager is gone", "planner",
          "its message", "", Action.SILENT, "by itself"),
    Event("second_commander", "another node sends to the controller, or another planner is alive", "planner",
          "1 s", "", Action.SILENT, "the other ends"),
    Event("nobody_commands", "the planner has fallen silent over a second commander and nothing is sent",
          "supervisor", "silence", "supervisor: silence", Action.POSTURE, _RELEASE),
    Event("planner_silent", "no heartbeat of a planner that was commanding", "supervisor", "silence",
          "supervisor: silence", Action.POSTURE, _RELEASE),
    Event("planner_died", "the planner's process is gone while it was commanding", "supervisor",
          "at once", "", Action.POSTURE, _RELEASE),
    Event("supervisor_estop", "supervisor/estop is called", "supervisor", "at once", "",
          Action.POSTURE, _RELEASE),
    Event("fallen", "the base is tilted beyond max_tilt", "supervisor", "0.2 s",
          "embodiment: termination.max_tilt", Action.LIE, _RELEASE),
)  # fmt: skip
"""From the least severe to the most; where several hold, the last of them counts."""

BY_NAME = {event.name: event for event in EVENTS}
_RANK = {event.name: rank for rank, event in enumerate(EVENTS)}


def worst(names: Iterable[str]) -> Event | None:
    """The most severe of the named events; None of none. Raises KeyError for a name that is none."""
    return max((BY_NAME[name] for name in names), key=lambda event: _RANK[event.name], default=None)


def page() -> str:
    """The table as a page of the documentation."""
    head = (
        "# Safety events\n"
        "Written by `python -m tdmpc2_core.control.events docs/reference`; the same table decides on the\n"
        "robot (`control/events.py`). From the least severe to the most; where several hold, the last\n"
        "counts. [Try it](safety-events.html): a page that shows what is done about any set of them. What\n"
        "is guaranteed and what is not: [Safety](../how-to/safety.md).\n\n"
        "| event | when | noticed by | after | set by | action | ends by |\n|---|---|---|---|---|---|---|\n"
    )
    rows = (
        f"| `{e.name}` | {e.trigger} | {e.by} | {e.after} | {e.parameter or '-'} | {WORDS[e.action]} "
        f"| {e.ends} |\n"
        for e in EVENTS
    )
    return head + "".join(rows)


def simulation() -> str:
    """A page of HTML, of one file, that says what is done about the events a reader ticks."""
    rows = [
        {"name": e.name, "trigger": e.trigger, "by": e.by, "after": e.after, "action": WORDS[e.action],
         "ends": e.ends}
        for e in EVENTS
    ]  # fmt: skip
    return _HTML.replace("EVENTS", json.dumps(rows, indent=1))


_HTML = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>tdmpc2: safety events</title>
<style>body{font:16px/1.4 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}
label{display:block;padding:.2em}code{background:#eee;padding:0 .2em}
#done{font-size:1.3em;border:2px solid;padding:.6em}
.worst{background:#fd6}</style>
<h1>Safety events</h1><p>Tick what holds at once. The most severe decides.</p>
<p id="done"></p><div id="list"></div>
<script>
const events = EVENTS;
const list = document.getElementById("list"), done = document.getElementById("done");
events.forEach((e, i) => {
  const label = document.createElement("label"), box = document.createElement("input");
  box.type = "checkbox"; box.id = e.name; box.onchange = show;
  const name = Object.assign(document.createElement("code"), {textContent: e.name});
  label.append(box, " " + (i + 1) + ". ", name, " " + e.trigger + " (" + e.by + ", after: " + e.after + ")");
  list.append(label);
});
function show() {
  const held = events.filter(e => document.getElementById(e.name).checked), worst = held[held.length - 1];
  events.forEach(e => document.getElementById(e.name).parentNode.classList.toggle("worst", e === worst));
  done.textContent = worst ? worst.by + ": " + worst.action + ". Goes on by: " + worst.ends + "."
    : "Nothing is wrong: the robot acts by its plan.";
}
show();
</script></html>
"""


def main(folder: Path) -> None:
    """Write both pages into a folder."""
    write_text(folder / "safety-events.md", page())
    write_text(folder / "safety-events.html", simulation())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
