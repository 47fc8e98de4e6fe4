"""The checkpoint bundle: complete, atomic, and every damage ends in one sentence."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from planning_support import small_model

from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint import manifest
from tdmpc2_core.checkpoint.bundle import Bundle, load_bundle, read_weights, save_bundle
from tdmpc2_core.errors import UserError
from tdmpc2_core.files import shipped_bundle
from tdmpc2_core.planning import PlannerConfig
from tdmpc2_core.robots import Embodiment

ROBOT = Embodiment.load("quadruped")


def bundle(robot: bool = True, seed: int = 0) -> Bundle:
    sizes = (ROBOT.observation_dim, ROBOT.action_dim) if robot else (9, 4)
    model = small_model(*sizes, seed=seed)
    return Bundle(
        weights=model.state_dict(),
        model_config=model.config,
        planner=PlannerConfig(num_samples=32, num_elites=4),
        discount=0.98,
        control_period=0.02,
        embodiment=ROBOT if robot else None,
        measured=({"preset": "tiny", "return": 11.5},),
        provenance={"command": "tdmpc2 train", "steps": 3, "returns": [1.0, float("nan")], "path": Path("x")},
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_bundle(tmp_path / "b", bundle())
    return tmp_path / "b"


def edit(path: Path, change: Any) -> None:
    """Change bundle.json's content and renew its checksum."""
    content = manifest.read(path)
    change(content)
    manifest.write(path, content)


@pytest.mark.parametrize(("score", "warned"), [("terminal", 0), ("depth_average", 1)])
def test_a_bundle_with_a_setting_that_is_gone_still_loads(
    saved: Path, score: str, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    edit(saved, lambda content: content["planner"].update(score=score))
    assert load_bundle(saved).planner == bundle().planner
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == warned and all("planner.score: 'depth_average' is offered no more" in s for s in said)


def replace_weights(path: Path, change: Any) -> None:
    weights = safetensors.torch.load_file(path / "weights.safetensors")
    change(weights)
    data = safetensors.torch.save(weights)
    (path / "weights.safetensors").write_bytes(data)
    edit(path, lambda content: content["files"].update({"weights.safetensors": manifest.digest(data)}))


def test_round_trip(saved: Path) -> None:
    want, have = bundle(), load_bundle(saved)
    assert have.model_config == want.model_config and have.planner == want.planner
    assert (have.discount, have.control_period, have.measured) == (0.98, 0.02, want.measured)
    assert have.embodiment == ROBOT and have.embodiment.model_path.is_file()
    assert have.embodiment.model_path.is_relative_to(saved)
    assert have.provenance["returns"] == [1.0, None] and "torch" in have.provenance["versions"]
    for name, value in want.weights.items():
        torch.testing.assert_close(have.weights[name], value, rtol=0, atol=0)


def test_it_carries_the_robot_files_and_plain_json(saved: Path) -> None:
    names = {p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file()}
    assert {
        "bundle.json",
        "weights.safetensors",
        "embodiment/embodiment.yaml",
        "embodiment/quadruped.xml",
    } <= names
    content = json.loads((saved / "bundle.json").read_text())["content"]
    assert content["embodiment"]["fingerprint"] == ROBOT.fingerprint
    assert content["embodiment"]["description"]["name"] == "quadruped"


def test_without_a_robot_and_with_one_that_has_no_folder(tmp_path: Path) -> None:
    save_bundle(tmp_path / "a", bundle(robot=False))
    assert load_bundle(tmp_path / "a").embodiment is None
    loose = Embodiment.from_dict(ROBOT.to_dict())
    save_bundle(tmp_path / "b", Bundle(**{**vars(bundle()), "embodiment": loose}))
    assert load_bundle(tmp_path / "b").embodiment == ROBOT


def test_an_older_bundle_is_replaced_and_nothing_is_left_over(saved: Path) -> None:
    save_bundle(saved, bundle(seed=1))
    want = bundle(seed=1).weights["dynamics.layers.0.weight"]
    torch.testing.assert_close(load_bundle(saved).weights["dynamics.layers.0.weight"], want, rtol=0, atol=0)
    assert [p.name for p in saved.parent.iterdir()] == ["b"]


def test_a_failed_save_keeps_the_older_bundle(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "write_file", refuse)
    with pytest.raises(UserError, match="No space left"):
        save_bundle(saved, bundle(seed=1))
    monkeypatch.undo()
    load_bundle(saved)
    assert [p.name for p in saved.parent.iterdir()] == ["b"]


def test_an_interrupted_replacement_is_still_found(saved: Path) -> None:
    saved.rename(saved.parent / ".b.previous")
    save_bundle(saved, load_bundle(saved))
    load_bundle(saved)


def test_other_directories_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="no bundle"):
        save_bundle(tmp_path / "home", bundle())
    assert (tmp_path / "home" / "thesis.tex").exists()


def test_non_finite_weights_are_neither_saved_nor_loaded(saved: Path) -> None:
    bad = bundle()
    bad.weights["dynamics.layers.0.bias"][3] = torch.nan
    with pytest.raises(UserError, match="dynamics.layers.0.bias"):
        save_bundle(saved, bad)
    replace_weights(saved, lambda w: w["dynamics.layers.0.bias"].fill_(torch.inf))
    with pytest.raises(UserError, match="dynamics.layers.0.bias.* not finite"):
        load_bundle(saved)


