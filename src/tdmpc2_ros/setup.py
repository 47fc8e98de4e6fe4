"""Package tdmpc2_ros, for colcon (ament_python) and for pip into the environment of scripts/setup.sh."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

from setuptools import find_packages, setup

LABELS = {
    "website": "Homepage",
    "repository": "Source",
    "bugtracker": "Issues",
}  # types of <url> in package.xml
CLASSIFIERS = [
    "Development Status :: 3 - Alpha",
    "Intended Audience :: Developers",
    "Intended Audience :: Science/Research",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: Python :: 3",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Typing :: Typed",
]


def manifest() -> dict[str, Any]:
    """Name, version, licence, maintainer and addresses, from package.xml."""
    root = ElementTree.parse(Path(__file__).with_name("package.xml")).getroot()
    text = {key: (root.findtext(key) or "").strip() for key in ("name", "version", "description", "license")}
    maintainer = root.find("maintainer")
    mail = maintainer.get("email")
    # package.xml must have an address; one that reaches nobody stays out of the wheel
    address = {} if mail.endswith(".invalid") else {"maintainer_email": mail}
    urls = {LABELS[url.get("type")]: url.text for url in root.iter("url")}
    return text | {"maintainer": maintainer.text, "project_urls": urls} | address


def outside(folder: str) -> dict[str, dict[str, str]]:
    """Options that make setuptools write to a folder instead of the source tree; colcon names its own."""
    return {"build": {"build_base": folder}, "egg_info": {"egg_base": folder}}


about = manifest()
name = about["name"]
scratch = TemporaryDirectory()  # gone when this process ends
programs = {
    "mujoco_sim": "simulator.node",
    "planner": "planner.node",
    "supervisor": "supervisor.node",
    "recorder": "recorder.node",
    "finetune": "finetune.node",
    "quickstart": "quickstart.__main__",
    "doctor": "doctor.__main__",
    "teleop": "teleop.__main__",
    "view": "view.__main__",
    "markers": "view.markers",
    "fault": "fault.__main__",
}

setup(
    **about,
    classifiers=CLASSIFIERS,
    license_files=["LICENSE"],
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=find_packages(include=[name, f"{name}.*"]),
    include_package_data=False,
    package_data={name: ["py.typed", "**/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{name}"]),
        (f"share/{name}", ["package.xml"]),
    ],
    # rclpy and the message packages come with ROS 2; package.xml lists them
    install_requires=["numpy>=1.26", "pyyaml>=6.0", "rosbags>=0.10"],
    extras_require={"test": ["pytest>=7.4", "pytest-timeout>=2.2"], "view": ["viser>=1.1"]},
    entry_points={"console_scripts": [f"{key} = {name}.{module}:main" for key, module in programs.items()]},
    zip_safe=False,
    options=outside(scratch.name),
)
