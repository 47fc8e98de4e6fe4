"""``tdmpc2-doctor``: the checks that need no ROS."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tdmpc2_core.doctor import checks
from tdmpc2_core.doctor.finding import Finding
from tdmpc2_core.doctor.report import Parser, guarded, run, shown


def core_checks(robot: str, model: str | None) -> list[Callable[[], Finding | list[Finding]]]:
    """All of them, for a robot and a bundle (None: the shipped one)."""
    return [
        checks.python,
        partial(checks.library, "numpy"),
        partial(checks.library, "torch"),
        partial(checks.library, "safetensors"),
        partial(checks.library, "mujoco", needed=False),
        checks.threads,
        checks.real_time_limits,
        checks.gpu,
        partial(checks.output_folder, Path.cwd()),
        partial(checks.bundle, robot, model),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 nothing failed, 1 a check failed, 2 a user's mistake."""

    def body() -> int:
        parser = Parser("tdmpc2-doctor", "Examine this machine for the tdmpc2 suite; without ROS.")
        given = parser.parse_args(arguments)
        return shown(run(core_checks(given.robot, given.model)), given.json)

    return guarded("tdmpc2-doctor", body)


if __name__ == "__main__":
    sys.exit(main())
