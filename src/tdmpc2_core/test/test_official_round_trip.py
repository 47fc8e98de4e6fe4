"""Import and export of official files: bundle and back bit for bit, task sets, the two commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from parity import SHIPPED, Fixture, assert_close
from planning_support import small_model

from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint.bundle import load_bundle
from tdmpc2_core.checkpoint.official import load_official
from tdmpc2_core.checkpoint.official_convert import export_official, official_settings, official_state_dict
from tdmpc2_core.checkpoint.published_tasks import MT30, MT80, published_task
from tdmpc2_core.cli import main
from tdmpc2_core.model import WorldModel, world_model_config

SHIPPED_STEMS = ("tiny_episodic_5q", "tiny_multitask_3", "tiny_action_21", "tiny_pixels")


@pytest.mark.parametrize("stem", SHIPPED_STEMS)
def test_import_export_import_is_bit_identical(stem: str, tmp_path: Path) -> None:
    source, out = SHIPPED / f"{stem}.pt", tmp_path / "out.pt"
    assert main(["import", str(source), "--out", str(tmp_path / "bundle")]) == 0
    assert main(["export", str(tmp_path / "bundle"), "--format", "official", "--out", str(out)]) == 0
    want = torch.load(source, weights_only=True)["model"]
    have = torch.load(out, weights_only=True)["model"]
    assert set(have) == set(want)
    for key, value in want.items():
        if isinstance(value, torch.Tensor):
            assert have[key].dtype == value.dtype and torch.equal(have[key], value), key
        else:
            assert have[key] == value, key
    again = load_official(out).state_dict()
    for name, value in load_bundle(tmp_path / "bundle").weights.items():
        assert torch.equal(again[name], value), name


def test_export_folds_observation_statistics_into_the_encoder(tmp_path: Path) -> None:
    model = small_model(normalise_obs=True)
    generator = torch.Generator().manual_seed(3)
    obs = 5.0 + 3.0 * torch.randn(200, 9, generator=generator)
    model.train()
    model.normaliser.update(obs)
    export_official(model.eval(), tmp_path / "model.pt")
    plain = load_official(tmp_path / "model.pt")
    assert not plain.config.normalise_obs and official_settings(model)["latent_dim"] == 16
    with torch.no_grad():
        assert_close(plain.encode(obs), model.encode(obs), 1e-4, "z")


def mt30_file(path: Path) -> None:
    """A small mt30 model as the first release wrote it: no masks, flat value heads."""
    small = {"enc_dim": 16, "mlp_dim": 16, "latent_dim": 16, "num_q": 2}
    dims = tuple(published_task(name).action_dim for name in MT30)
    model = WorldModel(world_model_config(5, 24, 6, "mt30", action_dims=dims, **small))
    state = official_state_dict(model)
    del state["_action_masks"], state["log_std_min"], state["log_std_dif"]
    for key in [key for key in state if "Qs" in key]:
        value = state.pop(key)
        if key.startswith("_detach") or "__" in key:
            continue
        layer, field = key.split("params.")[1].split(".", 1)
        flat = 4 * int(layer) + ("weight", "bias", "ln.weight", "ln.bias").index(field)
        state[f"{'_target_Qs' if 'target' in key else '_Qs'}.params.{flat}"] = value
    torch.save({"model": state}, path)


def test_task_set_is_recognised(tmp_path: Path) -> None:
    mt30_file(tmp_path / "mt30.pt")
    assert main(["import", str(tmp_path / "mt30.pt"), "--out", str(tmp_path / "bundle")]) == 0
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.tasks == MT30 and bundle.task_discounts == (0.99,) * 30
    dims = dict(zip(MT30, bundle.model_config.action_dims, strict=True))
    assert (dims["walker-run"], dims["cartpole-balance"], dims["reacher-three-hard"]) == (6, 1, 3)
    assert load_official(tmp_path / "mt30.pt", tasks="mt30").config == bundle.model_config
    agent = Agent.load(tmp_path / "bundle", planner="tiny")
    obs = np.zeros((2, 24), dtype=np.float32)
    action = agent.act(obs, np.array([True, True]), task=np.array([6, 0])).action
    assert np.all(action[0, 1:] == 0) and np.any(action[1, 1:] != 0)


def test_task_sets_and_discounts() -> None:
    assert (len(MT30), len(MT80), MT80[:30] == MT30) == (30, 80, True)
    tasks = {name: published_task(name) for name in MT80}
    assert max(task.obs_dim for task in tasks.values()) == 39 and tasks["mw-push"].discount == 0.95
    assert max(tasks[name].obs_dim for name in MT30) == 24
    assert max(task.action_dim for task in tasks.values()) == 6
    dog = published_task("dog-run")
    assert (dog.obs_dim, dog.action_dim, dog.discount, dog.control_period) == (223, 38, 0.99, 0.03)
    assert published_task("myo-pose-hard").action_dim == 39 and published_task("juggle") is None


def test_single_task_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model(24, 6)
    export_official(model, tmp_path / "walker.pt")
    out = ["--out", str(tmp_path / "bundle")]
    assert main(["import", str(tmp_path / "walker.pt"), "--task", "walker-walk", *out]) == 0
    bundle = load_bundle(tmp_path / "bundle")
    assert (bundle.discount, bundle.control_period, bundle.tasks) == (0.99, 0.05, ("walker-walk",))
    assert main(["import", str(tmp_path / "walker.pt"), "--episode-length", "100", *out]) == 0
    assert load_bundle(tmp_path / "bundle").discount == 0.95
    capsys.readouterr()
    for task, text in (("dog-run", "has 223 and 38"), ("juggle", "unknown task"), ("mt80", "single task")):
        assert main(["import", str(tmp_path / "walker.pt"), "--task", task, *out]) == 2
        assert text in capsys.readouterr().err
    assert main(["import", str(tmp_path / "none.pt"), *out]) == 2
    assert "no file" in capsys.readouterr().err


def test_stable_api() -> None:
    """The documented calls on a loaded file, with positional tasks."""
    f = Fixture.load("tiny_multitask_3")
    model, task = load_official(f.path), f["task"]
    with torch.no_grad():
        z = model.encode(f["obs"], task)
        assert model.next(z, f["action"], task).shape == z.shape
        assert model.reward(z, f["action"], task).shape == (6, 1)
        assert model.q_values(z, f["action"], task, heads=[0, 2], target=True).shape == (2, 6, 1)
        action, mean, log_std = model.policy(z, task)
        assert torch.equal(action, mean) and log_std.shape == (6, 5)
    episodic = load_official(SHIPPED / "tiny_episodic_5q.pt")
    assert episodic.termination(torch.full((2, 32), 0.125), None).shape == (2, 1)
