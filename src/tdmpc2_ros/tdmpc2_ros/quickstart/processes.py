"""The quickstart's children: started with logs, watched, and ended whatever happens."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from tdmpc2_core.errors import UserError

_DOMAINS = range(215, 232)  # above the domains of other users, outside Linux' ephemeral ports
_LOCKS = "tdmpc2_domains"
_STOP_SECONDS = 10.0
_LINES = 10
PRIORITY = 5
"""Of SCHED_RR: above everything ordinary, below the drivers that ros2_control runs at 50."""
_LOG_MARK = re.compile(r"^\[(?:ERROR|FATAL)\] \[[^\]]*\] \[[^\]]*\]: (.*)$")


class ChildDied(Exception):
    """A child ended by itself; the text says which, how, and the last lines of its log."""


class Child:
    """One node as a process, its output in a file."""

    def __init__(
        self,
        name: str,
        module: str,
        parameters: Mapping[str, Any],
        folder: Path,
        namespace: str = "",
        urgent: bool = True,
        remap: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name = f"{namespace}_{name}" if namespace else name
        self.log = folder / f"{self.name}.log"
        given = ros_arguments(parameters)
        given += [part for old, new in remap.items() for part in ("-r", f"{old}:={new}")]
        given += ["-r", f"__ns:=/{namespace}", "-r", f"/clock:=/{namespace}/clock"] if namespace else []
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "RCUTILS_LOGGING_BUFFERED_STREAM": "0"}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *given],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the quickstart alone, which ends its children
                preexec_fn=functools.partial(_before_exec, urgent),
            )

    def tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LINES:])

    def complaint(self) -> str | None:
        """The last error that the node logged, or what it printed when it ended with code 2."""
        lines = self.log.read_text(errors="replace").splitlines()
        found = [match.group(1) for line in lines if (match := _LOG_MARK.match(line))]
        if self.process.poll() == 2 and lines:
            return lines[-1]
        return found[-1] if found else None

    def peak_megabytes(self) -> float | None:
        """Largest resident memory so far, MB; None where /proc does not tell."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        found = re.search(r"VmHWM:\s+(\d+)", status)
        return int(found.group(1)) * 1024 / 1e6 if found else None

    def realtime(self) -> bool:
        """Whether the system let it run before ordinary processes (SCHED_RR)."""
        try:
            return os.sched_getscheduler(self.process.pid) == os.SCHED_RR
        except (OSError, AttributeError):
            return False

    def cpu_seconds(self) -> float | None:
        """Processor time so far, s; None where /proc does not tell."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Children:
    """Context manager: on leaving, every child is ended, with SIGKILL if it does not heed SIGINT."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.all: list[Child] = []

    def start(
        self,
        name: str,
        module: str,
        parameters: Mapping[str, Any],
        namespace: str = "",
        urgent: bool = True,
        remap: Mapping[str, str] = MappingProxyType({}),
    ) -> Child:
        """Start `python -m module` as a node with ROS parameters; its log is [namespace_]name.log.

        urgent: it runs before ordinary processes where the system allows it. remap: names it is to use.
        """
        child = Child(name, module, parameters, self._folder, namespace, urgent, remap)
        self.all.append(child)
        return child

    def check(self) -> None:
        """Raise ChildDied when one has ended, or UserError when it ended over a user's mistake."""
        for child in self.all:
            code = child.process.poll()
            if code == 2:
                raise UserError(child.complaint() or f"{child.name} ended with code 2; see {child.log}")
            if code is not None:
                how = f"by signal {-code}" if code < 0 else f"with code {code}"
                raise ChildDied(f"{child.name} ended {how}; the end of {child.log}:\n{child.tail()}")

    def stop(self, *children: Child) -> None:
        """Ask them to end, wait, and kill those that do not.

        Raises KeyboardInterrupt, where it came meanwhile, once all have ended.
        """
        for child in children:
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGINT)
        end, interrupted = time.monotonic() + _STOP_SECONDS, False
        for child in children:
            try:
                child.process.wait(max(0.1, end - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt) as cause:
                interrupted |= isinstance(cause, KeyboardInterrupt)
                child.process.kill()
                child.process.wait(5.0)
        self.all = [child for child in self.all if child not in children]
        if interrupted:
            raise KeyboardInterrupt

    def __enter__(self) -> Children:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop(*self.all)


def _before_exec(urgent: bool) -> None:
    """In the child (Linux): end when the quickstart ends in a way that it cannot answer, such as SIGKILL; if
    `urgent`, run before ordinary processes where the system allows it (root, CAP_SYS_NICE, limit rtprio)."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        with contextlib.suppress(OSError):
            if urgent:
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))


@contextlib.contextmanager
def own_domain(domains: range = _DOMAINS, locks: str = _LOCKS) -> Iterator[int]:
    """A DDS domain that no other quickstart of this machine uses, held by a file lock.

    Args:
        domains: those to choose from.
        locks: name of the folder that holds a file for each, below that of temporary files.

    Raises:
        UserError: all of them are in use.
    """
    folder = Path(tempfile.gettempdir()) / f"{locks}.{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for number in domains:
        with open(folder / str(number), "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield number
            return
    raise UserError(
        f"all ROS domains from {domains[0]} to {domains[-1]} are in use by other quickstarts; end one"
    )


def ros_arguments(parameters: Mapping[str, Any]) -> list[str]:
    """Parameters as a node takes them on its command line."""
    given = [part for name, value in parameters.items() for part in ("-p", f"{name}:={_text(value)}")]
    return ["--ros-args", *given]


def _text(value: Any) -> str:
    """A value as --ros-args parses it (YAML)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
