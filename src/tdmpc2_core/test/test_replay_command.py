"""`tdmpc2 replay`: a bag and the store that it converts to give the same figures, on a page alone."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from bag_support import record, write_bag
from random_agent import random_bundle

from tdmpc2_core.agent import Agent
from tdmpc2_core.cli import main
from tdmpc2_core.data.bags.convert import convert_bags
from tdmpc2_core.data.episodes import EpisodeStore


def test_a_bag_and_its_store_are_compared_with_the_planner(tmp_path, capsys):
    made, bundle = record(30), random_bundle(tmp_path)
    bag = write_bag(tmp_path / "bag", made.entries)
    convert_bags([bag], made.robot, tmp_path / "store")
    results = []
    for source in (bag, tmp_path / "store"):
        out = tmp_path / f"{source.name}_out"
        words = ["replay", str(source), "--bundle", bundle, "--out", str(out), "--horizon", "3"]
        assert main([*words, "--consistency-limit", "1.0"]) == 0
        results.append(json.loads((out / "replay.json").read_text()))
        page = (out / "replay.html").read_text()
        assert all(link.startswith("data:") for link in re.findall(r'(?:src|href)="([^"]*)"', page))
        assert "data:image/png;base64," in page and "http" not in page.partition("base64")[0]
    assert results[0] == results[1]
    assert "worst" in capsys.readouterr().out and results[0]["worst"]["why"]
    ((episode, _),) = EpisodeStore(tmp_path / "store")
    model = Agent.load(bundle).model
    with torch.no_grad():  # one decision at a time
        z = [model.encode(torch.from_numpy(row)[None]) for row in episode.observation]
        action = torch.from_numpy(episode.action)
        twice = model.next(model.next(z[4], action[4:5]), action[5:6])
        reward = float(model.reward(z[4], action[4:5]))
    variance = float(torch.cat(z).numpy().astype(np.float64).var(0).mean())
    error = float((twice - z[6]).square().mean()) / variance
    assert results[0]["series"]["latent"][4][1] == pytest.approx(error, rel=1e-3)
    assert results[0]["series"]["reward_predicted"][4] == pytest.approx(reward, abs=1e-5)


def test_another_robots_bundle_is_refused_in_a_sentence(tmp_path, capsys):
    bag = write_bag(tmp_path / "bag", record(3).entries[:-1])
    assert main(["replay", str(bag), "--bundle", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
