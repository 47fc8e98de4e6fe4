"""The four packages are what colcon, rosdep and pip take them for."""

import ast
import email
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from workspace_support import PACKAGES, PYTHON_PACKAGES, SOURCE, imported_modules, normalised, python_files

BUILD_TYPES = dict.fromkeys(PYTHON_PACKAGES, "ros.ament_python") | {"tdmpc2_msgs": "ros.ament_cmake"}

# import name -> key in package.xml, where they differ
ROSDEP_KEYS = {
    "argcomplete": "python3-argcomplete",
    "imageio": "python3-imageio",
    "matplotlib": "python3-matplotlib",
    "mujoco": "python3-mujoco-pip",
    "lz4": "python3-lz4",
    "numpy": "python3-numpy",
    "rosbags": "python3-rosbags-pip",
    "torch": "python3-torch",
    "tqdm": "python3-tqdm",
    "yaml": "python3-yaml",
}
WITHOUT_ROSDEP_KEY = {"h5py", "pyarrow", "backports", "compression", "dm_control", "safetensors", "viser"}


def manifest(name: str):
    """The parsed package.xml, with the warnings of catkin_pkg."""
    catkin_pkg = pytest.importorskip("catkin_pkg.package")
    warnings: list[str] = []
    return catkin_pkg.parse_package(str(SOURCE / name), warnings=warnings), warnings


@pytest.mark.parametrize("name", PACKAGES)
def test_manifest_is_valid(name):
    package, warnings = manifest(name)
    package.validate()
    assert warnings == []
    assert package.name == name
    assert package.package_format == 3
    assert package.licenses == ["Apache-2.0"]


def test_versions_are_the_same_everywhere():
    versions = {manifest(name)[0].version for name in PACKAGES}
    assert len(versions) == 1
    changelog = (SOURCE.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {versions.pop()}" in changelog


def test_colcon_takes_each_package_for_its_ros_type():
    pytest.importorskip("colcon_ros")
    command = [sys.executable, "-m", "colcon", "--log-base", "/dev/null", "list", "--base-paths", str(SOURCE)]
    listing = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = {name: kind.strip("()") for name, _, kind in (line.split() for line in listing.splitlines())}
    assert found == BUILD_TYPES


@pytest.mark.parametrize("name", PYTHON_PACKAGES)
def test_executables_go_where_ros2_run_looks(name):
    lines = (SOURCE / name / "setup.cfg").read_text(encoding="utf-8").splitlines()
    assert f"install_scripts=$base/lib/{name}" in lines
    assert f"script_dir=$base/lib/{name}" in lines
    assert (SOURCE / name / "resource" / name).is_file()


@pytest.mark.parametrize("name", PYTHON_PACKAGES)
def test_every_import_is_declared(name):
    package, _ = manifest(name)
    declared = {dependency.name for dependency in package.exec_depends}
    files = python_files(SOURCE / name / name, SOURCE / name / "launch")
    imports = set().union(*map(imported_modules, files)) - {name} - WITHOUT_ROSDEP_KEY
    missing = {module for module in imports if ROSDEP_KEYS.get(module, module) not in declared}
    assert missing == set(), f"{name}/package.xml lacks an exec_depend for {sorted(missing)}"


def test_licence_addresses_and_maintainer_are_the_same_everywhere():
    found = [manifest(name)[0] for name in PACKAGES]
    addresses = [sorted((url.type, url.url) for url in package.urls) for package in found]
    assert addresses[0] and addresses == addresses[:1] * len(found)
    people = [[(person.name, person.email) for person in package.maintainers] for package in found]
    assert people == people[:1] * len(found)
    assert not people[0][0][1].endswith(("example.org", "example.com"))
    licence = (SOURCE.parent / "LICENSE").read_bytes()
    assert all((SOURCE / name / "LICENSE").read_bytes() == licence for name in PACKAGES)
    assert all((SOURCE / name / "README.md").read_text("utf-8").startswith("# ") for name in PACKAGES)


def test_set_up_scripts_share_what_they_say_about_a_package():
    """Each has to stand alone in a source distribution; what they share is the same text."""
    kept = []
    for name in PYTHON_PACKAGES:
        tree = ast.parse((SOURCE / name / "setup.py").read_text("utf-8"))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name != "share"]
        constants = [
            node
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).isupper()
        ]
        kept.append([ast.unparse(node) for node in functions + constants])
    assert kept == kept[:1] * len(kept) and len(kept[0]) == 4


