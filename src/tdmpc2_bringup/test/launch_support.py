"""Running launch files with the launch package: an ament prefix of this source tree and of stand-ins."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from workspace_support import SOURCE, ros_programs

LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [tuple(text.split(":=", 1)) for text in sys.argv[2:]]
source = PythonLaunchDescriptionSource(sys.argv[1])
service = LaunchService()
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)])
)
sys.exit(service.run())
"""
"""What ros2 launch does, without ros2cli."""
NODES = {name: f"tdmpc2_ros.{module}" for name, module in ros_programs().items()}
CONTROL = {
    "controller_manager": ("ros2_control_node", "spawner"),
    "robot_state_publisher": ("robot_state_publisher",),
}


def make_prefix(folder: Path, stand_ins: bool) -> Path:
    """An ament prefix with nodes and share folder of this suite, and with stand-ins for ros2_control."""
    index = folder / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    (index / "tdmpc2_bringup").touch()
    (folder / "share/tdmpc2_bringup").symlink_to(SOURCE / "tdmpc2_bringup")
    _programs(folder, index, "tdmpc2_ros", {name: ["-m", module] for name, module in NODES.items()})
    plugins = folder / "share/ament_index/resource_index/hardware_interface__pluginlib__plugin"
    plugins.mkdir()
    (plugins / "mock_hardware").write_text("share/mock_hardware.xml\n")
    (folder / "share/mock_hardware.xml").write_text(
        '<library path="mock"><class name="mock_components/GenericSystem" type="mock::System"/></library>\n'
    )
    script = str(Path(__file__).with_name("stand_in_control.py"))
    for package, names in CONTROL.items() if stand_ins else ():
        _programs(folder, index, package, {name: [script, name] for name in names})
    return folder


def _programs(folder: Path, index: Path, package: str, commands: dict[str, list[str]]) -> None:
    (index / package).touch()
    place = folder / "lib" / package
    place.mkdir(parents=True)
    for name, command in commands.items():
        file = place / name
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" {" ".join(command)} "$@"\n')
        file.chmod(0o755)


def processes_of(domain: int) -> dict[int, str]:
    """Ids and command lines of what runs in a ROS domain, this process left out."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"ROS_DOMAIN_ID={domain}".encode() in variables and command:
            found[int(entry.name)] = command
    return found
