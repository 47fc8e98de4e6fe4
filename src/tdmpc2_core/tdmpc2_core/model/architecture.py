"""Architecture of the world model as data: the settings, the paper's five sizes and small ones for a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from tdmpc2_core.config import check_fields, setting
from tdmpc2_core.errors import UserError

IMAGE_SIDE = 64


def check_observation_shape(obs: Tensor, config: WorldModelConfig) -> None:
    """Raises UserError unless obs is (..., O), or (..., C, 64, 64) for a model of pixels."""
    pixels = config.obs_kind == "pixels"
    right = (config.obs_dim, IMAGE_SIDE, IMAGE_SIDE) if pixels else (config.obs_dim,)
    if tuple(obs.shape[-len(right) :]) != right:
        wanted = ", ".join(map(str, right))
        raise UserError(f"world model: obs has shape {tuple(obs.shape)}, must be (..., {wanted})")


def check_last(name: str, x: Tensor, length: int) -> None:
    """Raises UserError unless the last dimension of `x` has `length` entries."""
    if x.ndim == 0 or x.shape[-1] != length:
        raise UserError(f"world model: {name} has shape {tuple(x.shape)}, must be (..., {length})")


@dataclass(frozen=True)
class WorldModelConfig:
    """Architecture of the paper's size 5; `SIZES` holds the other presets. Field metadata: unit, reason."""

    obs_dim: int = setting(low=1, unit="entries", why="observation length; channels when obs_kind is pixels")
    action_dim: int = setting(low=1, unit="entries", why="action length, each in [-1, 1]")
    latent_dim: int = setting(512, low=1, unit="entries", why="length of z; a multiple of simnorm_dim")
    enc_dim: int = setting(256, low=1, unit="units", why="width of the encoder's hidden layers")
    mlp_dim: int = setting(
        512, low=1, unit="units", why="width of the two hidden layers of every other network"
    )
    num_enc_layers: int = setting(2, low=1, unit="layers", why="encoder layers, the output layer included")
    num_q: int = setting(5, low=1, unit="heads", why="value heads; two random ones form every target")
    dropout: float = setting(
        0.01, low=0, below=1, unit="probability", why="first layer of every value head, in the learner only"
    )
    simnorm_dim: int = setting(
        8, low=1, unit="entries", why="group length of the simplicial normalisation of z"
    )
    num_bins: int = setting(101, low=1, unit="bins", why="two-hot regression of reward and value")
    vmin: float = setting(-10.0, unit="symlog", why="lowest bin, a value of -22025")
    vmax: float = setting(10.0, unit="symlog", why="highest bin, a value of 22025")
    reward_range: tuple[float, ...] = setting(
        (), unit="reward", why="[lowest, highest] with linear bins between; empty: symlog bins, as the paper"
    )
    value_range: tuple[float, ...] = setting(
        (),
        unit="return",
        why="as reward_range: bins as fine as the differences between plans where returns are large",
    )
    residual_dim: int = setting(
        0,
        low=0,
        unit="units",
        why="width of a head whose output is added to the dynamics' before SimNorm: what fine-tuning finds "
        "different on a robot; 0: no such head, as the paper",
    )
    readings: tuple[str, ...] = setting(
        (), why="what a linear head reads from latents, a name per entry; empty: no such head, as the paper"
    )
    log_std_min: float = setting(-10.0, unit="ln", why="lower bound of the policy's log standard deviation")
    log_std_max: float = setting(2.0, unit="ln", why="upper bound of the policy's log standard deviation")
    episodic: bool = setting(False, unit="flag", why="adds the termination head")
    normalise_obs: bool = setting(
        False, unit="flag", why="running mean/std of observations inside the model; robots need it"
    )
    obs_kind: Literal["state", "pixels"] = setting(
        "state", why="pixels: 3 stacked 64x64 RGB frames, latent_dim 512"
    )
    num_channels: int = setting(32, low=1, unit="channels", why="width of the pixel encoder's convolutions")
    task_dim: int = setting(0, low=0, unit="entries", why="length of the task embedding; 0 for a single task")
    action_dims: tuple[int, ...] = setting(
        (), unit="entries", why="real action length of every task; empty for a single task"
    )
    obs_dims: tuple[int, ...] = setting(
        (),
        unit="entries",
        why="real observation length of every task, zeros follow; each then has observation statistics of "
        "its own, as robots of different bodies need; empty: all share theirs",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.latent_dim % self.simnorm_dim:
            raise ValueError(
                f"latent_dim {self.latent_dim} must be a multiple of simnorm_dim {self.simnorm_dim}"
            )
        for name in ("reward_range", "value_range"):
            ends = getattr(self, name)
            if ends and not (len(ends) == 2 and ends[0] < ends[1]):
                raise ValueError(f"{name} must be empty or [lowest, highest], got {list(ends)}")
        if bool(self.task_dim) != bool(self.action_dims):
            raise ValueError(
                "task_dim and action_dims go together: set both for several tasks, neither for one"
            )
        if self.action_dims and not all(0 < n <= self.action_dim for n in self.action_dims):
            raise ValueError(f"action_dims {self.action_dims} must lie in 1..action_dim ({self.action_dim})")
        if self.obs_dims and len(self.obs_dims) != len(self.action_dims):
            raise ValueError(f"obs_dims {self.obs_dims} must have one entry per task, as action_dims")
        if not all(0 < n <= self.obs_dim for n in self.obs_dims):
            raise ValueError(f"obs_dims {self.obs_dims} must lie in 1..obs_dim ({self.obs_dim})")
        if self.obs_kind == "pixels" and (self.task_dim or self.latent_dim != 16 * self.num_channels):
            raise ValueError("a pixel encoder needs latent_dim = 16 * num_channels and a single task")
        if self.obs_kind == "pixels" and self.normalise_obs:
            raise ValueError("normalise_obs applies to state observations; pixels are scaled by the encoder")
        if self.episodic and self.task_dim:
            raise ValueError(
                "episodic is available for a single task only: the termination head sees no task"
            )

    @property
    def num_tasks(self) -> int:
        """Number of tasks of a multi-task model, 0 for a single-task one."""
        return len(self.action_dims)


SIZES: dict[int | str, dict[str, Any]] = {
    1: {"enc_dim": 256, "mlp_dim": 384, "latent_dim": 128, "num_enc_layers": 2, "num_q": 2},
    5: {"enc_dim": 256, "mlp_dim": 512, "latent_dim": 512, "num_enc_layers": 2, "num_q": 5},
    19: {"enc_dim": 1024, "mlp_dim": 1024, "latent_dim": 768, "num_enc_layers": 3, "num_q": 5},
    48: {"enc_dim": 1792, "mlp_dim": 1792, "latent_dim": 768, "num_enc_layers": 4, "num_q": 5},
    317: {"enc_dim": 4096, "mlp_dim": 4096, "latent_dim": 1376, "num_enc_layers": 5, "num_q": 8},
    "tiny": {
        "enc_dim": 128,
        "mlp_dim": 128,
        "latent_dim": 64,
        "num_enc_layers": 2,
        "num_q": 2,
        "dropout": 0.0,
    },
    "robot": {
        "enc_dim": 256,
        "mlp_dim": 256,
        "latent_dim": 128,
        "num_enc_layers": 2,
        "num_q": 2,
        "dropout": 0.0,
    },
}
"""Keyword arguments of `WorldModelConfig` per size: millions of parameters in the paper, or a name."""

TASK_SETS: dict[str, dict[str, Any]] = {
    "mt30": {"task_dim": {1: 96, 5: 64, 19: 64, 48: 64, 317: 96}, "latent_dim": {19: 512}},
    "mt80": {"task_dim": {1: 96, 5: 96, 19: 96, 48: 96, 317: 96}, "latent_dim": {}},
}
"""What the two published task sets change, per size."""


def world_model_config(
    size: int | str, obs_dim: int, action_dim: int, task_set: str | None = None, **overrides: Any
) -> WorldModelConfig:
    """Config of a preset size. task_set: "mt30" or "mt80" adds its task embedding (give `action_dims`).

    Raises ValueError when the size or the task set is unknown.
    """
    if size not in SIZES:
        raise ValueError(f"unknown model size {size!r}; choose one of {list(SIZES)}")
    values = dict(SIZES[size])
    if task_set is not None:
        if task_set not in TASK_SETS or size not in TASK_SETS[task_set]["task_dim"]:
            raise ValueError(
                f"no preset of size {size!r} for task set {task_set!r}; sets are {list(TASK_SETS)}"
            )
        values |= {key: table[size] for key, table in TASK_SETS[task_set].items() if size in table}
    return WorldModelConfig(obs_dim, action_dim, **{**values, **overrides})
