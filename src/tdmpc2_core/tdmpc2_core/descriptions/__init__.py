"""Robot descriptions in the forms of other tools: MJCF to URDF, URDF to MJCF. Needs MuJoCo."""

from tdmpc2_core.descriptions.to_urdf import read_stance, read_tree, urdf_elements, urdf_text
from tdmpc2_core.descriptions.tree import Joint, Link, Pose, Shape, Stance, Tree

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
