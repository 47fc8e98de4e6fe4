"""Robot descriptions in the forms of other tools: MJCF to URDF, URDF to MJCF. Needs MuJoCo."""

from tdmpc2_core.descriptions.from_mjcf import read_stance, read_tree
from tdmpc2_core.descriptions.tree import Joint, Link, Pose, Shape, Stance, Tree
from tdmpc2_core.descriptions.urdf import urdf_elements, urdf_text

__all__ = [
    "Joint",
    "Link",
    "Pose",
    "Shape",
    "Stance",
    "Tree",
    "read_stance",
    "read_tree",
    "urdf_elements",
    "urdf_text",
]
