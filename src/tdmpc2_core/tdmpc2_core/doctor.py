"""``tdmpc2-doctor``: what this machine lacks and what to do about it; the checks that need no ROS."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from tdmpc2_core.errors import CommandLine, UserError
from tdmpc2_core.files import check_writable

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        check: what was looked at.
        level: ok; warn: works, with a drawback; fail: the suite or the robot does not work like this.
        found: what was there.
        advice: what to do about it; empty at ok.
    """

    check: str
    level: Level
    found: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain values for JSON."""
        return asdict(self)


def ok(check: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(check, "ok", found)


def warn(check: str, found: str, advice: str) -> Finding:
    """Works, with a drawback."""
    return Finding(check, "warn", found, advice)


def fail(check: str, found: str, advice: str) -> Finding:
    """Does not work."""
    return Finding(check, "fail", found, advice)


_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


def command_line(prog: str, description: str) -> CommandLine:
    """Of a doctor: --robot, --model and --json."""
    parser = CommandLine(
        prog=prog,
        description=description,
        epilog="Exit code: 0 nothing failed (warnings may remain), 1 a check failed, 2 a mistake.",
    )
    parser.add_argument(
        "--robot", default="quadruped", help="shipped name or embodiment folder (default: %(default)s)"
    )
    parser.add_argument("--model", help="checkpoint bundle (default: the one shipped for the robot)")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of lines")
    return parser


def run(checks: Sequence[Callable[[], Finding | list[Finding]]]) -> list[Finding]:
    """Findings of all checks; one that breaks down is a finding too, so that the others still run."""
    findings: list[Finding] = []
    for check in checks:
        try:
            result = check()
        except Exception as problem:  # the doctor examines broken machines
            name = getattr(check, "__name__", "check").replace("_", " ")
            advice = "report this with the output of --json"
            result = fail(name, f"the check itself failed: {type(problem).__name__}: {problem}", advice)
        findings.extend(result if isinstance(result, list) else [result])
    return findings


def shown(findings: Sequence[Finding], as_json: bool) -> int:
    """Print findings; returns the exit code, 1 when one of them failed."""
    failed = sum(finding.level == "fail" for finding in findings)
    if as_json:
        print(json.dumps([finding.to_dict() for finding in findings], indent=2))
        return int(failed > 0)
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        print(f"{_MARKS[finding.level]}  {finding.check.ljust(width)}  {finding.found}")
        if finding.advice:
            print(f"      {' ' * width}  -> {finding.advice}")
    warned = sum(finding.level == "warn" for finding in findings)
    print(f"{len(findings)} checks, {failed} failed, {warned} warnings")
    return int(failed > 0)


def guarded(program: str, body: Callable[[], int]) -> int:
    """Run a command line: a user's mistake is one sentence and exit code 2."""
    try:
        return body()
    except UserError as problem:
        print(f"{program}: {problem}", file=sys.stderr)
        return 2


_LOWEST = {"numpy": (1, 26), "torch": (2, 4), "mujoco": (3, 6), "safetensors": (0, 4)}
_LIMITS_FILE = "/etc/security/limits.d/99-realtime.conf"
_MEMLOCK = 256 * 2**20  # bytes that a planner with its model needs at the least
_PRIORITY = 50  # of ros2_control_node
_PACKAGES = ("tdmpc2-core", "torch", "numpy", "mujoco", "ros-rclpy")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def python() -> Finding:
    """The interpreter's version."""
    version = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        return fail("python", version, "install Python 3.11 to 3.14 and make the environment with it")
    return ok("python", f"{version}, {sys.executable}")


def library(name: str, needed: bool = True) -> Finding:
    """Whether a library is there, loads, and is new enough."""
    try:
        module = importlib.import_module(name)
    except Exception as problem:  # a broken library raises whatever it likes
        found = f"cannot be imported: {type(problem).__name__}: {problem}".splitlines()[0]
        advice = f"pip install {name}, or scripts/setup.sh for all of them"
        return fail(name, found, advice) if needed else warn(name, found, advice)
    version = str(getattr(module, "__version__", "unknown"))
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < _LOWEST[name]:
        lowest = ".".join(map(str, _LOWEST[name]))
        return fail(name, version, f"pip install --upgrade '{name}>={lowest}'")
    return ok(name, version)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """The machine by its cores and clock, and the versions that ran."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cores": cores(),
        "clock_mhz": _clock_mhz(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _clock_mhz() -> float | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return max(float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz"))
    except (OSError, ValueError):
        return None


def threads(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Thread counts of the numeric libraries, and how their idle threads wait."""
    return [_thread_count(environment, cores()), _wait_policy(environment)]


def _thread_count(environment: Mapping[str, str], available: int) -> Finding:
    given = {name: environment[name] for name in _THREAD_VARIABLES if environment.get(name)}
    advice = "export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 before the nodes start; .venv/env.sh does"
    shown = ", ".join(f"{name}={value}" for name, value in given.items())
    for value in given.values():
        if not value.isdigit() or int(value) < 1:
            return fail("threads", f"{shown}: not a number from 1 on", advice)
        if int(value) > available:
            return fail("threads", f"{shown}, on {available} cores: threads will wait for each other", advice)
    if "OMP_NUM_THREADS" not in given:
        found = f"OMP_NUM_THREADS is not set: every process takes all {available} cores"
        return warn("threads", found, advice)
    return ok("threads", f"{shown}, on {available} cores")


