"""Errors whose text is written for the person who can mend them. Any package of the suite may raise them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn


class UserError(Exception):
    """One sentence: what was wrong, where, what would be right. Command lines print it and exit 2."""


class CommandLine(argparse.ArgumentParser):
    """Argument parser whose mistakes are a `UserError`."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{message}; --help lists the options")


class SensorError(UserError):
    """A sensor message cannot be used (a joint is missing, a value is not finite, a length is wrong).

    The sample is dropped; what was stored before it stays, and goes stale if no good one follows.
    """


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
    "imageio": "video",
    "imageio_ffmpeg": "video",
    "matplotlib": "video",
    "trimesh": "meshes",
    "collada": "meshes",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
}
"""Modules that come with an extra of tdmpc2-core, and its name."""


def missing_extra(what: str, module: str) -> UserError:
    """The sentence for `what` (a command, a task, a file) whose `module` of `EXTRAS` is not installed."""
    extra = EXTRAS[module]
    return UserError(
        f"{what}: {module} is missing; install the extra '{extra}': pip install 'tdmpc2-core[{extra}]'"
    )
