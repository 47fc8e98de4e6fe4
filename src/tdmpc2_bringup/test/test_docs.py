"""The documentation against the repository: links, paths, parameters, figures."""

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tdmpc2_core
from tdmpc2_core.cli import COMMANDS
from tdmpc2_core.learning import LearnerConfig
from tdmpc2_core.robots import SOURCES, TERMS
from tdmpc2_core.robots.rewards import REWARD_TERMS
from tdmpc2_core.train.online import OnlineTrainer
from tdmpc2_core.train.run import TrainingRun
from tdmpc2_core.train.train_config import TrainConfig
from tdmpc2_ros.fault.__main__ import RelayParameters
from tdmpc2_ros.messages import SOURCE_TOPICS
from tdmpc2_ros.planner.model import PlannerParameters
from tdmpc2_ros.recorder.node import RecorderParameters
from tdmpc2_ros.simulator.node import SimulationParameters
from tdmpc2_ros.supervisor.node import SupervisorParameters
from tdmpc2_ros.teleop.__main__ import TeleopParameters
from tdmpc2_ros.view.__main__ import ViewParameters
from tdmpc2_ros.view.markers import MarkersParameters

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
INTERFACE = (ROOT / "docs/reference/ros-interface.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"link to {target}"
    for path in re.findall(r"`((?:src|docs|scripts|benchmarks|docker)/[^`\s*<>]*)", text):
        assert (ROOT / path).exists(), f"path {path}"


def test_the_site_builds_without_a_warning_and_can_be_searched(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert built.returncode == 0, built.stdout + built.stderr
    index = json.loads((tmp_path / "search/search_index.json").read_text("utf-8"))
    found = {entry["location"] for entry in index["docs"]}
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.relative_to(ROOT / "docs").with_suffix(".html").as_posix() in found
    for name in tdmpc2_core.__all__:
        entry = f"reference/python-api.html#tdmpc2_core.{name}"
        assert entry in found, f"{name} is not on docs/reference/python-api.md"
    planners = (tmp_path / "reference/planners.html").read_text("utf-8")
    pictures = re.findall(r'<img [^>]*src="([^":]+\.png)"', planners)
    assert pictures and all((tmp_path / "reference" / source).is_file() for source in pictures)


PLACES = (
    ROOT,
    ROOT / "src/tdmpc2_core/tdmpc2_core",
    ROOT / "src/tdmpc2_core/test",
    ROOT / "src/tdmpc2_ros/tdmpc2_ros",
    ROOT / "src/tdmpc2_bringup",
    ROOT / "src/tdmpc2_bringup/tdmpc2_bringup",
)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_files_and_commands_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`([\w.-]+(?:/[\w.-]+)*\.(?:py|c|sh))`", text):
        if name.endswith(".launch.py"):  # also of other packages
            continue
        found = any((place / name).exists() for place in PLACES)
        assert found or "/" not in name and list((ROOT / "src").rglob(name)), f"file {name}"
    for command in re.findall(r"(?<![\w./-])tdmpc2 ([a-z][a-z-]+)", text):
        assert command in COMMANDS, f"tdmpc2 {command}"
    for program in re.findall(r"ros2 run tdmpc2_ros (\w+)", text):
        assert f'"{program}":' in (ROOT / "src/tdmpc2_ros/setup.py").read_text("utf-8"), program
    for module in re.findall(r"python3? -m (tdmpc2\w+(?:\.\w+)*)", text):
        assert importlib.util.find_spec(module) is not None, module


def test_the_walk_to_a_weight_change_names_the_files_that_run(tmp_path):
    core = ROOT / "src/tdmpc2_core/tdmpc2_core"
    learner = LearnerConfig(batch_size=8)
    settings = {"steps": 120, "num_envs": 2, "random_steps": 100, "pretrain_updates": 0}
    config = TrainConfig(
        robot="quadruped", out=tmp_path / "run", demonstration_steps=0, learner=learner, **settings
    )
    trainer, seen = OnlineTrainer(TrainingRun(config)), set()
    sys.setprofile(lambda frame, event, _: seen.add(frame.f_code.co_filename))
    try:
        trainer.train()
    finally:
        sys.setprofile(None)
    assert trainer.run.progress.updates >= 100
    run = {str(Path(name).relative_to(core)) for name in seen if name.startswith(str(core))}
    elsewhere = ("planning/", "imagine/", "checkpoint/", "config.py", "files.py")
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    walk = page.partition("## From one transition")[2].partition("\n\n")[0]
    assert {name for name in run if not name.startswith(elsewhere)} == set(
        re.findall(r"`([\w/]+\.py)`", walk)
    )


def test_code_names_no_file_that_is_gone():
    """Comments and docstrings that send a reader to a file send them to one that is there."""
    for file in (ROOT / "src").rglob("*.py"):
        if "/test/" in str(file) or "/build/" in str(file):
            continue
        for name in re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.(?:py|c))`", file.read_text("utf-8")):
            near = (file.parent / name, *(place / name for place in PLACES))
            assert any(path.exists() for path in near), f"{file.relative_to(ROOT)} names {name}"


def section(node: str) -> str:
    return INTERFACE.split(f"## Node `{node}`")[1].split("\n## ")[0]


@pytest.mark.parametrize(
    ("node", "settings"),
    [
        ("planner", PlannerParameters),
        ("mujoco_sim", SimulationParameters),
        ("recorder", RecorderParameters),
        ("supervisor", SupervisorParameters),
        ("teleop", TeleopParameters),
        ("view", ViewParameters),
        ("markers", MarkersParameters),
        ("fault", RelayParameters),
    ],
)
def test_parameters_are_those_of_the_code(node, settings):
    table = section(node).split("| parameter |")[1]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == [
        field.name for field in dataclasses.fields(settings)
    ]


@pytest.mark.parametrize("node", ["planner", "mujoco_sim", "supervisor"])
def test_topics_and_services_are_those_of_the_code(node):
    package = ROOT / "src/tdmpc2_ros/tdmpc2_ros"
    room = {"planner": "planner", "mujoco_sim": "simulator", "supervisor": "supervisor"}[node]
    files = [*(package / room).glob("*.py"), *(package / "robot_io").glob("*.py"), package / "messages.py"]
    code = "".join(file.read_text(encoding="utf-8") for file in files)
    table = section(node).split("| topic |")[1].split("| parameter |")[0]
    documented = re.findall(r"^\| `([^`]+)` \|", table, re.M) + re.findall(r"`(~/\w+)`[,.]", table)
    assert documented
    for name in documented:
        assert f'"{name}"' in code, f"{name} is not in the code of {node}"
    for name in re.findall(r'"(~/\w+)"', code):
        assert name in documented, f"{name} is not documented"


def test_every_measured_table_is_there_with_its_script():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tables = re.findall(r"<!-- begin (\w+) -->\n(.*?)<!-- end \1 -->", text, re.S)
    assert len(tables) == text.count("<!-- begin ") >= 5
    for name, body in tables:
        assert body.count("\n|") >= 3, f"the table {name} is empty"
        scripts = re.findall(r"python (benchmarks/\w+\.py)", body)
        assert scripts and all((ROOT / script).exists() for script in scripts)
        assert (ROOT / "benchmarks/results" / f"{name}.json").exists()


def test_sources_and_terms_are_those_of_the_code():
    text = (ROOT / "docs/how-to/add-a-robot.md").read_text(encoding="utf-8")
    tables = text.split("## Sensors and observation terms")[1].split("A term of a known source")[0]
    rows = {line for line in tables.splitlines() if line.startswith("| `")}
    assert rows == {*source_rows(), *term_rows()}
    rewards = text.split("## Reward terms")[1].split("\n## ")[0]
    assert {line for line in rewards.splitlines() if line.startswith("| `")} == {*reward_rows()}


def reward_rows() -> list[str]:
    return [
        f"| `{name}` | {', '.join(f'`{key}`' for key in row.params)} | {', '.join(row.sources)} "
        f"| {row.summary} |"
        for name, row in REWARD_TERMS.items()
    ]


def source_rows() -> list[str]:
    rows = []
    for source in SOURCES.values():
        sizes = [f if isinstance(f, str) else len(f) for f in (field.entries for field in source.fields)]
        fields = [
            f"`{field.name}` ({size}){f' {field.unit}' if field.unit else ''}"
            for field, size in zip(source.fields, sizes, strict=True)
        ]
        topics = [f"`{topic}`" for topic, row in SOURCE_TOPICS.items() if row.source == source.name]
        section = f"`{source.section}`" if source.section else ""
        rows.append(f"| `{source.name}` | {section} | {'; '.join(fields)} | {', '.join(topics)} |")
    return rows


def term_rows() -> list[str]:
    return [
        f"| `{term.name}` | {term.source} | {term.size} | {term.unit} | {term.frame} | {term.what} |"
        for term in TERMS.values()
    ]