def _wait_policy(environment: Mapping[str, str]) -> Finding:
    policy = environment.get("OMP_WAIT_POLICY", "")
    advice = "export OMP_WAIT_POLICY=PASSIVE; idle threads then sleep instead of taking the cores"
    if policy.upper() == "PASSIVE":
        return ok("idle threads", "OMP_WAIT_POLICY=PASSIVE")
    if policy.upper() == "ACTIVE":
        return fail("idle threads", "OMP_WAIT_POLICY=ACTIVE: they spin", advice)
    found = f"OMP_WAIT_POLICY={policy}" if policy else "OMP_WAIT_POLICY is not set: they spin for a while"
    return warn("idle threads", found, advice)


def real_time_limits() -> list[Finding]:
    """What the user may ask of the scheduler and keep in memory."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return [_priority(_may_run_at(_PRIORITY)), _memory_lock(limit, _may_lock_memory())]


def _may_run_at(priority: int) -> bool:
    """Whether the system grants this thread a real-time priority; it is given back at once."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError:
        return False
    os.sched_setscheduler(0, *before)
    return True


def _priority(granted: bool) -> Finding:
    if granted:
        return ok("real-time priority", f"{_PRIORITY} is granted")
    advice = f"add '@realtime - rtprio 98' to {_LIMITS_FILE}, join that group, log in anew"
    return warn("real-time priority", f"{_PRIORITY}, which controllers ask for, is refused", advice)


def _may_lock_memory() -> bool:
    """Whether CAP_IPC_LOCK (capability 14) lifts the limit for this process."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return bool(match and int(match[1], 16) >> 14 & 1)


def _memory_lock(limit: int, exempt: bool) -> Finding:
    if exempt or limit == resource.RLIM_INFINITY or limit >= _MEMLOCK:
        return ok("locked memory", "no limit" if exempt or limit < 0 else f"up to {limit // 2**20} MB")
    advice = f"add '@realtime - memlock unlimited' to {_LIMITS_FILE}, join that group, log in anew"
    return warn("locked memory", f"up to {limit // 1024} kB; pages of a planner may be swapped out", advice)


def gpu() -> Finding:
    """Whether torch can compute on a GPU that is there."""
    import torch

    if torch.cuda.is_available():
        return ok("gpu", ", ".join(torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())))
    if Path("/proc/driver/nvidia/version").exists():
        reason = "without CUDA" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
        advice = "install a torch whose CUDA the driver supports; nvidia-smi names it"
        return warn("gpu", f"an NVIDIA driver is loaded, torch {torch.__version__} is built {reason}", advice)
    return ok("gpu", "none; everything runs on the CPU")


def bundle(robot: str, model: str | None) -> list[Finding]:
    """The robot's embodiment file, and a checkpoint bundle read in full and compared with it."""
    from tdmpc2_core.files import shipped_bundle
    from tdmpc2_core.robots import Embodiment

    try:
        embodiment = Embodiment.load(robot)
    except UserError as problem:
        return [fail("robot", str(problem), "--robot names a shipped robot or a folder with embodiment.yaml")]
    rate = f"{embodiment.num_joints} joints at {embodiment.control_rate:g} Hz"
    findings = [ok("robot", f"{embodiment.name}, {rate}")]
    try:
        path = model or str(shipped_bundle(embodiment.name))
        from tdmpc2_core.agent import Agent

        agent = Agent.load(path, embodiment=embodiment)
    except UserError as problem:
        return [
            *findings,
            fail("bundle", str(problem), "--model names the folder of a bundle for this robot"),
        ]
    if agent.embodiment is None or agent.embodiment.fingerprint != embodiment.fingerprint:
        return [*findings, fail("bundle", f"{path}: is for no robot", "train one with an embodiment")]
    size = f"{agent.model.num_parameters:,} parameters"
    return [*findings, ok("bundle", f"fits the robot; {size}, planner {agent.planner_config.method}")]


def output_folder(folder: Path) -> Finding:
    """Whether runs and bags can be written."""
    try:
        check_writable(folder / ".doctor", "working folder")
    except UserError as problem:
        advice = "change to a folder of your own before starting runs"
        return fail("working folder", str(problem).partition(": ")[2].replace("/.doctor", ""), advice)
    return ok("working folder", f"{folder} can be written")


def core_checks(robot: str, model: str | None) -> list[Callable[[], Finding | list[Finding]]]:
    """All of them, for a robot and a bundle (None: the shipped one)."""
    return [
        python,
        partial(library, "numpy"),
        partial(library, "torch"),
        partial(library, "safetensors"),
        partial(library, "mujoco", needed=False),
        threads,
        real_time_limits,
        gpu,
        partial(output_folder, Path.cwd()),
        partial(bundle, robot, model),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 nothing failed, 1 a check failed, 2 a user's mistake."""

    def body() -> int:
        parser = command_line("tdmpc2-doctor", "Examine this machine for the tdmpc2 suite; without ROS.")
        given = parser.parse_args(arguments)
        return shown(run(core_checks(given.robot, given.model)), given.json)

    return guarded("tdmpc2-doctor", body)


if __name__ == "__main__":
    sys.exit(main())