def resized(weights: dict[str, torch.Tensor]) -> None:
    weights["policy_head.layers.0.weight"] = torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: shutil.rmtree(p), "no such bundle"),
        (lambda p: (p / "bundle.json").unlink(), "has no bundle.json"),
        (lambda p: (p / "weights.safetensors").unlink(), "weights.safetensors: no such file"),
        (lambda p: (p / "embodiment/quadruped.xml").unlink(), "quadruped.xml: no such file"),
        (lambda p: (p / "bundle.json").write_text("{"), "broken JSON"),
        (lambda p: (p / "bundle.json").write_text("[]"), "format"),
        (lambda p: (p / "weights.safetensors").write_bytes(b"x" * 100), "damaged"),
        (lambda p: replace_weights(p, resized), r"policy_head.layers.0.weight.*\(3, 3\)"),
        (
            lambda p: replace_weights(p, lambda w: w.pop("reward_head.layers.2.bias")),
            "reward_head.layers.2.bias.*missing",
        ),
        (lambda p: replace_weights(p, lambda w: w.update(extra=torch.ones(2))), "extra.*none of that name"),
        (
            lambda p: edit(p, lambda c: c["model"].update(mlp_dim=64)),
            "the model configuration needs one of shape",
        ),
        (lambda p: edit(p, lambda c: c["model"].update(depth=3)), "depth"),
        (lambda p: edit(p, lambda c: c["model"].update(latent_dim="big")), "bundle.json"),
        (lambda p: edit(p, lambda c: c["model"].update(latent_dim=-8)), "bundle"),
        (lambda p: edit(p, lambda c: c["planner"].update(horizon=0)), "horizon"),
        (lambda p: edit(p, lambda c: c.update(discount=1.5)), "discount"),
        (lambda p: edit(p, lambda c: c.pop("planner")), "planner"),
        (lambda p: edit(p, lambda c: c.update(planner=3)), "planner"),
        (lambda p: edit(p, lambda c: c.update(model=None)), "bundle.json"),
        (
            lambda p: edit(
                p,
                lambda c: c.update(
                    embodiment=7, files={"weights.safetensors": c["files"]["weights.safetensors"]}
                ),
            ),
            "bundle.json",
        ),
        (lambda p: edit(p, lambda c: c["files"].update({"../../secret": "0"})), "outside"),
        (lambda p: edit(p, lambda c: c["files"].clear()), "weights.safetensors"),
    ],
)
def test_every_damage_is_one_sentence(saved: Path, change: Any, words: str) -> None:
    change(saved)
    with pytest.raises(UserError, match=words) as caught:
        Agent.load(saved)
    assert "\n" not in str(caught.value) and str(saved) in str(caught.value)


def test_a_newer_format_says_what_to_update(saved: Path) -> None:
    document = json.loads((saved / "bundle.json").read_text())
    (saved / "bundle.json").write_text(json.dumps({**document, "version": 99}))
    with pytest.raises(UserError, match="99.*update tdmpc2-core"):
        load_bundle(saved)


def test_an_edited_discount_is_noticed(saved: Path) -> None:
    text = (saved / "bundle.json").read_text()
    (saved / "bundle.json").write_text(text.replace('"discount": 0.98', '"discount": 0.18'))
    with pytest.raises(UserError, match="changed"):
        load_bundle(saved)


def test_a_checkpoint_of_another_robot_names_both_and_the_field(saved: Path) -> None:
    other = ROBOT.to_dict()
    other["name"] = "spot"
    other["joints"]["list"][3]["kp"] = 99.0
    with pytest.raises(UserError, match=r"'quadruped'.*'spot'.*joints\[3\].kp is [0-9.]+ .* 99.0 here"):
        Agent.load(saved, embodiment=Embodiment.from_dict(other))


def test_settings_a_policy_does_not_depend_on_may_differ(saved: Path) -> None:
    other = ROBOT.to_dict()
    other["name"] = "twin"
    other["observation"]["terms"][0]["noise"] = 0.5
    assert Agent.load(saved, embodiment=Embodiment.from_dict(other)).embodiment.name == "twin"


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """One random bit flipped, or the end cut off."""
    if rng.random() < 0.3:
        return data[: rng.integers(len(data))]
    damaged = bytearray(data)
    damaged[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def test_random_damage_never_raises_anything_else(saved: Path) -> None:
    rng = np.random.default_rng(0)
    files = sorted(p for p in saved.rglob("*") if p.is_file())
    refused = 0
    for _ in range(200):
        path = files[rng.integers(len(files))]
        good = path.read_bytes()
        path.write_bytes(flip(good, rng))
        try:
            Agent.load(saved)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
        path.write_bytes(good)
    assert refused > 190
    load_bundle(saved)


def test_random_damage_behind_the_checksum_never_raises_anything_else() -> None:
    rng = np.random.default_rng(1)
    good = safetensors.torch.save({"a": torch.ones(4, 4), "b": torch.zeros(3)})
    for _ in range(400):
        with contextlib.suppress(UserError):
            read_weights(Path("w"), flip(good, rng))


def test_robot_without_model_is_one_sentence():
    with pytest.raises(UserError, match="no trained bundle"):
        shipped_bundle("no_such_robot")
