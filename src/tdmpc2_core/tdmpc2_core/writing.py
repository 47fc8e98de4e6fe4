"""Asking, before the work is done, whether its result can be written."""

from __future__ import annotations

import os
from pathlib import Path

from tdmpc2_core.errors import UserError


def check_writable(path: str | os.PathLike[str], what: str) -> None:
    """Make the folder of a file to come; an existing file is left as it is, none is left behind.

    Raises:
        UserError: `path` cannot be written; the sentence begins with `what`.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new = not target.exists()
        with target.open("a"):
            pass
        if new:
            target.unlink()
    except OSError as problem:
        reason = problem.strerror or problem
        raise UserError(
            f"{what}: {path} cannot be written ({reason}); name a file in a writable folder"
        ) from None
