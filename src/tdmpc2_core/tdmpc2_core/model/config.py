"""Architecture of the world model as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tdmpc2_core.config import check_fields, setting


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

    def __post_init__(self) -> None:
        check_fields(self)
        if self.latent_dim % self.simnorm_dim:
            raise ValueError(
                f"latent_dim {self.latent_dim} must be a multiple of simnorm_dim {self.simnorm_dim}"
            )
        if bool(self.task_dim) != bool(self.action_dims):
            raise ValueError(
                "task_dim and action_dims go together: set both for several tasks, neither for one"
            )
        if self.action_dims and not all(0 < n <= self.action_dim for n in self.action_dims):
            raise ValueError(f"action_dims {self.action_dims} must lie in 1..action_dim ({self.action_dim})")
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
