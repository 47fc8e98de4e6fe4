"""The world model and its parts (torch)."""

from tdmpc2_core.model.architecture import SIZES, WorldModelConfig, world_model_config
from tdmpc2_core.model.distributions import PolicySample, TwoHot
from tdmpc2_core.model.world_model import WorldModel

__all__ = ["SIZES", "PolicySample", "TwoHot", "WorldModel", "WorldModelConfig", "world_model_config"]
