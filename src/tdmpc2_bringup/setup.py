"""Package tdmpc2_bringup, for colcon (ament_python)."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup


def manifest() -> dict[str, str]:
    """Name, version and the like, from package.xml."""
    root = ElementTree.parse(Path(__file__).with_name("package.xml")).getroot()
    text = {key: (root.findtext(key) or "").strip() for key in ("name", "version", "description", "license")}
    maintainer = root.find("maintainer")
    return text | {"maintainer": maintainer.text, "maintainer_email": maintainer.get("email")}


def share(name: str, *folders: str) -> list[tuple[str, list[str]]]:
    """data_files entries that install every file below the folders under share/<name>, in the same place."""
    files = [file for folder in folders for file in sorted(Path(folder).rglob("*")) if file.is_file()]
    wanted = [file for file in files if "__pycache__" not in file.parts]
    return [(f"share/{name}/{file.parent.as_posix()}", [file.as_posix()]) for file in wanted]


about = manifest()
name = about["name"]

setup(
    **about,
    python_requires=">=3.11",
    packages=find_packages(include=[name, f"{name}.*"]),
    include_package_data=False,
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{name}"]),
        (f"share/{name}", ["package.xml"]),
        *share(name, "launch", "config", "rviz", "urdf", "worlds"),
    ],
    extras_require={"test": ["pytest>=7.4", "pyyaml>=6.0"]},
    zip_safe=False,
)
