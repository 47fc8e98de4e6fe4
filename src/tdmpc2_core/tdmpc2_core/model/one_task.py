"""A multi-task model at one task, as a model of that task alone: what a robot of several runs on.

The task embedding is a constant then: its share of a layer's input is one of the layer's bias. Padded
observation and action entries fall away with their weights. The smaller model computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc2_core.model.architecture import WorldModelConfig

_LATENT_TASK_ACTION = ("dynamics", "reward_head", "q_heads", "target_q_heads", "residual_head")


def one_task(
    config: WorldModelConfig, weights: Mapping[str, Tensor], task: int
) -> tuple[WorldModelConfig, dict[str, Tensor]]:
    """Configuration and state dict of the model that is this one at `task`, without task or padding.

    Args:
        config: of several tasks.
        weights: state dict of a model of it.
        task: index, 0..tasks - 1.
    """
    actions = config.action_dims[task]
    observations = config.obs_dims[task] if config.obs_dims else config.obs_dim
    index = torch.tensor(task)
    embedding = F.embedding(index, weights["task_embedding"].detach().clone(), max_norm=1.0).double()
    state = {name: value.detach().clone() for name, value in weights.items()}
    del state["task_embedding"], state["action_masks"]
    for name in ("mean", "variance", "count") if config.obs_dims else ():
        state[f"normaliser.{name}"] = state[f"normaliser.{name}"][task]
    for name in ("mean", "variance"):
        state[f"normaliser.{name}"] = state[f"normaliser.{name}"][:observations].clone()

    def fold(part: str, before: int, kept: int, after: int) -> None:
        """The columns `before` the embedding, of which the first are kept, and as many `after` it."""
        weight, bias = f"{part}.layers.0.weight", f"{part}.layers.0.bias"
        if weight not in state:
            return
        head, middle, tail = state[weight].split(
            [before, config.task_dim, state[weight].shape[-1] - before - config.task_dim], -1
        )
        state[bias] = (state[bias].double() + middle.double() @ embedding).to(state[bias].dtype)
        state[weight] = torch.cat([head[..., :kept], tail[..., :after]], -1)

    fold("encoder", config.obs_dim, observations, 0)
    fold("policy_head", config.latent_dim, config.latent_dim, 0)
    for part in _LATENT_TASK_ACTION:
        fold(part, config.latent_dim, config.latent_dim, actions)
    for name in ("policy_head.layers.2.weight", "policy_head.layers.2.bias"):
        mean, log_std = state[name].chunk(2)
        state[name] = torch.cat([mean[:actions], log_std[:actions]])
    single = replace(
        config, obs_dim=observations, action_dim=actions, task_dim=0, action_dims=(), obs_dims=()
    )
    return single, state
