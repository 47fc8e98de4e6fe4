"""Official checkpoint files: the three layouts, tasks, and what is said about files that do not fit."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import SHIPPED, STEMS, Fixture, assert_close
from torch import nn

from tdmpc2_core.checkpoint.official import load_official, read_official
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


class Sequence(nn.Sequential):
    """Networks of the layout before release: linear maps, LayerNorms, activations counted one by one."""

    def __init__(self, sizes: list[int], last_norm: bool = False, skip: int = 0) -> None:
        layers: list[nn.Module] = [nn.Identity()] * skip
        for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            last = i + 2 == len(sizes)
            layers.append(nn.Linear(a, b))
            if not last or last_norm:
                layers.append(nn.LayerNorm(b))
            if not last:
                layers.append(nn.Mish())
        super().__init__(*layers)


def groups(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (-1, 8)).softmax(-1).flatten(-2)


@torch.no_grad()
def test_layout_before_release(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Sequence([7, 24, 16], last_norm=True, skip=1)
    dynamics = nn.Sequential(Sequence([19, 32, 32, 16]), nn.LayerNorm(16))
    reward, policy = Sequence([19, 32, 32, 101]), Sequence([16, 32, 32, 6])
    shapes = [(32, 19), (32,), (32,), (32,), (32, 32), (32,), (32,), (32,), (101, 32), (101,)]
    values = [torch.randn(2, *shape) for shape in shapes]
    state = {f"{name}.params.{i}": v for name in ("_Qs", "_target_Qs") for i, v in enumerate(values)}
    parts = {"_encoder.state": encoder, "_dynamics": dynamics, "_reward": reward, "_pi": policy}
    for name, part in parts.items():
        for parameter in part.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
    assert {"_encoder.state.1.weight", "_encoder.state.5.bias", "_dynamics.0.6.weight"} <= set(state)
    torch.save({"model": state}, tmp_path / "old.pt")
    found = read_official(tmp_path / "old.pt")
    assert found.layout == "before release"
    obs, action = torch.randn(5, 7), torch.rand(5, 3)
    z = groups(encoder(obs))
    both = torch.cat([z, action], -1)
    assert_close(found.model.encode(obs), z, 1e-5, "z")
    assert_close(found.model.next(z, action), groups(dynamics(both)), 1e-5, "next z")
    assert_close(found.model.reward_logits(z, action), reward(both), 1e-5, "reward")
    assert_close(found.model.policy(z).mean, policy(z).chunk(2, -1)[0].tanh(), 1e-5, "policy")
    x = both
    for i in (0, 4):
        x = nn.functional.layer_norm(
            x @ values[i][1].T + values[i + 1][1], (32,), values[i + 2][1], values[i + 3][1]
        )
        x = nn.functional.mish(x)
    q = x @ values[8][1].T + values[9][1]
    assert_close(found.model.q_logits(z, action, heads=[1])[0], q, 1e-4, "value")


@pytest.mark.parametrize("stem", ["first_release", "first_release_multitask"])
@torch.no_grad()
def test_files_of_the_first_release(stem: str) -> None:
    f = {name: torch.from_numpy(value) for name, value in np.load(SHIPPED / f"{stem}.npz").items()}
    task = f.get("task")
    dims = () if task is None else (1, 3)
    found = read_official(SHIPPED / f"{stem}.pt", action_dims=dims, dropout=0.0)
    assert found.layout == "first release"
    model, z, action = found.model, f["z"], f["action"]
    assert_close(model.encode(f["obs"], task), z, 1e-4, "z")
    assert_close(model.next(z, action, task), f["next_z"], 1e-4, "next z")
    assert_close(model.reward_logits(z, action, task), f["reward_logits"], 1e-4, "reward")
    assert_close(model.q_logits(z, action, task), f["q_logits"], 1e-4, "value")
    assert_close(model.q_logits(z, action, task, target=True), f["target_q_logits"], 1e-4, "target value")
    action, mean, log_std = model.policy(z, task, f["pi_eps"])
    for name, value in (("action", action), ("mean", mean), ("log_std", log_std)):
        assert_close(value, f[f"pi_{name}"], 1e-4, name)


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
    with pytest.raises(UserError, match="give tasks, or action_dims with 2 entries"):
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
    with pytest.raises(UserError, match="current layout. lacks _target_Qs_params.2.weight"):
        attempt({k: v for k, v in state.items() if not k.startswith("_target")})
    with pytest.raises(UserError, match="'reward_head.layers.0.norm_bias' is missing"):
        attempt({k: v for k, v in state.items() if k != "_reward.0.ln.bias"})
    with pytest.raises(UserError, match="unknown tensor '_surprise'"):
        attempt({**state, "_surprise": torch.zeros(1)})
    with pytest.raises(UserError, match="of shape .3,., .* needs one of shape"):
        attempt({**state, "_pi.1.bias": torch.zeros(3)})
    with pytest.raises(UserError, match="none of the published.*found 2: bias, weight"):
        attempt({"weight": torch.zeros(2), "bias": torch.zeros(1)})
    with pytest.raises(UserError, match="_Qs.params.2.weight' has shape .4,., must have 3 dimensions"):
        attempt({**state, "_Qs.params.2.weight": torch.zeros(4)})
    with pytest.raises(UserError, match="'reward_head.layers.1.bias' is not finite"):
        attempt({**state, "_reward.1.bias": torch.full_like(state["_reward.1.bias"], torch.nan)})
    with pytest.raises(UserError, match="does not fit its record"):
        attempt({**state, "_reward.1.bias": torch.zeros(1).expand(10**9)})
    with pytest.raises(UserError, match="holds a single task"):
        load_official(Fixture.load(STEMS[0]).path, tasks="mt30")
    with pytest.raises(UserError, match="3 tasks, 30 were named"):
        load_official(Fixture.load("tiny_multitask_3").path, tasks="mt30")
