"""`ros2 run tdmpc2_ros doctor`: what this machine and the running robot lack, and what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from tdmpc2_core.doctor import Finding, command_line, core_checks, guarded, run, shown, warn
from tdmpc2_core.errors import CommandLine, UserError
from tdmpc2_core.robots import Embodiment
from tdmpc2_ros.doctor import checks

_PROGRAM = "doctor"


def _parser() -> CommandLine:
    parser = command_line(
        _PROGRAM, "Examine this machine, its ROS 2 and the running robot for the tdmpc2 suite."
    )
    parser.add_argument("--namespace", default="", help="of the robot's topics (default: none)")
    parser.add_argument(
        "--timeout", type=float, default=5.0, help="s to wait for the robot's topics (default: %(default)g)"
    )
    parser.add_argument("--offline", action="store_true", help="leave the running robot out")
    return parser


def _robot(robot: str, namespace: str, timeout: float) -> list[Finding]:
    """The running robot, in the ROS graph."""
    try:
        embodiment = Embodiment.load(robot)
    except UserError:
        return [warn("running robot", "not looked at", "name a robot that exists")]
    from tdmpc2_ros.doctor.robot import RunningRobot  # with rclpy, once it is known to load

    with RunningRobot(embodiment, namespace, timeout) as there:
        return run([there.sensors, there.commands, there.controllers, there.planner])


def _examine(given: Any) -> int:
    if not 0.0 < given.timeout <= 600.0:
        raise UserError(f"--timeout is {given.timeout:g}, must be above 0, at most 600")
    todo: list[Callable[[], Finding | list[Finding]]] = [
        *core_checks(given.robot, given.model),
        checks.distribution,
        checks.middleware,
        checks.network,
        checks.messages,
    ]
    findings = run(todo)
    broken = any(
        f.level == "fail" for f in findings if f.check in ("ros", "middleware", "network", "messages")
    )
    if broken:
        findings.append(warn("running robot", "not looked at", "mend what failed above first"))
    elif not given.offline:
        findings += run([partial(_robot, given.robot, given.namespace, given.timeout)])
    return shown(findings, given.json)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 0 nothing failed, 1 a check failed, 2 a user's mistake."""
    return guarded(_PROGRAM, lambda: _examine(_parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
