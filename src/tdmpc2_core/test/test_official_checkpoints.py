"""Official checkpoint files: both layouts, tasks, and what is said about files that do not fit."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from parity import STEMS, Fixture, assert_close

from tdmpc2_core.checkpoint.official import load_official
from tdmpc2_core.errors import UserError

FIELDS = ("weight", "bias", "ln.weight", "ln.bias")


def saved(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, weights_only=True)["model"]
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def first_release(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights under the keys of the first release: flat value heads, no copies or constants."""
    result: dict[str, torch.Tensor] = OrderedDict()
    for key, value in state.items():
        if key.startswith(("_detach", "log_std", "_action_masks")) or "__" in key:
            continue
        for current, old in (("_Qs.params.", "_Qs.params."), ("_target_Qs_params.", "_target_Qs.params.")):
            if key.startswith(current):
                layer, field = key.removeprefix(current).split(".", 1)
                key = f"{old}{4 * int(layer) + FIELDS.index(field)}"
                break
        result[key] = value
    return result


@pytest.mark.parametrize("stem", STEMS)
def test_sizes_are_inferred(stem: str) -> None:
    f = Fixture.load(stem)
    model = f.model()
    names = (
        "obs_dim",
        "action_dim",
        "latent_dim",
        "mlp_dim",
        "enc_dim",
        "num_enc_layers",
        "num_q",
        "num_bins",
        "episodic",
    )
    if model.config.obs_kind == "pixels":
        names = tuple(name for name in names if "enc" not in name)
    for name in names:
        assert getattr(model.config, name) == f.settings[name], name
    assert (model.config.log_std_min, model.config.log_std_max) == (-10.0, 2.0)
    assert not model.training and model.num_parameters == f.settings["learnable_params"]


@pytest.mark.parametrize("stem", STEMS)
def test_first_release_layout_is_bit_identical(stem: str, tmp_path: Path) -> None:
    f = Fixture.load(stem)
    torch.save({"model": first_release(saved(f.path))}, tmp_path / "old.pt")
    new = f.model()
    old = load_official(tmp_path / "old.pt", action_dims=new.config.action_dims, dropout=0.0)
    assert old.config == new.config
    for (name, a), (_, b) in zip(old.state_dict().items(), new.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert_close(old.q_values(f["z"], f["action"], f.get("task"), target=True), f["target_q_values"], 1e-4)


def test_tasks(tmp_path: Path) -> None:
    state = saved(Fixture.load(STEMS[0]).path)
    for part in (
        "_encoder.state.0",
        "_dynamics.0",
        "_reward.0",
        "_pi.0",
        "_Qs.params.0",
        "_target_Qs_params.0",
    ):
        weight = state[f"{part}.weight"]
        state[f"{part}.weight"] = torch.cat([weight, torch.zeros(*weight.shape[:-1], 4)], -1)
    state = {key: value for key, value in state.items() if not key.startswith("_termination")}
    state["_task_emb.weight"] = torch.full((2, 4), 0.1)
    torch.save(
        {"model": {**state, "_action_masks": torch.tensor([[1.0, 1, 0], [1, 1, 1]])}}, tmp_path / "new.pt"
    )
    torch.save({"model": first_release(state)}, tmp_path / "old.pt")
    assert load_official(tmp_path / "new.pt").config.action_dims == (2, 3)
    model = load_official(tmp_path / "old.pt", action_dims=(2, 3))
    assert (model.config.obs_dim, model.config.task_dim, model.config.num_tasks) == (7, 4, 2)
    with pytest.raises(UserError, match="give action_dims with 2 entries"):
        load_official(tmp_path / "old.pt")


def test_errors(tmp_path: Path) -> None:
    state = saved(Fixture.load(STEMS[0]).path)

    def attempt(content: object) -> None:
        torch.save(content, tmp_path / "file.pt")
        load_official(tmp_path / "file.pt")

    with pytest.raises(UserError, match="no file"):
        load_official(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(UserError, match="not a weights-only PyTorch file"):
        load_official(tmp_path / "text.pt")
    with pytest.raises(UserError, match="not a weights-only PyTorch file"):
        attempt({"model": Path("code would run here")})
    with pytest.raises(UserError, match="holds no state dict"):
        attempt([1, 2])
    with pytest.raises(UserError, match="missing.*_target_Qs_params"):
        attempt({k: v for k, v in state.items() if not k.startswith("_target")})
    with pytest.raises(UserError, match="does not fit.*reward_head.layers.0.norm_bias"):
        attempt({k: v for k, v in state.items() if k != "_reward.0.ln.bias"})
    with pytest.raises(UserError, match="unknown tensor '_surprise'"):
        attempt({**state, "_surprise": torch.zeros(1)})
    with pytest.raises(UserError, match="has shape"):
        attempt({**state, "_pi.1.bias": torch.zeros(3)})
