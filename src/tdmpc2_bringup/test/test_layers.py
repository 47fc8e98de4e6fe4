"""The floors of the house: which room may import which, where torch may be, that functions fit a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from workspace_support import ROOT, SOURCE, python_files

CORE = SOURCE / "tdmpc2_core" / "tdmpc2_core"
LONGEST_FUNCTION = 60  # lines: a screen
FLOORS = (
    ("cli", "doctor"),
    ("cli_data", "cli_fault"),
    ("replay",),
    ("train",),
    ("control", "calibration"),
    ("scoring",),
    ("agent",),
    ("checkpoint", "export"),
    ("planning",),
    ("teachers",),
    ("imagine",),
    ("learning",),
    ("descriptions", "identification"),
    ("envs",),
    ("model",),
    ("data",),
    ("robots",),
    ("config", "files"),
    ("errors",),
)
"""Rooms of tdmpc2_core from the top; each may import those below it and itself, none beside it."""
TORCH = {
    "replay",
    "train",
    "scoring",
    "agent",
    "calibration",
    "checkpoint",
    "export",
    "planning",
    "imagine",
    "learning",
    "model",
}
"""Rooms whose modules may import torch when they are imported; `control` loads it with the model alone."""
HEIGHT = {room: len(FLOORS) - floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every module that is imported anywhere, names of `from` imports included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def violations(file: Path, core: Path) -> list[str]:
    """What a file imports from a floor that is not below its own, each as a sentence."""
    room = file.relative_to(core).parts[0].removesuffix(".py")
    found = []
    for line, name in imports(ast.parse(file.read_text("utf-8"))):
        parts = name.split(".")
        if parts[0] != core.name or len(parts) < 2 or parts[1] == room or parts[1].startswith("__"):
            continue
        if parts[1] not in HEIGHT:
            found.append(f"{file.name}:{line}: {parts[1]!r} is on no floor; name its floor in FLOORS")
        elif HEIGHT[parts[1]] >= HEIGHT[room]:
            where = "beside" if HEIGHT[parts[1]] == HEIGHT[room] else "above"
            found.append(
                f"{file.name}:{line}: {room} imports {parts[1]}, which lies {where} it; what needs both "
                f"belongs to {parts[1]} or higher, what both need belongs below {room}"
            )
    return found


@pytest.mark.parametrize("room", sorted(HEIGHT))
def test_a_room_imports_only_what_lies_below(room):
    files = python_files(CORE / room) or [CORE / f"{room}.py"]
    assert [sentence for file in files for sentence in violations(file, CORE)] == []


def test_every_module_of_core_is_on_a_floor():
    rooms = {file.relative_to(CORE).parts[0].removesuffix(".py") for file in python_files(CORE)} - {
        "__init__"
    }
    assert rooms == set(HEIGHT)


@pytest.mark.parametrize(
    ("place", "text", "words"),
    [
        (
            "robots/safety.py",
            "from tdmpc2_core.envs import registry\n",
            "robots imports envs, which lies above it",
        ),
        ("model/layers.py", "def late():\n    import tdmpc2_core.agent\n", "model imports agent"),
        ("cli.py", "from tdmpc2_core import doctor\n", "which lies beside it"),
        ("data/episodes.py", "from tdmpc2_core.attic import junk\n", "'attic' is on no floor"),
    ],
)
def test_a_planted_upward_import_is_found(place, text, words, tmp_path):
    file = tmp_path / "tdmpc2_core" / place
    file.parent.mkdir(parents=True)
    file.write_text(text)
    (sentence,) = violations(file, tmp_path / "tdmpc2_core")
    assert words in sentence


def test_torch_is_imported_only_where_models_are():
    for file in python_files(CORE):
        if file.relative_to(CORE).parts[0].removesuffix(".py") in TORCH:
            continue
        tree = ast.parse(file.read_text("utf-8"))
        at_import = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {name.split(".")[0] for node in at_import for _, name in imports(ast.Module([node], []))}
        assert "torch" not in names, f"{file.relative_to(CORE)} imports torch when it is imported"


def test_packages_export_and_do_nothing_else():
    for file in python_files(SOURCE):
        if file.name == "__init__.py":
            for node in ast.parse(file.read_text("utf-8")).body:
                allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr)
                if file.parent == CORE:  # exports that are imported when they are used
                    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                        continue
                    if isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__"):
                        continue
                assert isinstance(node, allowed), f"{file.relative_to(ROOT)}:{node.lineno}"


def test_functions_fit_a_screen():
    long = {
        f"{file.relative_to(ROOT)}:{node.name}": length
        for file in python_files(SOURCE, ROOT / "scripts", ROOT / "benchmarks")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    }
    assert long == {}
