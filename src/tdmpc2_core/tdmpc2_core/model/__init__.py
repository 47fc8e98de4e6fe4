"""The world model and its parts (torch)."""

from .config import WorldModelConfig
from .distributions import PolicySample, TwoHot
from .sizes import SIZES, world_model_config
from .world_model import WorldModel

__all__ = ["SIZES", "PolicySample", "TwoHot", "WorldModel", "WorldModelConfig", "world_model_config"]
