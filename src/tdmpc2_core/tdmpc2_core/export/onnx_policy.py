"""The policy prior as an ONNX file: observation in, action out, for runtimes without PyTorch."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmpc2_core.errors import UserError, missing_extra
from tdmpc2_core.files import replacing
from tdmpc2_core.model.distributions import squashed_gaussian
from tdmpc2_core.model.world_model import WorldModel

OPSET = 18
"""First ONNX operator set that has Mish."""


class PolicyPrior(nn.Module):
    """obs (B, O) [, task (B,)] -> action (B, A) = tanh(mean) and log_std (B, A), in standard operators."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        if model.config.obs_kind != "state":
            raise UserError("export: the ONNX policy takes state vectors, this model sees pixels")
        self.model = model
        table = model.task_embedding
        if table is not None:  # what a look-up does to rows longer than 1, done once
            rows = table.detach().clone()
            self.register_buffer("embedding", F.embedding(torch.arange(len(rows)), rows, max_norm=1.0))

    def forward(self, obs: Tensor, task: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See the class."""
        model, c = self.model, self.model.config
        rows, mask = [], None
        if task is not None and model.action_masks is not None:
            rows, mask = [self.get_buffer("embedding")[task]], model.action_masks[task]
        z = model.encoder(model.normaliser(obs, task), *rows)
        output = model.policy_head(z, *rows)
        sample = squashed_gaussian(output, None, c.log_std_min, c.log_std_max, mask)
        return sample.mean, sample.log_std


def export_onnx(model: WorldModel, path: str | Path) -> None:
    """Write the policy prior to `path` (.onnx): inputs obs (and task), outputs action and log_std, any batch.

    Raises:
        UserError: onnx or onnxscript is not installed, the model sees pixels, or `path` cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise missing_extra("export", package) from None
    policy = PolicyPrior(model).eval()
    c = model.config
    device = next(model.parameters()).device
    inputs: tuple[Tensor, ...] = (torch.zeros(2, c.obs_dim, device=device),)
    names = ["obs"]
    if c.num_tasks:
        inputs, names = (*inputs, torch.zeros(2, dtype=torch.long, device=device)), ["obs", "task"]
    batch = torch.export.Dim("batch")
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                policy,
                inputs,
                input_names=names,
                output_names=["action", "log_std"],
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        assert program is not None  # it is with dynamo=True
        program.model.metadata_props["tdmpc2"] = json.dumps(
            {"obs_dim": c.obs_dim, "action_dim": c.action_dim}
        )
        with replacing(target) as partial:
            program.save(str(partial), external_data=False)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); give a writable path") from None
