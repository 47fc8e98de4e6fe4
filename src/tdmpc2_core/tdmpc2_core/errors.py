"""Errors whose text is written for the person who can mend them. Any package of the suite may raise them."""

from __future__ import annotations

import argparse
import difflib
import errno
import math
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn


class UserError(Exception):
    """One sentence: what was wrong, where, what would be right. Command lines print it and exit 2."""


class CommandLine(argparse.ArgumentParser):
    """Argument parser whose mistakes are a `UserError`."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError, with the closest of what would be accepted."""
        word, accepted = self._strange(message)
        near = difflib.get_close_matches(word, accepted, n=1) if word else []
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(f"{message}{hint}; --help lists the options")

    def _strange(self, message: str) -> tuple[str, list[str]]:
        """The word that argparse complains of, and the words that it would take there."""
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice:
            return choice.group(1), [word.strip("' ") for word in choice.group(2).split(",")]
        unknown = re.search(r"unrecognized arguments: (--[^\s=]*)", message)
        return (unknown.group(1), list(self._option_string_actions)) if unknown else ("", [])


RAW = argparse.RawDescriptionHelpFormatter


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
    example: str,
    **more: Any,
) -> argparse.ArgumentParser:
    """The parser of a sub-command that calls `run`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, epilog=f"example: {example}", formatter_class=RAW, **more
    )
    parser.set_defaults(run=run)
    return parser


def natural(text: str) -> int:
    """A whole number from 1 on, as the type of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")
    return int(text)


def positive(text: str) -> float:
    """A finite number above 0, as the type of an argument."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_FORBIDDEN = (errno.EACCES, errno.EPERM)


def explained(problem: BaseException, what: str) -> str | None:
    """One sentence for a user: of a mistake, a disk that refuses, an extra that `what` needs; else None."""
    if isinstance(problem, UserError):
        return str(problem)
    if isinstance(problem, OSError) and problem.errno in (*_DISK, *_FORBIDDEN):
        where = f"{problem.filename}: " if problem.filename else ""
        if problem.errno in _FORBIDDEN:
            return f"{where}this user may not do that ({problem.strerror}); use another folder"
        return f"{where}the disk refuses ({problem.strerror}); free some space or use another folder"
    if isinstance(problem, ModuleNotFoundError):
        module = (problem.name or "").partition(".")[0]
        if module in EXTRAS:
            return str(missing_extra(what, module))
    return None


def sentence(problem: BaseException) -> str:
    """One line about an error of any kind: what `explained` says, or its type and text."""
    if isinstance(problem, MemoryError) or "can't allocate memory" in str(problem):
        return "memory does not suffice; allow the process more, or take a smaller model or fewer samples"
    known = explained(problem, "")
    text = known or f"{type(problem).__name__}: {problem}"
    return " ".join(text.split())


def exit_code(program: str, run: Callable[[], int | None], command: str = "") -> int:
    """What `run` returns, 0 for None; 2 after a sentence about what `explained` knows, 130 on Ctrl-C.

    command: of the program, which may lack an extra.
    """
    try:
        return run() or 0
    except KeyboardInterrupt as stop:
        with suppress(BrokenPipeError):
            print(f"{program}: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130
    except Exception as problem:
        sentence = explained(problem, command or program)
        if sentence is None:
            raise
        print(f"{program}: {sentence}", file=sys.stderr)
        return 2


class SensorError(UserError):
    """A sensor message cannot be used (a joint is missing, a value is not finite, a length is wrong).

    The sample is dropped; what was stored before it stays, and goes stale if no good one follows.
    """


class FrozenSource(SensorError):
    """A source repeats its values under fresh stamps: what it said last is as old as its last change."""


class StaleSource(SensorError):
    """An observation cannot be made because a source was never received or is too old.

    `sources` holds one text per source, such as ``"imu: never received"``.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self.sources = tuple(sources)
        super().__init__("no observation: " + "; ".join(self.sources))


EXTRAS = {
    "mujoco": "sim",
    "dm_control": "dmcontrol",
    "gymnasium": "gymnasium",
    "metaworld": "metaworld",
    "myosuite": "myosuite",
    "imageio": "video",
    "imageio_ffmpeg": "video",
    "matplotlib": "video",
    "trimesh": "meshes",
    "collada": "meshes",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "pyarrow": "exchange",
    "h5py": "exchange",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "rosbags": "bags",
    "lz4": "bags",
    "backports": "bags",
}
"""Modules that come with an extra of tdmpc2-core, and its name."""


def missing_extra(what: str, module: str) -> UserError:
    """The sentence for `what` (a command, a task, a file) whose `module` of `EXTRAS` is not installed."""
    extra = EXTRAS[module]
    return UserError(
        f"{what}: {module} is missing; install the extra '{extra}': pip install 'tdmpc2-core[{extra}]'"
    )
