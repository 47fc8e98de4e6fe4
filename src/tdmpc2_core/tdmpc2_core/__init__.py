"""TD-MPC2 for robots: a learned world model that plans. docs/architecture.md shows what lies where.

The names of `__all__` are imported when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tdmpc2_core.agent import ActResult, Agent
    from tdmpc2_core.checkpoint.bundle import Bundle, load_bundle, save_bundle
    from tdmpc2_core.data.episodes import Episode, EpisodeStore
    from tdmpc2_core.envs.protocol import Environment, EnvSpec, StepResult
    from tdmpc2_core.envs.registry import env_spec, make_env
    from tdmpc2_core.envs.robot.env import EnvOptions
    from tdmpc2_core.errors import UserError
    from tdmpc2_core.files import shipped_bundle
    from tdmpc2_core.learning.learner import Learner, LearnerConfig
    from tdmpc2_core.model.architecture import WorldModelConfig
    from tdmpc2_core.model.world_model import WorldModel
    from tdmpc2_core.planning.planners import PlannerConfig, planner_preset
    from tdmpc2_core.planning.protocol import Plan
    from tdmpc2_core.robots.embodiment import Embodiment
    from tdmpc2_core.scoring.evaluation import evaluate_agent
    from tdmpc2_core.train.online import OnlineTrainer
    from tdmpc2_core.train.run import TrainingRun
    from tdmpc2_core.train.train_config import TrainConfig, train_preset

__version__ = "0.1.0"

__all__ = [
    "ActResult",
    "Agent",
    "Bundle",
    "Embodiment",
    "EnvOptions",
    "EnvSpec",
    "Environment",
    "Episode",
    "EpisodeStore",
    "Learner",
    "LearnerConfig",
    "OnlineTrainer",
    "Plan",
    "PlannerConfig",
    "StepResult",
    "TrainConfig",
    "TrainingRun",
    "UserError",
    "WorldModel",
    "WorldModelConfig",
    "env_spec",
    "evaluate_agent",
    "load_bundle",
    "make_env",
    "planner_preset",
    "save_bundle",
    "shipped_bundle",
    "train_preset",
]

_HOMES = {
    "agent": ("ActResult", "Agent"),
    "checkpoint.bundle": ("Bundle", "load_bundle", "save_bundle"),
    "data.episodes": ("Episode", "EpisodeStore"),
    "envs.protocol": ("EnvSpec", "Environment", "StepResult"),
    "envs.registry": ("env_spec", "make_env"),
    "envs.robot.env": ("EnvOptions",),
    "errors": ("UserError",),
    "files": ("shipped_bundle",),
    "learning.learner": ("Learner", "LearnerConfig"),
    "model.architecture": ("WorldModelConfig",),
    "model.world_model": ("WorldModel",),
    "planning.planners": ("PlannerConfig", "planner_preset"),
    "planning.protocol": ("Plan",),
    "robots.embodiment": ("Embodiment",),
    "scoring.evaluation": ("evaluate_agent",),
    "train.online": ("OnlineTrainer",),
    "train.run": ("TrainingRun",),
    "train.train_config": ("TrainConfig", "train_preset"),
}
"""Modules and what they export; a test holds this table, `__all__` and the imports above together."""


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            globals()[name] = value = getattr(import_module(f"{__name__}.{module}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
