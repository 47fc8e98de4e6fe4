"""Learning: losses, actor objectives and the learner (torch)."""

from .actor import ActorOptions
from .batch import Batch
from .config import LearnerConfig
from .draws import UpdateDraws
from .learner import Learner
from .returns import discount_for

__all__ = ["ActorOptions", "Batch", "Learner", "LearnerConfig", "UpdateDraws", "discount_for"]
