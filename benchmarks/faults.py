"""What the nodes do about every fault: a walking quadruped, processes over DDS, faults injected one by one.

Each row: what the robot came to (mode of the planner, or what the supervisor did), the reason published, ms
from the fault to it, control periods without a decision, commands that broke a limit of position or rate,
whether the robot fell, and what an operator did before it walked again after `ok`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common import parser, print_table, results_of, save, script
from fault_disk import full_disk
from fault_fuzz import fuzz
from fault_world import ROBOT, World

from tdmpc2_core.errors import UserError
from tdmpc2_ros.quickstart.processes import own_domain

PERIOD = ROBOT.control_period
_AGE = max(ROBOT.observation.max_ages.values()) + PERIOD + 0.01
"""s within which a source that fails must be noticed: its largest age and a tick after its last good sample,
which comes up to one of its own periods after the fault."""
_FELL = 0.5  # cosine of the base's tilt
_SOME = ("plan", "policy")


@dataclass(frozen=True)
class Case:
    """One fault: how it comes and goes. within: s until the reaction; None where none is due. simulated: in
    a world that follows /clock. `start` may say what came of it, `end` why."""

    name: str
    start: Callable[[World], Any]
    end: Callable[[World], Any]
    within: float | None = None
    seconds: float = 1.5  # that it lasts
    simulated: bool = False
    short: bool = False  # also in the short form


def source_cases() -> list[Case]:
    """Every fault of every source."""
    cases = []
    for source in ("joints", "imu"):
        for fault in ("off", "stuck", "garbage", "wrong", "slow", "delayed", "intermittent", "nan", "older"):
            within = None if fault == "older" else _AGE
            within = _AGE + 0.3 if fault == "stuck" else within  # once another source has moved
            cases.append(_source(source, fault, within, short=(source, fault) in _SHORT))
    for fault, within in (("shuffled", None), ("renamed", _AGE)):
        cases.append(_source("joints", fault, within))
    joint = "joints/RL_calf_joint"
    cases += [_source(joint, fault, _AGE) for fault in ("off", "wrong", "garbage")]
    cases.append(_source(joint, "stuck", None))  # noticed by its drift
    return cases + [
        Case(f"command {fault}", partial(_fault, "command", fault, "fault"),
             partial(_fault, "command", "ok", "fault"))
        for fault in ("off", "stuck", "garbage", "wrong", "slow", "delayed", "intermittent", "nan")
    ]  # fmt: skip


_SHORT = {("imu", "off"), ("joints", "garbage")}


def _source(component: str, fault: str, within: float | None, short: bool = False) -> Case:
    end = partial(_fault, component, "ok", "mujoco_sim")
    return Case(f"{component} {fault}", partial(_fault, component, fault, "mujoco_sim"), end, within,
                short=short)  # fmt: skip


def _fault(component: str, fault: str, node: str, world: World, size: float | None = None) -> None:
    world.fault(component, fault, size, node)


def drive_cases() -> list[Case]:
    """Every fault of one drive, and no torque at all."""
    joint = "actuators/RL_calf_joint"
    names = [(joint, fault) for fault in ("off", "stuck", "garbage", "wrong", "slow", "delayed")]
    return [_source(component, fault, None) for component, fault in [*names, ("actuators", "off")]]


def process_cases() -> list[Case]:
    """Nodes that are killed or stand still."""
    cont = signal.SIGCONT
    return [
        Case("planner off", lambda w: w.send("planner", signal.SIGKILL), lambda w: w.start("planner"),
             2 * PERIOD),
        Case("planner stuck", lambda w: w.send("planner", signal.SIGSTOP), lambda w: w.send("planner", cont),
             0.1 + PERIOD),
        Case("supervisor off", lambda w: w.send("supervisor", signal.SIGKILL),
             lambda w: w.start("supervisor"), 0.5 + PERIOD),
        Case("supervisor stuck", lambda w: w.send("supervisor", signal.SIGSTOP),
             lambda w: w.send("supervisor", cont), 0.5 + PERIOD),
        Case("simulator stuck", lambda w: w.send("simulator", signal.SIGSTOP),
             lambda w: w.send("simulator", cont), _AGE),
    ]  # fmt: skip


def load_cases() -> list[Case]:
    """Other processes that are a nuisance, and calls of every kind."""
    return [
        Case("cmd_vel flood, 2 senders", partial(_load, "flood", 2), _wait_load),
        Case("100 000 joints in a message", partial(_load, "huge", 1), _wait_load),
        Case("busy loops, 2 per core", partial(_load, "hog", 2 * (os.cpu_count() or 1)), _wait_load),
        Case("disk full while recording", full_disk, lambda w: None, seconds=0.5),
        Case("services and parameters", fuzz, _restart_all, seconds=0.5, short=True),
    ]


_running: list[subprocess.Popen[str]] = []


def _load(kind: str, count: int, _world: World) -> None:
    command = [sys.executable, str(Path(__file__).with_name("fault_load.py")), kind, "4"]
    for _ in range(count):
        _running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=_ordinary))
    time.sleep(2.0)  # until they have begun


def _ordinary() -> None:
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _wait_load(_world: World) -> str:
    """Until they have ended; the rates that they came to."""
    rates = [(process.communicate(timeout=60)[0] or "").strip() for process in _running]
    _running.clear()
    return f"sent at {', '.join(filter(None, rates))}" if any(rates) else ""


def _restart_all(world: World) -> None:
    """What was accepted of parameters and stops goes with the processes."""
    for name in ("simulator", "supervisor", "planner"):
        world.start(name)


def clock_cases() -> list[Case]:
    """/clock, in a world that follows it."""
    jumps = (("stuck", None, None), ("off", None, None), ("wrong", 5.0, 0.5), ("slow", 0.5, None))
    return [
        Case(
            f"clock {fault}" + (f" by {size:g} s" if fault == "wrong" else ""),
            partial(_fault, "clock", fault, "mujoco_sim", size=size),
            partial(_fault, "clock", "ok", "mujoco_sim"),
            within,
            seconds=4.0,
            simulated=True,
        )
        for fault, size, within in (*jumps, ("wrong", -5.0, 0.5))
    ]


def measure(world: World, case: Case) -> dict[str, Any]:
    """One row."""
    if not world.walk() or not world.upright > _FELL:
        raise UserError(f"{case.name}: the robot does not walk before it; {world.state or world.mode}")
    time.sleep(0.5)
    world.limits.broken, commands, least = 0, world.limits.commands, 1.0
    before, started = len(world.decisions), time.time()
    told = case.start(world)
    end = started + case.seconds
    while time.time() < end:
        least = min(least, world.upright)
        time.sleep(0.005)
    seen, heard = world.decisions[before:], [one for one in world.states if one[0] >= started]
    mode, reason, reaction = reaction_of(world, started, seen, heard, case.simulated)
    mode, reason = told or (mode, reason)
    reason = case.end(world) or reason
    recovered = world.walk()
    late = case.within is not None and not (reaction is not None and reaction <= case.within)
    return {
        "fault": case.name,
        "came to": mode,
        "reason": reason,
        "ms": "" if reaction is None else round(1e3 * reaction),
        "due ms": "" if case.within is None else round(1e3 * case.within),
        "in time": "" if case.within is None else "no" if late else "yes",
        "missed": "" if case.simulated else missed(seen),
        "over limits": world.limits.broken,
        "commands": world.limits.commands - commands,
        "fell": "yes" if least < _FELL else "no",
        "walks again after": recovered or "no",
    }


def reaction_of(
    world: World, started: float, seen: Sequence[Any], heard: Sequence[tuple[float, str]], simulated: bool
) -> tuple[str, str, float | None]:
    """Mode, reason and s until it: of the supervisor where it acted, else the planner's worst."""
    if stops := [one for one in heard if one[1]]:
        when, text = stops[0]
        return text.partition(":")[0], text.partition(": ")[2], when - started
    blind = [
        (arrived if simulated else trace.sent, trace.mode_name)
        for arrived, trace in seen
        if trace.mode_name not in _SOME and (trace.mode_name != "replay" or trace.now != trace.now)
    ]
    if not world.mode:
        return "no decision", world.diagnostics.get("planner: control", ""), None
    refused = [
        text
        for when, name, text in world.said
        if when >= started and name.startswith("planner") and text.startswith("refused")
    ]
    if not blind:
        return f"plan, {'walks' if world.speed > 0.15 else 'stands'}", refused[-1] if refused else "", None
    modes = [mode for _, mode in blind]
    worst = max(set(modes), key=("replay", "idle", "no_controller", "hold", "estop").index)
    said = [
        text for when, name, text in world.said
        if when >= started and name.startswith("planner") and text.startswith(("holding", "replay", "not c"))
    ]  # fmt: skip
    return worst, said[-1] if said else "", blind[0][0] - started


