"""Which parameters the world-model optimiser trains, and how fast."""

from __future__ import annotations

from typing import Any

from torch import nn

from tdmpc2_core.model import WorldModel


def parameter_groups(model: WorldModel, lr: float, enc_lr_scale: float) -> list[dict[str, Any]]:
    """Adam groups of the world model, named by part; the policy has an optimiser of its own.

    lr: step of every part but the encoder, whose step is lr * enc_lr_scale. Parameters with requires_grad
    False, and parts that have no others, are left out: that is how a part is frozen for fine-tuning.
    """
    parts: dict[str, nn.Module | None] = {
        "encoder": model.encoder,
        "dynamics": model.dynamics,
        "reward": model.reward_head,
        "termination": model.termination_head,
        "q": model.q_heads,
    }
    groups: list[dict[str, Any]] = []
    for name, part in parts.items():
        params = [] if part is None else [p for p in part.parameters() if p.requires_grad]
        if params:
            groups.append(
                {"params": params, "lr": lr * enc_lr_scale if name == "encoder" else lr, "name": name}
            )
    if model.task_embedding is not None and model.task_embedding.requires_grad:
        groups.append({"params": [model.task_embedding], "lr": lr, "name": "task_embedding"})
    return groups
