"""Files that cost time or memory, or are no files: each is one sentence, soon."""

import dataclasses
import os
import time

import pytest
import yaml
from random_agent import ROBOT, random_bundle

from tdmpc2_core.agent import Agent
from tdmpc2_core.checkpoint.bundle import load_bundle, save_bundle
from tdmpc2_core.config import parse_yaml, read_yaml
from tdmpc2_core.errors import UserError
from tdmpc2_core.planning import PlannerConfig
from tdmpc2_core.robots import Embodiment

BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    "text", [BOMB, "a: " + "[" * 3000, "a: &x [*x]", "? [1, 2]\n: 3", "a: 2024-99-99", "x: " + "1" * 5000]
)
def test_yaml_that_never_ends_is_refused_at_once(text):
    started = time.process_time()
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)
    assert time.process_time() - started < 5.0


def test_anchors_that_a_person_writes_are_fine():
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a")["b"] == {"x": 1, "y": 2}


def test_paths_that_no_file_has_are_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_bytes(b"#" * (1 << 20))
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path, tmp_path / "huge", "a" * 300, "a\0b"):
        with pytest.raises(UserError):
            read_yaml(path)
        with pytest.raises(UserError):
            Agent.load(path)
        with pytest.raises(UserError):
            Embodiment.load(path)


def test_a_bundle_does_not_lead_out_of_its_folder(tmp_path):
    bundle = random_bundle(tmp_path)
    weights = tmp_path / bundle / "weights.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leads out of the bundle"):
        Agent.load(bundle)
    for model in ("../quadruped.xml", "/etc/passwd"):
        with pytest.raises(UserError, match="leads out of"):
            Embodiment.from_dict({**ROBOT.to_dict(), "model": model}, directory=tmp_path)


def test_a_bundle_of_another_control_period_is_refused(tmp_path):
    bundle = load_bundle(random_bundle(tmp_path))
    save_bundle(tmp_path / "slow", dataclasses.replace(bundle, control_period=0.05))
    with pytest.raises(UserError, match="control_period is 0.05 s"):
        Agent.load(tmp_path / "slow")


def test_searches_that_no_memory_holds_are_refused():
    for changes in ({"num_samples": 2_000_000_000}, {"horizon": 100_000_000}):
        with pytest.raises(ValueError, match="must be at most"):
            PlannerConfig(**changes)
    with pytest.raises(ValueError, match="memory grows"):
        dataclasses.replace(PlannerConfig(), num_samples=65536, horizon=100)
