"""Package tdmpc2_ros, for colcon (ament_python) and for pip into the environment of scripts/setup.sh."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup


def manifest() -> dict[str, str]:
    """Name, version and the like, from package.xml."""
    root = ElementTree.parse(Path(__file__).with_name("package.xml")).getroot()
    text = {key: (root.findtext(key) or "").strip() for key in ("name", "version", "description", "license")}
    maintainer = root.find("maintainer")
    return text | {"maintainer": maintainer.text, "maintainer_email": maintainer.get("email")}


about = manifest()
name = about["name"]
programs = {
    "mujoco_sim": "simulator.node",
    "planner": "planner.node",
    "recorder": "recorder.node",
    "finetune": "finetune.node",
    "quickstart": "quickstart.__main__",
    "doctor": "doctor.__main__",
}

setup(
    **about,
    python_requires=">=3.11",
    packages=find_packages(include=[name, f"{name}.*"]),
    include_package_data=False,
    package_data={name: ["**/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{name}"]),
        (f"share/{name}", ["package.xml"]),
    ],
    # rclpy and the message packages come with ROS 2; package.xml lists them
    install_requires=["numpy>=1.26", "pyyaml>=6.0", "rosbags>=0.10"],
    extras_require={"test": ["pytest>=7.4", "pytest-timeout>=2.2"]},
    entry_points={"console_scripts": [f"{key} = {name}.{module}:main" for key, module in programs.items()]},
    zip_safe=False,
)
