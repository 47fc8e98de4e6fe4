"""Running checks and telling what they found; what the doctors with and without ROS share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from tdmpc2_core.doctor.finding import Finding, fail
from tdmpc2_core.errors import UserError

_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


class Parser(argparse.ArgumentParser):
    """Command line whose mistakes are a `UserError`. Has --robot, --model and --json."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog="Exit code: 0 nothing failed (warnings may remain), 1 a check failed, 2 a mistake.",
        )
        self.add_argument(
            "--robot", default="quadruped", help="shipped name or embodiment folder (default: %(default)s)"
        )
        self.add_argument("--model", help="checkpoint bundle (default: the one shipped for the robot)")
        self.add_argument("--json", action="store_true", help="print a JSON list instead of lines")

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{message}; --help lists the options")


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
