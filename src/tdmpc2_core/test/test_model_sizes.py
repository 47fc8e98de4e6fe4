"""Exact parameter counts and initialisation of every preset."""

from __future__ import annotations

import json

import pytest
import torch

from tdmpc2_core.config import from_mapping, to_mapping
from tdmpc2_core.errors import UserError
from tdmpc2_core.model import SIZES, WorldModel, WorldModelConfig, world_model_config

SINGLE = {1: 1_214_651, 5: 4_960_618, 19: 18_062_442, 48: 47_208_298, 317: 312_595_417}
MT30 = {1: 1_426_427, 5: 5_241_066, 19: 16_031_210, 48: 48_242_410, 317: 317_316_889}
MT80 = {1: 1_435_067, 5: 5_389_930, 19: 18_970_218, 48: 48_791_146, 317: 317_383_129}


def normed(a: int, b: int) -> int:
    return a * b + 3 * b


def closed_form(c: WorldModelConfig) -> int:
    """Learnable parameters from the layer formulas, without building the model."""

    def head(inputs: int, out: int) -> int:
        return normed(inputs, c.mlp_dim) + normed(c.mlp_dim, c.mlp_dim) + c.mlp_dim * out + out

    hidden = max(c.num_enc_layers - 1, 1)
    encoder = normed(c.obs_dim + c.task_dim, c.enc_dim) + (hidden - 1) * normed(c.enc_dim, c.enc_dim)
    encoder += normed(c.enc_dim, c.latent_dim)
    state_action = c.latent_dim + c.task_dim + c.action_dim
    dynamics = head(state_action, c.latent_dim) + 2 * c.latent_dim
    total = encoder + dynamics + (1 + c.num_q) * head(state_action, c.num_bins)
    total += head(c.latent_dim + c.task_dim, 2 * c.action_dim) + c.num_tasks * c.task_dim
    return total + (head(c.latent_dim, 1) if c.episodic else 0)


PARTS = {  # encoder, dynamics, reward, policy, all value heads; observation 24, action 6
    1: (40_064, 250_752, 240_101, 203_532, 480_202),
    5: (139_520, 794_112, 582_245, 533_516, 2_911_225),
    19: (1_868_032, 2_636_032, 1_950_821, 1_853_452, 9_754_105),
    48: (7_860_224, 5_987_584, 4_790_117, 4_619_788, 23_950_585),
    317: (56_119_328, 28_102_688, 22_876_261, 22_487_052, 183_010_088),
}
EMBEDDING = {"mt30": (2880, 1920, 1920, 1920, 2880), "mt80": (7680,) * 5}


def build(config: WorldModelConfig) -> WorldModel:
    """The model without memory for its weights."""
    with torch.device("meta"):
        return WorldModel(config)


def count(config: WorldModelConfig) -> int:
    """Parameters of the built model, equal to those of the formulas."""
    number = build(config).num_parameters
    assert number == closed_form(config)
    return number


@pytest.mark.parametrize("size", SINGLE)
def test_single_task(size: int) -> None:
    assert count(world_model_config(size, 24, 6)) == SINGLE[size]


@pytest.mark.parametrize("size", SINGLE)
def test_task_sets(size: int) -> None:
    assert count(world_model_config(size, 24, 6, "mt30", action_dims=(6,) * 30)) == MT30[size]
    assert count(world_model_config(size, 39, 6, "mt80", action_dims=(6,) * 80)) == MT80[size]


def test_other_counts() -> None:
    assert count(world_model_config(5, 223, 38)) == 5_159_082
    assert count(world_model_config(5, 24, 6, episodic=True)) == 5_488_491
    assert SIZES["robot"]["latent_dim"] == 128


@pytest.mark.parametrize("size", PARTS)
def test_parts(size: int) -> None:
    m = build(world_model_config(size, 24, 6))
    parts = (m.encoder, m.dynamics, m.reward_head, m.policy_head, m.q_heads)
    assert tuple(sum(p.numel() for p in part.parameters()) for part in parts) == PARTS[size]
    for (name, sizes), (dims, obs) in zip(EMBEDDING.items(), ((30, 24), (80, 39)), strict=True):
        several = build(world_model_config(size, obs, 6, name, action_dims=(6,) * dims))
        assert several.task_embedding.numel() == sizes[list(PARTS).index(size)]


def test_initial_weights() -> None:
    model = WorldModel(world_model_config(1, 24, 6, episodic=True), torch.Generator().manual_seed(3))
    for name, parameter in model.named_parameters():
        if name.endswith("norm_weight"):
            assert torch.all(parameter == 1), name
        elif name.endswith("bias") or name in (
            "reward_head.layers.2.weight",
            "q_heads.layers.2.weight",
            "target_q_heads.layers.2.weight",
        ):
            assert torch.all(parameter == 0), name
        elif parameter.numel() > 1000:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
            assert abs(parameter.mean().item()) < 0.002, name
    for online, target in zip(model.q_heads.parameters(), model.target_q_heads.parameters(), strict=True):
        assert torch.equal(online, target) and not target.requires_grad
    heads = model.q_heads.layers[0].weight
    assert not torch.equal(heads[0], heads[1])
    z, action = torch.rand(4, 128), torch.rand(4, 6)
    assert torch.all(model.reward(z, action).abs() < 1e-5)
    assert torch.all(model.q_values(z, action).abs() < 1e-5)


def test_seed_decides_weights_and_global_state_is_untouched() -> None:
    config = world_model_config("robot", 9, 3)
    before = torch.get_rng_state()
    a, b = (
        WorldModel(config, torch.Generator().manual_seed(1)),
        WorldModel(config, torch.Generator().manual_seed(1)),
    )
    other = WorldModel(config, torch.Generator().manual_seed(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.dynamics.layers[0].weight, other.dynamics.layers[0].weight)


def test_config_errors_and_round_trip() -> None:
    config = world_model_config(1, 24, 6, "mt30", action_dims=(6, 4) * 15)
    assert from_mapping(WorldModelConfig, json.loads(json.dumps(to_mapping(config))), "test") == config
    with pytest.raises(UserError, match="unknown key 'width'"):
        from_mapping(WorldModelConfig, {**to_mapping(config), "width": 3}, "test")
    with pytest.raises(ValueError, match="multiple of simnorm_dim"):
        WorldModelConfig(3, 1, latent_dim=12)
    with pytest.raises(ValueError, match="go together"):
        WorldModelConfig(3, 1, task_dim=96)
    with pytest.raises(ValueError, match="unknown model size"):
        world_model_config(7, 3, 1)
