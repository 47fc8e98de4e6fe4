"""Faults that are injected on purpose into sources, drives, clocks and processes: the table of them.

After PX4's `failure COMPONENT off|stuck|garbage|wrong|slow|delayed|intermittent`. What they do to messages
and drives is in `robots/faulty.py`; docs/reference/faults.md is written from the table: ``python -m
tdmpc2_core.robots.faults docs/reference``.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Literal, NamedTuple

from tdmpc2_core.config import closest
from tdmpc2_core.errors import UserError
from tdmpc2_core.files import write_text

Target = Literal["source", "drive", "clock", "process"]

DRIVES, CLOCK = "actuators", "clock"
"""Components beside the sources of a robot and the processes."""
PROCESSES = ("planner", "simulator", "supervisor")
"""Components that are processes of this machine."""


class Effect(NamedTuple):
    """What a fault does to one kind of target. size: of the fault where none is given; one: also to a single
    joint."""

    what: str
    size: float | None = None
    unit: str = ""
    one: bool = False

    def __str__(self) -> str:
        return self.what + (f" ({self.size:g} {self.unit})" if self.size is not None else "")


FAULTS: dict[str, dict[Target, Effect]] = {
    "ok": {
        "source": Effect("as it comes", one=True),
        "drive": Effect("follows its target", one=True),
        "clock": Effect("as it comes"),
        "process": Effect("goes on (SIGCONT)"),
    },
    "off": {
        "source": Effect("no message; of one joint: it is missing", one=True),
        "drive": Effect("no torque", one=True),
        "clock": Effect("no message"),
        "process": Effect("is killed (SIGKILL)"),
    },
    "stuck": {
        "source": Effect("values of the first message repeated under fresh stamps", one=True),
        "drive": Effect("holds the target it has", one=True),
        "clock": Effect("the first time repeated"),
        "process": Effect("stands still (SIGSTOP)"),
    },
    "garbage": {
        "source": Effect("every value drawn anew, any sign, 0.001 to 1 000 000", one=True),
        "drive": Effect("a target drawn inside its limits every control period", one=True),
        "clock": Effect("a time drawn within an hour of the right one"),
    },
    "wrong": {
        "source": Effect("orientation turned about x; without one, the first values shifted", 0.5, "rad, m/s",
                         one=True),
        "drive": Effect("its target shifted", 0.3, "rad", one=True),
        "clock": Effect("ahead", 5.0, "s"),
    },
    "slow": {
        "source": Effect("one message in this time", 0.2, "s"),
        "drive": Effect("weak: this share of its effort limit", 0.3, "share", one=True),
        "clock": Effect("runs at this share of its speed", 0.5, "share"),
    },
    "delayed": {
        "source": Effect("every message late, with its own stamp", 0.2, "s"),
        "drive": Effect("follows its target late", 0.1, "s", one=True),
        "clock": Effect("every message late", 1.0, "s"),
    },
    "intermittent": {
        "source": Effect("off and ok in turn, this long each", 0.3, "s", one=True),
        "drive": Effect("off and ok in turn, this long each", 0.2, "s", one=True),
        "clock": Effect("off and ok in turn, this long each", 1.0, "s"),
    },
    "nan": {"source": Effect("one value of every message is not a number", one=True)},
    "shuffled": {"source": Effect("joints in an order drawn anew for every message, which is no error")},
    "renamed": {"source": Effect("one joint bears another name", one=True)},
    "older": {"source": Effect("every second message comes before the one measured before it")},
}  # fmt: skip
"""Fault, kind of target, effect; a fault that does nothing to a target is refused there."""


class Request(NamedTuple):
    """One fault for one component; joint: of it alone, empty for all."""

    component: str
    joint: str
    fault: str
    size: float | None


def target_of(component: str) -> Target:
    """What kind of thing a component is."""
    if component in PROCESSES:
        return "process"
    return "drive" if component == DRIVES else "clock" if component == CLOCK else "source"


def read_request(component: str, fault: str, size: float | None = None) -> Request:
    """The request that names `component`, or one joint of it as component/joint.

    size: s, rad, share: see `FAULTS`; None takes that of the table.

    Raises:
        UserError: the component takes no such fault, or not of one joint, or not of this size.
    """
    name, slash, joint = component.partition("/")
    target = target_of(name)
    takes = [other for other, effects in FAULTS.items() if target in effects]
    if fault not in takes:
        near = closest(fault, takes)
        raise UserError(f"{component}: no fault {fault!r}{near}; {', '.join(takes)} are known of it")
    effect = FAULTS[fault][target]
    if slash and not effect.one:
        raise UserError(f"{component}: {fault} is of all joints together; name {name} alone")
    if size is not None and effect.size is None:
        raise UserError(f"{component}: {fault} has no size")
    if size is not None and not (math.isfinite(size) and (size > 0.0 or fault == "wrong")):
        raise UserError(f"{component}: {fault} needs a size above 0, {effect.unit}")
    return Request(name, joint, fault, effect.size if size is None else size)


def page() -> str:
    """The table as a page of the documentation."""
    targets: tuple[Target, ...] = ("source", "drive", "clock", "process")
    head = (
        "# Faults\n"
        "Written by `python -m tdmpc2_core.robots.faults docs/reference`; the same table decides what\n"
        "`tdmpc2 fault`, the simulation and the relay take (`robots/faults.py`). The number in brackets\n"
        "is the size where none is given. How to inject one: [Safety](../how-to/safety.md#inject-a-fault).\n"
        "What the suite does about each: [fault suite](fault-suite.md).\n\n"
        "| fault | source: `joints`, `imu`, `command` | drive: `actuators` | `clock` "
        f"| process: {', '.join(f'`{name}`' for name in PROCESSES)} |\n|---|---|---|---|---|\n"
    )
    rows = (
        f"| `{fault}` | " + " | ".join(str(effects.get(target, "-")) for target in targets) + " |\n"
        for fault, effects in FAULTS.items()
    )
    alone = "; ".join(f"{target} {_alone(target)}" for target in targets[:2])
    return head + "".join(rows) + f"\nOf one joint alone, as `joints/NAME` or `actuators/NAME`: {alone}.\n"


def _alone(target: Target) -> str:
    """Faults that a single joint may have."""
    return ", ".join(f"`{name}`" for name, of in FAULTS.items() if target in of and of[target].one)


if __name__ == "__main__":
    write_text(Path(sys.argv[1]) / "faults.md", page())
