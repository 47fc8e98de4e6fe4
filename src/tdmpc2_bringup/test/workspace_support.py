"""Where things are in the repository, for the tests of packages and scripts."""

import ast
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "src"
PACKAGES = ("tdmpc2_bringup", "tdmpc2_core", "tdmpc2_msgs", "tdmpc2_ros")
PYTHON_PACKAGES = ("tdmpc2_bringup", "tdmpc2_core", "tdmpc2_ros")
INSTALL = Path(os.environ.get("VIRTUAL_ENV", ROOT / ".venv")) / "colcon" / "install"


def python_files(*folders: Path) -> list[Path]:
    """Every Python file below the folders."""
    return sorted(file for folder in folders for file in folder.rglob("*.py") if file.is_file())


def ros_programs() -> dict[str, str]:
    """Console scripts of tdmpc2_ros and their modules below it, as its setup.py has them."""
    text = (SOURCE / "tdmpc2_ros" / "setup.py").read_text(encoding="utf-8")
    (table,) = re.findall(r"^programs = (\{.*?^\})$", text, re.MULTILINE | re.DOTALL)
    return ast.literal_eval(table)


def imported_modules(file: Path) -> set[str]:
    """Top-level names of the modules that a file imports from outside the standard library."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"_typeshed"}  # types alone, never there at run time


def normalised(requirement: str) -> str:
    """Project name of a requirement line, in the form that package indices compare."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[=<>~!;#]", requirement.strip(), maxsplit=1)[0]).lower()