def missed(seen: Sequence[Any]) -> int:
    """Control periods between the first and the last decision without one."""
    if len(seen) < 2:
        return 0
    sent = [trace.sent for _, trace in seen]
    return max(0, round((sent[-1] - sent[0]) / PERIOD) + 1 - len(sent))


def run(cases: Sequence[Case], simulated: bool, failed: list[str]) -> list[dict[str, Any]]:
    """The rows of one world; names of cases that could not be begun go into `failed`."""
    rows: list[dict[str, Any]] = []
    world = None
    with tempfile.TemporaryDirectory(prefix="tdmpc2_faults_") as folder, own_domain() as number:
        os.environ["ROS_DOMAIN_ID"] = str(number)
        try:
            for case in cases:
                world = world or World(Path(folder), simulated)
                try:
                    row = measure(world, case)
                except UserError as problem:
                    print(problem, flush=True)
                    failed.append(case.name)
                    world.close()
                    world = None
                    continue
                rows.append(row)
                print(" | ".join(str(value) for value in row.values()), flush=True)
        finally:
            if world is not None:
                world.close()
    return rows


def main() -> int:
    """Print the table; write faults.json."""
    options = parser(__doc__ or "", "python benchmarks/faults.py")
    options.add_argument("--short", action="store_true", help="the rows that tests run")
    options.add_argument("--only", default="", metavar="WORD", help="cases whose name has it")
    given = options.parse_args()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    cases = [
        *process_cases(),
        *source_cases(),
        *drive_cases(),
        *load_cases(),
        *clock_cases(),
    ]
    cases = [case for case in cases if given.only in case.name and (case.short or not given.short)]
    if not cases:
        raise UserError(f"--only {given.only}: no case has it in its name")
    failed: list[str] = []
    rows = []
    for simulated in (False, True):
        some = [case for case in cases if case.simulated is simulated]
        rows += run(some, simulated, failed) if some else []
    if rows:
        print_table(rows)
        save(results_of(given.out), "faults", rows, failed=failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(script(main))
