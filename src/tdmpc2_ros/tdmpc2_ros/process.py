"""Running a node as a process: signals, the executor's thread, and exit codes."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import rclpy
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from tdmpc2_core.errors import UserError

NodeType = TypeVar("NodeType", bound=Node)
Stop = threading.Event


def end_after_signal(seconds: float) -> None:
    """End the process `seconds` after its first signal, whatever its threads are at. Main thread only.

    Python runs signal handlers between two instructions of the main thread, which may compute for minutes;
    the descriptor is written at once.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        ours.recv(1)
        time.sleep(seconds)
        print(
            f"ended {seconds:g} s after the signal: a computation did not stop", file=sys.stderr, flush=True
        )
        os._exit(1)

    _KEPT.append((ours, theirs))
    threading.Thread(target=watch, name="end", daemon=True).start()


_KEPT: list[Any] = []  # open as long as the process


def run_node(
    make: Callable[[], NodeType],
    run: Callable[[NodeType, Stop], int | None],
    arguments: list[str] | None,
    patience: float | None = None,
) -> int:
    """Make a node and run it until SIGINT, SIGTERM or SIGHUP; further signals change nothing.

    Args:
        patience: s from the first signal to the end of the process at the latest; None waits for `run`.

    Returns:
        Exit code: what `run` returns, 0 for None; 2 after a user's mistake, which is printed as one sentence.
    """
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    if patience is not None:
        end_after_signal(patience)
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    node, code = None, 1
    atexit.register(lambda: _leave(code))
    try:
        node = make()
        code = run(node, stop) or 0
    except UserError as error:
        print(error, file=sys.stderr)
        code = 2
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return code


def _leave(code: int) -> None:
    """End the process here.

    The interpreter's own end takes seconds with torch loaded, of the five that launch gives it, and destroys
    what threads of the middleware may still use.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _spin(executor: SingleThreadedExecutor, node: Node) -> None:
    """Serve until the executor is shut down; a callback that raises costs its own message and a line."""
    while True:
        try:
            executor.spin()
            return
        except (ExternalShutdownException, ShutdownException):
            return
        except Exception as problem:
            node.get_logger().error(
                f"a callback failed: {type(problem).__name__}: {problem}", throttle_duration_sec=2.0
            )


@contextmanager
def spin_in_background(node: Node) -> Iterator[None]:
    """Serve the node's callbacks in a thread of their own."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def serve() -> None:
        _spin(executor, node)

    thread = threading.Thread(target=serve, name="callbacks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown(timeout_sec=2.0)
        thread.join(timeout=2.0)


class Companion:
    """A second node of the process, `<name>_<suffix>`, served by a thread of its own until `stop`.

    For what must not wait for the first node's callbacks, or be slowed by its size: before every callback
    rclpy lists all that a node has. Topics and services are made on `node` under names that the first node
    resolved (`Node.resolve_topic_name`), as remappings are its alone.

    Args:
        clocked: the node follows the first one's clock, /clock under its name there, by a subscription of
            its own; else system time.
    """

    def __init__(self, first: Node, suffix: str, clocked: bool = False) -> None:
        clock = first.resolve_topic_name("/clock")
        self.node = rclpy.create_node(
            f"{first.get_name()}_{suffix}",
            namespace=first.get_namespace(),
            cli_args=["--ros-args", "-r", f"/clock:={clock}"],
            parameter_overrides=[first.get_parameter("use_sim_time")] if clocked else [],
            use_global_arguments=False,
            start_parameter_services=False,
            enable_rosout=False,
        )
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._serve, name=suffix, daemon=True)

    def start(self) -> None:
        """Begin to serve; everything has been made on `node`."""
        self._thread.start()

    def stop(self, patience: float = 2.0) -> None:
        """Serve no longer, once a callback in progress has ended; waits at most `patience` s for it."""
        self._executor.shutdown(timeout_sec=0.5)
        self._thread.join(patience)
        self.node.destroy_node()

    def _serve(self) -> None:
        _spin(self._executor, self.node)
