"""Checks of the ROS 2 environment: distribution, messages, middleware, network.

rclpy is not imported here: where its middleware is missing, that ends the process.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from tdmpc2_core.doctor import Finding, fail, ok, warn

_MESSAGES = (
    "sensor_msgs",
    "geometry_msgs",
    "trajectory_msgs",
    "std_msgs",
    "nav_msgs",
    "diagnostic_msgs",
    "std_srvs",
    "lifecycle_msgs",
)
_LOADING = 15.0  # s
_UP = 1  # IFF_UP
_HIGHEST_DOMAIN = 232  # above it the ports of DDS do not exist
_LAST_SAFE_DOMAIN = 101  # above it they reach into Linux' ephemeral ports
_RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")


def distribution(environment: Mapping[str, str] = os.environ) -> Finding:
    """ROS 2 from an installation that is sourced, or from wheels; not both, whose libraries do not mix."""
    sourced = environment.get("ROS_DISTRO", "")
    try:
        wheels = metadata.version("ros-rclpy")
    except metadata.PackageNotFoundError:
        wheels = ""
    if sourced and wheels:
        found = f"ROS_DISTRO is {sourced}, and this Python environment has ROS 2 wheels {wheels}"
        return fail(
            "ros", found, "source .venv/env.sh, which takes the wheels alone, or use another environment"
        )
    if sourced:
        return ok("ros", f"{sourced}, installed")
    if wheels:
        return ok("ros", f"wheels, rclpy {wheels}")
    return fail("ros", "neither installed nor as wheels", "source /opt/ros/jazzy/setup.bash or .venv/env.sh")


def messages() -> list[Finding]:
    """The message packages that the nodes need, and the suite's own."""
    missing = [name for name in _MESSAGES if importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(f"ros-{name.replace('_', '-')}" for name in missing)
        advice = f"apt install the packages, or pip install {names}"
        return [fail("messages", f"missing: {', '.join(missing)}", advice)]
    findings = [ok("messages", f"{len(_MESSAGES)} packages")]
    try:
        importlib.import_module("tdmpc2_msgs.msg")
    except Exception as problem:  # a half-built package fails in its own way
        advice = "build it: scripts/setup.sh --msgs, or colcon build, then source the result"
        found = f"cannot be imported ({type(problem).__name__}: {problem}); ~/status and others are missing"
        return [*findings, warn("tdmpc2_msgs", found, advice)]
    return [*findings, ok("tdmpc2_msgs", "built")]


def middleware(environment: Mapping[str, str] = os.environ) -> Finding:
    """Which RMW is loaded, and whether it is the one asked for.

    A process of its own loads it: a library that is missing or does not fit may end the process.
    """
    wanted = environment.get("RMW_IMPLEMENTATION", "")
    code = "import rclpy; print(rclpy.get_rmw_implementation_identifier())"
    advice = f"install {wanted or 'an RMW'}, or export RMW_IMPLEMENTATION=rmw_fastrtps_cpp"
    failed = f"{wanted or 'the default RMW'} cannot be loaded"
    try:
        answer = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LOADING,
        )
    except subprocess.TimeoutExpired:  # some that do not fit hang while they end
        return fail("middleware", f"{failed}: no answer in {_LOADING:g} s", advice)
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        return fail("middleware", f"{failed}: {reason}", advice)
    loaded = answer.stdout.strip()
    if wanted and loaded != wanted:
        advice = "all processes must use the same one: services do not work between two"
        return fail("middleware", f"{loaded} is loaded, RMW_IMPLEMENTATION asks for {wanted}", advice)
    return ok("middleware", loaded)


def loopback() -> str:
    """What keeps processes of this machine from hearing each other; empty where nothing was found."""
    try:
        flags = int(Path("/sys/class/net/lo/flags").read_text(), 16)
    except (OSError, ValueError):
        flags = _UP
    if not flags & _UP:
        return "the network interface lo is down; ip link set lo up"
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.bind(("127.0.0.1", 0))
            one.settimeout(1.0)
            one.sendto(b"?", one.getsockname())
            one.recv(1)
    except OSError as problem:
        return f"UDP to 127.0.0.1 does not arrive ({problem}); a firewall, or a container without loopback"
    return ""


def network(environment: Mapping[str, str] = os.environ) -> Finding:
    """Domain and reach of discovery."""
    domain = environment.get("ROS_DOMAIN_ID", "0") or "0"
    reach = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET") or "SUBNET"
    if not domain.isdigit() or int(domain) > _HIGHEST_DOMAIN:
        return fail(
            "network",
            f"ROS_DOMAIN_ID={domain}",
            f"export ROS_DOMAIN_ID with a number from 0 to {_LAST_SAFE_DOMAIN}, the same for all processes",
        )
    if reach not in _RANGES:
        found = f"ROS_AUTOMATIC_DISCOVERY_RANGE={reach}"
        return fail("network", found, f"use one of {', '.join(_RANGES)}")
    silent = loopback()
    if silent:
        return fail("network", f"no loopback: {silent.partition('; ')[0]}", silent.partition("; ")[2])
    found = f"domain {domain}, discovery {reach}"
    if int(domain) > _LAST_SAFE_DOMAIN:
        return warn("network", found, f"a domain up to {_LAST_SAFE_DOMAIN} keeps clear of ephemeral ports")
    return ok("network", found)
