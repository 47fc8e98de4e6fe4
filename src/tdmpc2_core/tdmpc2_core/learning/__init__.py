"""Learning: losses, actor objectives and the learner (torch)."""

from tdmpc2_core.learning.actor import ActorOptions
from tdmpc2_core.learning.batch import Batch, UpdateDraws
from tdmpc2_core.learning.learner import Learner, LearnerConfig
from tdmpc2_core.learning.losses import discount_for

__all__ = ["ActorOptions", "Batch", "Learner", "LearnerConfig", "UpdateDraws", "discount_for"]
