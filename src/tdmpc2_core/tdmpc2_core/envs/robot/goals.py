"""Random goals for a tool: poses that the arm takes at random joint positions, clear of table and base."""

from __future__ import annotations

import numpy as np

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots.embodiment import Embodiment
from tdmpc2_core.robots.rotations import from_matrix

_TRIES = 1000
_FIRST_LINKS = 2  # they do not leave their place above the base


class GoalSampler:
    """Draws goals as the `command` section of an embodiment says.

    Raises:
        UserError: the robot takes no goals, or next to no joint position gives one.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        if embodiment.pose_command is None:
            raise UserError(f"{embodiment.name}: takes no goals; command.kind pose makes it")
        self._embodiment, self._spec = embodiment, embodiment.pose_command
        self._low = np.maximum(embodiment.default_position - self._spec.joint_span, embodiment.lower)
        self._high = np.minimum(embodiment.default_position + self._spec.joint_span, embodiment.upper)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """A goal (7,): position in m and quaternion xyzw, in the base frame."""
        chain, spec = self._embodiment.chain, self._spec
        for _ in range(_TRIES):
            joints = rng.uniform(self._low, self._high)
            position, rotation = chain.forward(joints)
            if spec.outside(tuple(position)) or self._lowest(joints) < spec.clearance:
                continue
            return np.concatenate([position, from_matrix(rotation)])
        raise UserError(
            f"{self._embodiment.name}: command: of {_TRIES} joint positions within joint_span none had its "
            "tool in the box and its links above clearance; widen them"
        )

    def _lowest(self, joints: np.ndarray) -> float:
        return float(self._embodiment.chain.origins(joints)[_FIRST_LINKS:, 2].min())
