"""Nodes of the suite as processes of this machine (Linux): found by what they run, and sent signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.faults import Request

SIGNALS = {"off": signal.SIGKILL, "stuck": signal.SIGSTOP, "ok": signal.SIGCONT}
"""Fault of a process, and the signal that makes it."""
_PROGRAMS = {"planner": "planner", "simulator": "mujoco_sim", "supervisor": "supervisor"}


def find(component: str, environment: Mapping[str, str], namespace: str = "") -> list[int]:
    """Process ids of this user's nodes of that kind in the DDS domain of `environment`.

    namespace: of the node, without a leading slash; nodes outside any where it is empty.
    """
    domain = environment.get("ROS_DOMAIN_ID") or "0"
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid != os.getuid():
                continue
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            given = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended, or is another's
            continue
        its_domain = next((w[14:] for w in given if w.startswith("ROS_DOMAIN_ID=")), "") or "0"
        its_name = next((w[6:].strip("/") for w in words if w.startswith("__ns:=")), "")
        if _runs(component, words) and (its_domain, its_name) == (domain, namespace):
            found.append(int(folder.name))
    return found


def _runs(component: str, words: list[str]) -> bool:
    """Whether a command line is that of the node: as a module, or by its installed program."""
    program = f"/tdmpc2_ros/{_PROGRAMS[component]}"
    module = f"tdmpc2_ros.{component}.node"
    installed = any(word.endswith((program, f"/bin/{_PROGRAMS[component]}")) for word in words[:2])
    return installed or any(pair == ("-m", module) for pair in zip(words, words[1:], strict=False))


def inject(request: Request, environment: Mapping[str, str], namespace: str = "") -> int:
    """Send the fault's signal to the one process that is meant; its id.

    Raises:
        UserError: there is none, or several.
    """
    found = find(request.component, environment, namespace)
    where = f"ROS_DOMAIN_ID {environment.get('ROS_DOMAIN_ID') or 0}"
    if namespace:
        where += f", namespace {namespace}"
    if len(found) != 1:
        what = f"processes {', '.join(map(str, sorted(found)))} run" if found else "no process runs"
        raise UserError(f"{request.component}: {what} here ({where}); one is needed, on this machine")
    os.kill(found[0], SIGNALS[request.fault])
    return found[0]
