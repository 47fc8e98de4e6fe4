"""Robot descriptions in the forms of other tools: MJCF to URDF, URDF to MJCF. Needs MuJoCo."""

from tdmpc2_core.descriptions.to_urdf import read_stance, read_tree, urdf_elements, urdf_text
from tdmpc2_core.descriptions.tree import Pose, Shape, Stance, Tree, TreeJoint, TreeLink

__all__ = [
    "Pose",
    "Shape",
    "Stance",
    "Tree",
    "TreeJoint",
    "TreeLink",
    "read_stance",
    "read_tree",
    "urdf_elements",
    "urdf_text",
]