def listing(folder: Path) -> set[str]:
    """Every path below a folder that no interpreter leaves."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return {path for path in paths if "__pycache__" not in path}


@pytest.mark.parametrize("name", PYTHON_PACKAGES)
def test_a_wheel_says_what_it_is_and_leaves_nothing_in_the_tree(name, tmp_path):
    before = listing(SOURCE / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    built = subprocess.run([*pip, str(SOURCE / name)], capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    assert listing(SOURCE / name) == before
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (place,) = [each for each in names if each.endswith(".dist-info/METADATA")]
        about = email.message_from_bytes(archive.read(place))
        assert archive.read(f"{Path(place).parent}/licenses/LICENSE").startswith(
            b"\n" + b" " * 33 + b"Apache"
        )
    assert f"{name}/py.typed" in names
    assert not any(f"/{folder}/" in f"/{each}" for each in names for folder in ("test", "build"))
    assert about["License"] == "Apache-2.0" and about["Maintainer"] == "tdmpc2 maintainers"
    assert "example" not in (about["Maintainer-email"] or "")
    package, _ = manifest(name)
    assert {url.split(", ")[1] for url in about.get_all("Project-URL")} == {url.url for url in package.urls}
    classifiers = set(about.get_all("Classifier"))
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= classifiers
    assert about["Description-Content-Type"] == "text/markdown" and about.get_payload().strip().startswith(
        "# "
    )


def test_core_does_not_import_ros():
    ros = {
        "rclpy",
        "launch",
        "launch_ros",
        "ament_index_python",
        "tdmpc2_ros",
        "tdmpc2_msgs",
        "tdmpc2_bringup",
    }
    for file in python_files(SOURCE / "tdmpc2_core" / "tdmpc2_core"):
        assert imported_modules(file) & ros == set(), file


@pytest.mark.parametrize("name", ["tdmpc2_core", "tdmpc2_ros"])
def test_pip_knows_what_the_code_imports(name):
    projects = {"yaml": "pyyaml", "PIL": "pillow", "backports": "backports-zstd"}
    projects["compression"] = "backports-zstd"  # of Python 3.14
    listed = {normalised(requirement) for requirement in requires(name) or ()}
    package, _ = manifest(name)
    from_ros = {dependency.name for dependency in package.exec_depends} - set(ROSDEP_KEYS.values())
    imports = set().union(*map(imported_modules, python_files(SOURCE / name / name)))
    for module in imports - {name} - from_ros:
        project = normalised(projects.get(module, module))
        if name == "tdmpc2_ros" and project in {normalised(each) for each in requires("tdmpc2_core") or ()}:
            continue
        assert project in listed, f"{name}/setup.py lacks {project}"


def test_the_index_is_not_told_which_torch_to_take():
    line = next(each for each in requires("tdmpc2_core") or () if normalised(each) == "torch")
    assert line == "torch>=2.6"


@pytest.mark.parametrize("interface", sorted(SOURCE.glob("tdmpc2_msgs/*/*.*")), ids=lambda file: file.name)
def test_every_field_of_every_interface_is_documented(interface: Path):
    cmake = (SOURCE / "tdmpc2_msgs" / "CMakeLists.txt").read_text(encoding="utf-8")
    assert f'"{interface.parent.name}/{interface.name}"' in cmake
    undocumented = {"bool success", "uint64 seed"}  # their names and types say all
    lines = interface.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    for line in lines:
        if line.strip() and not line.startswith(("#", "---")) and line.strip() not in undocumented:
            assert "#" in line, f"{interface.name}: {line}"
