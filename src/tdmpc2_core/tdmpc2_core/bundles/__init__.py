"""The trained bundles that come with the suite, one folder per robot. Imports neither torch nor MuJoCo."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from tdmpc2_core.errors import UserError


def shipped_bundle(robot: str) -> Path:
    """Folder of the trained bundle for ``robot``.

    Raises:
        UserError: none comes with the suite.
    """
    folder = Path(str(files("tdmpc2_core.bundles"))) / robot
    if not (folder / "bundle.json").is_file():
        raise UserError(f"{robot}: no trained bundle comes with the suite; train one with `tdmpc2 train`")
    return folder
