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
from tdmpc2_core.replay.along import Along, worst
from tdmpc2_core.robots import Embodiment


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


def test_the_worst_ten_seconds_are_those_that_were_made_worst():
    steps, calm = 1500, np.full(1500, 1.0)
    planned = np.zeros((steps, 2))
    recorded = np.full((steps, 2), 0.1)
    recorded[700:1200] = 0.9  # 10 s at 50 Hz
    along = Along(
        time=0.02 * np.arange(steps),
        episode=np.zeros(steps, np.int64),
        planned=planned,
        recorded=recorded,
        reward_predicted=calm,
        reward=np.full(steps, np.nan),
        latent=calm[:, None],
        disagreement=calm,
        consistency=calm,
        trust=calm,
        value=calm,
        value_recorded=calm,
        period=0.02,
    )
    found = worst(along)
    assert (found.start, found.seconds) == (pytest.approx(14.0), pytest.approx(10.0))
    assert "planned and recorded" in found.why


def test_another_robots_bundle_is_refused_in_a_sentence(tmp_path, capsys):
    made = record(5)
    convert_bags([write_bag(tmp_path / "bag", made.entries)], made.robot, tmp_path / "store")
    arm = random_bundle(tmp_path, Embodiment.load("arm"))
    assert main(["replay", str(tmp_path / "store"), "--bundle", arm]) == 2
    assert "use what the same robot recorded" in capsys.readouterr().err
