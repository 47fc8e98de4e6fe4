"""``python -m tdmpc2_bringup.generate``: writes the files that are made from the shipped embodiments.

These are urdf/<robot>.urdf.xacro and, in config/, <robot>_controllers.yaml, <robot>_bag_topics.txt and
<robot>_bag_qos.yaml, in the package's source folder. A test fails when they are not what the embodiments
give.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tdmpc2_bringup.controllers import controllers_text
from tdmpc2_bringup.description import xacro_text
from tdmpc2_bringup.recording import qos_text, topics_text
from tdmpc2_core.files import write_text
from tdmpc2_core.robots import Embodiment, shipped_names


def files(robot: str) -> dict[str, str]:
    """Path below the package and text of every generated file of a shipped robot."""
    embodiment = Embodiment.load(robot)
    return {
        f"urdf/{robot}.urdf.xacro": xacro_text(embodiment),
        f"config/{robot}_controllers.yaml": controllers_text(embodiment),
        f"config/{robot}_bag_topics.txt": topics_text(embodiment),
        f"config/{robot}_bag_qos.yaml": qos_text(embodiment),
    }


def main() -> int:
    """Write them all."""
    package = Path(__file__).resolve().parents[1]
    for robot in shipped_names():
        for name, text in files(robot).items():
            write_text(package / name, text)
            print(package / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
