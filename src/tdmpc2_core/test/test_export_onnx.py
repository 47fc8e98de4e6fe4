"""The ONNX policy prior, run by onnxruntime, gives the model's own actions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from planning_support import generator, small_model

from tdmpc2_core.checkpoint.bundle import Bundle, save_bundle
from tdmpc2_core.cli import main
from tdmpc2_core.errors import UserError
from tdmpc2_core.export.onnx_policy import PolicyPrior
from tdmpc2_core.model import WorldModel, WorldModelConfig
from tdmpc2_core.planning import PlannerConfig

MODELS = [{"normalise_obs": True, "num_enc_layers": 3}, {"task_dim": 4, "action_dims": (4, 2)}]


def example(extra: dict[str, object]) -> tuple[WorldModel, torch.Tensor, tuple[torch.Tensor, ...]]:
    model = small_model(**extra).train()
    obs = 2.0 + 3.0 * torch.randn(7, 9, generator=generator(1))
    model.normaliser.update(obs)
    if model.task_embedding is not None:
        model.task_embedding.data[1] *= 5.0  # longer than 1: a look-up rescales it
    return model.eval(), obs, ((torch.arange(7) % 2,) if model.config.num_tasks else ())


@pytest.mark.parametrize("extra", MODELS)
@torch.no_grad()
def test_standard_operators_give_the_models_policy(extra: dict[str, object]) -> None:
    model, obs, task = example(extra)
    action, log_std = PolicyPrior(model)(obs, *task)
    sample = model.policy(model.encode(obs, *task), *task)
    torch.testing.assert_close(action, sample.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_std, sample.log_std, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("extra", MODELS)
@torch.no_grad()
def test_onnxruntime_gives_the_models_policy(extra: dict[str, object], tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    runtime = pytest.importorskip("onnxruntime")
    model, obs, task = example(extra)
    bundle = Bundle(model.state_dict(), model.config, PlannerConfig(), 0.97, 0.02)
    save_bundle(tmp_path / "bundle", bundle)
    out = tmp_path / "policy.onnx"
    assert main(["export", str(tmp_path / "bundle"), "--format", "onnx", "--out", str(out)]) == 0
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    sample = model.policy(model.encode(obs, *task), *task)
    for rows in (1, 7):
        feed = dict(
            zip(("obs", "task"), (obs[:rows].numpy(), *(t[:rows].numpy() for t in task)), strict=False)
        )
        action, log_std = session.run(["action", "log_std"], feed)
        np.testing.assert_allclose(action, sample.mean[:rows].numpy(), atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(log_std, sample.log_std[:rows].numpy(), atol=1e-5, rtol=1e-4)


def test_pixels_are_refused() -> None:
    model = WorldModel(WorldModelConfig(9, 2, obs_kind="pixels", num_channels=4, latent_dim=64, mlp_dim=8))
    with pytest.raises(UserError, match="sees pixels"):
        PolicyPrior(model)
