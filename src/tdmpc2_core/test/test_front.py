"""What a user of the package meets first: exported names, missing extras, completion of the shell."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tdmpc2_core
from tdmpc2_core.config import field_names
from tdmpc2_core.errors import EXTRAS
from tdmpc2_core.files import shipped_bundle

ROOT = Path(__file__).resolve().parents[3]
WITHOUT = """
import json, sys
from importlib.abc import MetaPathFinder
class Missing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from tdmpc2_core.cli import main
print(json.dumps([main(words) for words in json.loads(sys.argv[2])]))
"""


def python(*words: str, folder: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the interpreter of the tests."""
    environment = {**os.environ, **more}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=150, env=environment, cwd=folder
    )


def test_importing_the_package_loads_no_library():
    script = "import sys, tdmpc2_core; print([m for m in ('torch', 'numpy', 'mujoco') if m in sys.modules])"
    assert python("-c", script).stdout == "[]\n"


def test_the_exported_names_are_the_same_in_all_three_places():
    tree = ast.parse(Path(tdmpc2_core.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        node.module.removeprefix("tdmpc2_core."): tuple(alias.name for alias in node.names)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    order = {module: tuple(sorted(names)) for module, names in tdmpc2_core._HOMES.items()}
    assert {module: tuple(sorted(names)) for module, names in typed.items()} == order
    assert tdmpc2_core.__all__ == sorted(name for names in order.values() for name in names)


def test_every_exported_name_is_there_and_others_are_not():
    for module, names in tdmpc2_core._HOMES.items():
        for name in names:
            value = getattr(tdmpc2_core, name)
            assert value.__module__ == f"tdmpc2_core.{module}" and value.__name__ == name
    assert set(tdmpc2_core.__all__) < set(dir(tdmpc2_core))
    with pytest.raises(AttributeError, match=r"'tdmpc2_core' has no attribute 'Agnet'"):
        tdmpc2_core.Agnet  # noqa: B018


def test_the_example_of_the_api_page_runs(tmp_path):
    page = (ROOT / "docs/reference/python-api.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(example.strip().splitlines()) <= 20
    result = python("-c", example, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "runs/example/mine/weights.safetensors").is_file()
    assert re.search(r"return over 1 s: -?\d", result.stdout), result.stdout


def test_commands_without_mujoco_name_the_extra_or_do_without(tmp_path):
    bundle = str(shipped_bundle("quadruped"))
    simulate = [
        ["train", "out=run"],
        ["train", "--help"],
        ["expert", "out=run"],
        ["student", "out=run"],
        ["eval", bundle],
        ["import-urdf", "robot.urdf", "robot"],
    ]
    official = ["export", str(shipped_bundle("cup-catch")), "--format", "official", "--out", "made.pt"]
    calls = [*simulate, ["info", bundle], official]
    result = python("-c", WITHOUT, "mujoco", json.dumps(calls), folder=tmp_path)
    codes = json.loads(result.stdout.splitlines()[-1])
    assert codes == [2] * len(simulate) + [0, 0], result.stderr
    assert result.stderr.splitlines() == [
        f"tdmpc2: {words[0]}: mujoco is missing; install the extra 'sim': pip install 'tdmpc2-core[sim]'"
        for words in simulate
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["made.pt"]


def test_the_extras_bring_what_the_sentences_say():
    setup = ast.parse((ROOT / "src/tdmpc2_core/setup.py").read_text(encoding="utf-8"))
    projects = {"collada": "pycollada", "backports": "backports.zstd", "imageio_ffmpeg": "imageio-ffmpeg"}
    lists = {
        node.targets[0].id: ast.unparse(node.value)
        for node in setup.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
    }
    for module, extra in EXTRAS.items():
        assert re.search(rf"'{projects.get(module, module)}[<>=]", lists[extra]), (module, extra)


def completions(line: str) -> list[str]:
    """What bash would be offered at the end of a line."""
    found = python(
        "-c",
        "import os, sys; os.dup2(1, 8); from tdmpc2_core.cli import main; main([])",
        _ARGCOMPLETE="1",
        _ARGCOMPLETE_SHELL="bash",
        _ARGCOMPLETE_SUPPRESS_SPACE="1",
        _ARGCOMPLETE_IFS="\n",
        COMP_LINE=line,
        COMP_POINT=str(len(line)),
        COMP_TYPE="9",
        _ARGCOMPLETE_COMP_WORDBREAKS=" \t\n\"'><=;|&(:",
        ARGCOMPLETE_USE_TEMPFILES="",
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


def test_the_shell_completes_commands_options_and_settings():
    from tdmpc2_core.train.train_config import TrainConfig

    assert set(completions("tdmpc2 e")) == {"expert", "eval", "export"}
    assert completions("tdmpc2 export --format o") == ["official", "onnx"]
    assert set(completions("tdmpc2 train learner.")) == {
        f"{name}=" for name in field_names(TrainConfig()) if name.startswith("learner.")
    }
