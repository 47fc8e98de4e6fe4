"""Starting nodes as processes in a DDS domain of their own, and an rclpy node in the test to watch them.

Nodes of one test see each other and nothing else: every `Domain` draws a free domain id, and discovery stays
on this machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

LOCAL = {
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "RCUTILS_LOGGING_BUFFERED_STREAM": "0",
}
os.environ.update(LOCAL)

import rclpy  # noqa: E402  (reads the variables above)
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from tdmpc2_ros.quickstart.processes import own_domain, ros_arguments  # noqa: E402

SOURCES = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    """Of a child that takes this source tree and stays on this machine."""
    paths = [str(SOURCES / "tdmpc2_core"), str(SOURCES / "tdmpc2_ros"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **LOCAL, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}


class Process:
    """A node as a process. Its output is collected while it runs; `log` is all of it so far."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(self.popen.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.append(line)

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def wait_for_log(self, text: str, timeout: float = 20.0) -> None:
        """Until `text` is in the output; AssertionError with the output after `timeout` s."""
        wait_until(lambda: text in self.log, timeout, lambda: f"no {text!r} in the output:\n{self.log}")

    def send(self, number: int) -> None:
        """Send a signal."""
        self.popen.send_signal(number)

    def wait(self, timeout: float = 15.0) -> int:
        """Exit code; AssertionError with the output when it still runs after `timeout` s."""
        try:
            code = self.popen.wait(patience(timeout))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s:\n{self.log}") from None
        self._reader.join(2.0)
        return code

    def stop(self, number: int = signal.SIGINT, timeout: float = 15.0) -> int:
        """Send a signal and wait for the exit code."""
        if self.popen.poll() is None:
            self.send(number)
        return self.wait(timeout)

    def kill(self) -> None:
        """End it at once, whatever its state."""
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait(5.0)
        self._reader.join(2.0)


class Domain:
    """A DDS domain of one test: processes started in it, and `node`, an rclpy node spun in the background."""

    def __init__(self, domain: int, use_sim_time: bool = False) -> None:
        self.id, self.processes = domain, list[Process]()
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        overrides = [Parameter("use_sim_time", value=use_sim_time)]
        self.node: Node = rclpy.create_node("watcher", context=self.context, parameter_overrides=overrides)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._spinner = threading.Thread(target=self._spin, daemon=True)
        self._spinner.start()

    def _spin(self) -> None:
        with contextlib.suppress(
            rclpy.executors.ExternalShutdownException, rclpy.executors.ShutdownException
        ):
            self.executor.spin()

    def start(
        self, module: str, parameters: dict[str, Any] | None = None, arguments: Sequence[str] = ()
    ) -> Process:
        """Start `python -m module` with ROS parameters; `arguments` follow --ros-args."""
        return self.run(["-m", module, *ros_arguments(parameters or {}), *arguments])

    def run(self, arguments: Sequence[str]) -> Process:
        """Start Python with `arguments` in this domain."""
        self.processes.append(Process(arguments, environment(ROS_DOMAIN_ID=str(self.id))))
        return self.processes[-1]

    def call(self, service: str, kind: type, request: Any = None, timeout: float = 20.0) -> Any:
        """Response of a service call; AssertionError when there is none within `timeout` s."""
        client = self.node.create_client(kind, service)
        try:
            assert client.wait_for_service(patience(timeout)), f"no service {service}"
            future = client.call_async(request if request is not None else kind.Request())
            wait_until(future.done, timeout, lambda: f"no answer from {service}")
            return future.result()
        finally:
            self.node.destroy_client(client)

    def close(self) -> None:
        """Kill what still runs and leave the domain."""
        for process in self.processes:
            process.kill()
        self.executor.shutdown(20.0)
        self._spinner.join(20.0)  # a node that goes while its executor runs takes the interpreter along
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@contextlib.contextmanager
def domain(use_sim_time: bool = False) -> Iterator[Domain]:
    """A fresh domain; all its processes are ended on leaving."""
    with own_domain(range(1, 101), "ros_domain_ids") as number:
        result = Domain(number, use_sim_time)
        try:
            yield result
        finally:
            result.close()


def start_quickstart(*arguments: object) -> subprocess.Popen[str]:
    """The quickstart as a user starts it, its output kept."""
    return subprocess.Popen(
        [sys.executable, "-m", "tdmpc2_ros.quickstart", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def run_quickstart(*arguments: object, timeout: float = 120.0) -> tuple[int, str, str]:
    """Exit code, output and errors of a whole run."""
    process = start_quickstart(*arguments)
    try:
        output, errors = process.communicate(timeout=patience(timeout))
    finally:
        process.kill()
    return process.returncode, output, errors


class OnTerminal:
    """A Python program on a pseudo-terminal of its own; `output` is all that it has shown so far."""

    def __init__(self, arguments: Sequence[object], **more: str) -> None:
        self._keyboard, screen = pty.openpty()
        self._output = bytearray()
        self.popen = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            env=environment(COLUMNS="200", **more),
            preexec_fn=_take_terminal,
        )
        self.screen = screen  # kept open: its settings can be looked at after the program has ended
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._keyboard, 4096):
                self._output += data

    @property
    def output(self) -> str:
        return self._output.decode(errors="replace").replace("\r\n", "\n")

    def press(self, keys: str) -> None:
        """Type `keys`."""
        os.write(self._keyboard, keys.encode())

    def hold(self, key: str, until: Callable[[], bool], timeout: float = 30.0) -> None:
        """Repeat `key` as a keyboard does, 25 times a second, until the condition holds."""
        end = time.monotonic() + patience(timeout)
        while not until():
            assert time.monotonic() < end, f"held {key!r} in vain:\n{self.output}"
            self.press(key)
            time.sleep(0.04)

    def wait(self, timeout: float = 20.0) -> int:
        """Exit code; AssertionError with the output when it still runs after `timeout` s."""
        say = f"still running after {timeout} s"
        wait_until(lambda: self.popen.poll() is not None, timeout, lambda: f"{say}:\n{self.output}")
        return self.popen.returncode

    def __enter__(self) -> OnTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.wait(5.0)
        os.close(self.screen)
        self._reader.join(2.0)
        os.close(self._keyboard)


def _take_terminal() -> None:
    """In the child: its standard input becomes its controlling terminal, so that Ctrl-C is a signal there."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def patience(timeout: float) -> float:
    """`timeout`, s, or up to five times as long where processes wait for the cores."""
    load = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    return timeout * min(max(1.0, load), 5.0)


def wait_until(
    condition: Callable[[], bool], timeout: float, message: Callable[[], str] | str = "timed out"
) -> None:
    """Until `condition()` holds; AssertionError with `message` after `timeout` s (see `patience`)."""
    end = time.monotonic() + patience(timeout)
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(message if isinstance(message, str) else message())
        time.sleep(0.01)
