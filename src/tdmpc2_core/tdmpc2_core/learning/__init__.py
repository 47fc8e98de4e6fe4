"""Learning: losses, actor objectives and the learner (torch)."""

from .actor import ActorOptions
from .batch import Batch
from .config import LearnerConfig
from .learner import Learner, UpdateDraws
from .returns import discount_for

__all__ = ["ActorOptions", "Batch", "Learner", "LearnerConfig", "UpdateDraws", "discount_for"]
