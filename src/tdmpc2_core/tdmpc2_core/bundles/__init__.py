"""The trained bundles that come with the suite, one folder per robot or task; no torch, no MuJoCo."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from tdmpc2_core.errors import UserError


def shipped_bundle(name: str) -> Path:
    """Folder of the trained bundle for a robot or a benchmark task.

    Raises:
        UserError: none comes with the suite.
    """
    folder = Path(str(files("tdmpc2_core.bundles"))) / name
    if not (folder / "bundle.json").is_file():
        raise UserError(f"{name}: no trained bundle comes with the suite; train one with `tdmpc2 train`")
    return folder
