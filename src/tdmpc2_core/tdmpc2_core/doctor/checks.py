"""Checks that need no ROS: interpreter, libraries, threads, real-time limits, GPU, bundle against robot."""

from __future__ import annotations

import importlib
import os
import re
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

from tdmpc2_core.doctor.finding import Finding, fail, ok, warn
from tdmpc2_core.errors import UserError

_LOWEST = {"numpy": (1, 26), "torch": (2, 4), "mujoco": (3, 6), "safetensors": (0, 4)}
_LIMITS_FILE = "/etc/security/limits.d/99-realtime.conf"
_MEMLOCK = 256 * 2**20  # bytes that a planner with its model needs at the least
_PRIORITY = 50  # of ros2_control_node
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
    from tdmpc2_core.bundles import shipped_bundle
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
    probe = folder / ".doctor"
    try:
        probe.write_text("")
        probe.unlink()
    except OSError as problem:
        found = f"{folder} cannot be written ({problem.strerror})"
        return fail("working folder", found, "change to a folder of your own before starting runs")
    return ok("working folder", f"{folder} can be written")
