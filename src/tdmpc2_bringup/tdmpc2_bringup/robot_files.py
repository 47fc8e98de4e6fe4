"""The files of one robot that a launch needs: those shipped, those made from the embodiment, those given."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

from tdmpc2_bringup.controllers import COMMAND_CONTROLLERS, controllers_text
from tdmpc2_bringup.description import (
    SHARED,
    Backend,
    hardware_parameters,
    maker_links,
    robot_description,
    xacro_text,
)
from tdmpc2_bringup.recording import qos_text
from tdmpc2_bringup.settings import Settings
from tdmpc2_core.errors import UserError
from tdmpc2_core.files import write_text
from tdmpc2_core.robots import Embodiment, shipped_names


class RobotFiles:
    """`robot` is a shipped name or a folder with embodiment.yaml; `share` the package's share folder.

    Files that are made go to `made`, by default ~/.ros/tdmpc2, and are replaced by the next launch of that
    robot with the same prefix.

    Raises:
        UserError: the robot or a given file is missing or damaged.
    """

    def __init__(self, robot: str, settings: Settings, share: Path, made: Path | None = None) -> None:
        self.robot, self.settings, self.share = robot, settings, share
        self.embodiment = Embodiment.load(robot)
        self.made = made or Path(os.environ.get("ROS_HOME", Path.home() / ".ros")) / "tdmpc2"
        self.prefix = settings.prefix
        self.shipped = robot in shipped_names()

    @property
    def model(self) -> str:
        """The checkpoint bundle: given, shipped, or `bundle` in the robot's folder."""
        if self.settings.model:
            return self.settings.model
        if self.shipped:
            return str(Path(str(files("tdmpc2_core"))) / "bundles" / self.robot)
        return str(self.embodiment.model_path.parent / "bundle")

    @property
    def parameters(self) -> str:
        """Parameters of this suite's nodes."""
        return _existing(
            self.settings.params_file or str(self.share / "config" / "robot.yaml"), "params_file"
        )

    @property
    def controllers(self) -> str:
        """Parameters of the controller manager; a file given by the user is taken as it is."""
        if self.settings.controllers_file:
            return _existing(self.settings.controllers_file, "controllers_file")
        if self.shipped and not self.prefix:
            return str(self.share / "config" / f"{self.robot}_controllers.yaml")
        return self._write("controllers.yaml", controllers_text(self.embodiment, self.prefix))

    @property
    def bag_qos(self) -> str:
        """QoS overrides of rosbag2's recorder."""
        space = self.settings.namespace
        if self.shipped and not space.strip("/"):
            return str(self.share / "config" / f"{self.robot}_bag_qos.yaml")
        return self._write(
            f"{space.strip('/').replace('/', '_')}_bag_qos.yaml", qos_text(self.embodiment, space)
        )

    @property
    def mjcf(self) -> str:
        """The robot model for MuJoCo, with the prefix before the joints' names."""
        source = self.embodiment.model_path
        if not self.prefix:
            return str(source)
        root = ElementTree.parse(source).getroot()
        moved = [joint for joint in root.iter("joint") if joint.get("type") != "free"]
        names = {*self.embodiment.joint_names, *(joint.get("name") for joint in moved)} - {None}
        for element in root.iter():
            keys = ["joint", "joint1", "joint2", *(["name"] if element.tag == "joint" else [])]
            for key in keys:
                if element.get(key) in names:
                    element.set(key, self.prefix + element.get(key, ""))
        compiler = root.find("compiler")
        if compiler is None:
            compiler = ElementTree.SubElement(root, "compiler")
        for key in ("meshdir", "texturedir"):
            compiler.set(key, str(source.parent / compiler.get(key, "")))
        return self._write("robot.xml", ElementTree.tostring(root, encoding="unicode"))

    def description(self) -> str:
        """URDF for the backend that the settings ask for."""
        settings = self.settings
        backend = Backend(
            sim=settings.sim,
            prefix=self.prefix,
            namespace=settings.namespace.strip("/"),
            command_interface=COMMAND_CONTROLLERS[settings.controller],
            mujoco_model=self.mjcf if settings.sim == "mujoco" else "",
            headless=settings.headless,
            controllers_file=self.controllers if settings.sim == "gazebo" else "",
            hardware_plugin=settings.hardware_plugin,
            hardware_parameters=hardware_parameters(settings.hardware_parameters),
        )
        return robot_description(self._xacro(), backend)

    def _xacro(self) -> Path:
        given = self.settings.description_file
        shared = str(self.share / "urdf" / SHARED)
        if not given and self.shipped:
            return self.share / "urdf" / f"{self.robot}.urdf.xacro"
        if not given:
            beside = self.embodiment.model_path.parent / f"{self.embodiment.name}.urdf"
            given = str(beside) if beside.is_file() else ""
        if not given:
            return Path(self._write("robot.urdf.xacro", xacro_text(self.embodiment, shared)))
        links = maker_links(Path(given), self.embodiment)
        if links is None and self.prefix:
            raise UserError(
                f"prefix {self.prefix!r}: {given} has a ros2_control block and is used as it is; "
                "leave prefix empty, for one robot"
            )
        if links is None:
            return Path(given)
        return Path(self._write("robot.urdf.xacro", xacro_text(self.embodiment, shared, links)))

    def _write(self, name: str, text: str) -> str:
        folder = self.made / f"{self.prefix}{self.embodiment.name}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / name, text)
        except OSError as problem:
            raise UserError(
                f"{folder / name}: cannot be written ({problem.strerror}); set ROS_HOME"
            ) from None
        return str(folder / name)


def _existing(path: str, argument: str) -> str:
    if not Path(path).is_file():
        raise UserError(f"{argument}: no file {path!r}")
    return path
