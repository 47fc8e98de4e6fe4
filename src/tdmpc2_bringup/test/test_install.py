"""What colcon build leaves behind: the layout that ros2 run, ros2 launch and the ament index expect."""

import os
import sys
from configparser import ConfigParser
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from workspace_support import INSTALL, PACKAGES, PYTHON_PACKAGES, SOURCE

MESSAGES_BUILT = (INSTALL / "tdmpc2_msgs" / "share").is_dir()

pytestmark = pytest.mark.skipif(
    not (INSTALL / "tdmpc2_core").is_dir(), reason="not built: run scripts/test.sh build"
)


def prefix(name: str) -> Path:
    """Install prefix of a package."""
    if name == "tdmpc2_msgs" and not MESSAGES_BUILT:
        pytest.skip("tdmpc2_msgs is not built: no C++ compiler")
    return INSTALL / name


def modules(name: str) -> Path:
    """Where the package's Python modules are installed."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return prefix(name) / "lib" / version / "site-packages" / name


@pytest.mark.parametrize("name", PACKAGES)
def test_package_is_in_the_ament_index(name):
    assert (prefix(name) / "share/ament_index/resource_index/packages" / name).is_file()
    installed = prefix(name) / "share" / name / "package.xml"
    assert installed.read_bytes() == (SOURCE / name / "package.xml").read_bytes()


@pytest.mark.parametrize("name", PYTHON_PACKAGES)
def test_executables_run_with_the_interpreter_of_the_build(name):
    scripts = {
        each.name for each in entry_points(group="console_scripts") if each.value.startswith(f"{name}.")
    }
    folder = prefix(name) / "lib" / name
    assert {file.name for file in folder.glob("*")} == scripts
    for file in folder.glob("*"):
        assert os.access(file, os.X_OK)
        first_line = file.read_text(encoding="utf-8").splitlines()[0]
        assert Path(first_line.removeprefix("#!")).resolve() == Path(sys.executable).resolve()


@pytest.mark.parametrize("name", ["tdmpc2_core", "tdmpc2_ros"])
def test_entry_points_name_modules_that_exist(name):
    metadata = next((prefix(name) / "lib").glob(f"python3*/site-packages/{name}-*/entry_points.txt"))
    parser = ConfigParser()
    parser.read(metadata)
    for target in parser["console_scripts"].values():
        module, function = target.split(":")
        source = SOURCE / name / (module.replace(".", "/") + ".py")
        assert f"def {function}(" in source.read_text(encoding="utf-8"), target


def test_robots_and_bundles_are_installed_with_the_core():
    source = SOURCE / "tdmpc2_core" / "tdmpc2_core"
    for folder in ("robots/models", "bundles"):
        for file in (source / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                installed = modules("tdmpc2_core") / file.relative_to(source)
                assert installed.is_file(), f"{file} is not installed: see package_data in setup.py"


@pytest.mark.parametrize("folder", ["launch", "config", "rviz", "urdf", "worlds"])
def test_bringup_installs_every_file_of_its_folders(folder):
    source = SOURCE / "tdmpc2_bringup"
    files = [file for file in (source / folder).rglob("*") if file.is_file() and file.suffix != ".pyc"]
    for file in files:
        assert (prefix("tdmpc2_bringup") / "share/tdmpc2_bringup" / file.relative_to(source)).is_file(), file


def test_interfaces_are_installed_and_import():
    share = prefix("tdmpc2_msgs") / "share" / "tdmpc2_msgs"
    for file in SOURCE.glob("tdmpc2_msgs/*/*.*"):
        assert (share / file.parent.name / file.name).is_file()
    from tdmpc2_msgs.action import FineTune
    from tdmpc2_msgs.msg import LatentState, PlanChunk, PlannerStatus, TrustState
    from tdmpc2_msgs.srv import LoadModel, SetTask

    for interface in (FineTune.Goal, LatentState, PlanChunk, PlannerStatus, TrustState):
        assert interface()
    assert LoadModel.Request() and SetTask.Request()
