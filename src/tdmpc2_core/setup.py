"""Package tdmpc2_core, for colcon (ament_python) and for pip (as tdmpc2-core)."""

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

sim = ["mujoco==3.6.*"]  # the one minor line that the robot models and every supported benchmark suite accept
dmcontrol = ["dm_control==1.0.38", *sim]  # the line that goes with this MuJoCo; later ones need a newer
gymnasium = ["gymnasium>=1.1,<1.3"]  # the lines that Meta-World and MyoSuite both accept
metaworld = ["metaworld==3.0.0", *gymnasium, *sim]  # the last that leaves the line of MuJoCo open
myosuite = ["myosuite==2.12.*", *gymnasium, *sim]  # the line that goes with this MuJoCo
video = ["imageio>=2.34", "imageio-ffmpeg>=0.5", "matplotlib>=3.8"]
meshes = ["trimesh>=4.6", "pycollada>=0.8"]  # collision meshes of a URDF that MuJoCo does not read
onnx = ["onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"]
bags = [  # rosbag2 without ROS; what is not rosbags is what it needs itself
    "rosbags>=0.11",
    "lz4>=4.3",
    'backports.zstd>=1.0; python_version < "3.14"',
    "matplotlib>=3.8",
]
exchange = ["pyarrow>=17", "h5py>=3.10"]  # LeRobot, Parquet; the HDF5 layout of Minari
tensorboard = ["tensorboard>=2.15"]  # log=tensorboard
wandb = ["wandb>=0.17"]  # log=wandb
comparison = ["stable-baselines3>=2.3", *sim]  # benchmarks/against_sb3.py
docs = ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"]  # scripts/docs.sh
test = ["pytest>=7.4", "pytest-timeout>=2.2", *sim]  # colcon test runs pytest only for an extra of this name
tools = ["ruff>=0.6", "mypy>=1.10", "types-PyYAML", "types-tqdm"]
dev = [*test, *tools, *dmcontrol, *metaworld, *myosuite, *video, *meshes, *onnx, *bags, *exchange]

setup(
    **about,
    classifiers=CLASSIFIERS,
    license_files=["LICENSE"],
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=find_packages(include=[name, f"{name}.*"]),
    include_package_data=False,
    package_data={
        name: ["py.typed", "**/*.yaml", "**/*.xml", "model/*.c", "robots/models/**/*", "bundles/**/*"]
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{name}"]),
        (f"share/{name}", ["package.xml"]),
    ],
    install_requires=[
        "argcomplete>=3.1",
        # the first that reads tensordicts without tensordict; CPU or CUDA is the installer's choice
        "torch>=2.6",
        "numpy>=1.26",
        "pyyaml>=6.0",
        "safetensors>=0.4",
        "tqdm>=4.66",
    ],
    extras_require={
        "sim": sim,
        "dmcontrol": dmcontrol,
        "gymnasium": gymnasium,
        "metaworld": metaworld,
        "myosuite": myosuite,
        "video": video,
        "meshes": meshes,
        "onnx": onnx,
        "bags": bags,
        "exchange": exchange,
        "tensorboard": tensorboard,
        "wandb": wandb,
        "comparison": comparison,
        "docs": docs,
        "test": test,
        "dev": dev,
    },
    entry_points={
        "console_scripts": ["tdmpc2 = tdmpc2_core.cli:main", "tdmpc2-doctor = tdmpc2_core.doctor:main"]
    },
    zip_safe=False,
    options=outside(scratch.name),
)
