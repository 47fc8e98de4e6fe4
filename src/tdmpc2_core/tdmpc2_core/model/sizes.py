"""Architecture presets: the five sizes of the paper, and small ones for a CPU: robots, benchmark tasks."""

from __future__ import annotations

from typing import Any

from tdmpc2_core.model.config import WorldModelConfig

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
