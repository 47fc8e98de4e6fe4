"""docs/reference/differences.md against the presets: every option is there, with the values in the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tdmpc2_core.train.train_config import train_preset

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "differences.md"
ROWS = re.findall(r"^\| `([\w.]+)` \| ([^|]+) \| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), re.M)
DEFECTS = {
    "planner.evaluation",
    "planner.augment_pixels",
    "planner.soft_termination",
    "learner.soft_termination",
    "learner.actor.entropy",
    "replay_sampling",
    "learner.leak_policy_gradient_to_task",
}


def test_every_known_defect_is_listed() -> None:
    assert {path for path, _, _ in ROWS} >= DEFECTS and len(ROWS) > 20


@pytest.mark.parametrize(("path", "paper", "robot"), ROWS, ids=[row[0] for row in ROWS])
def test_columns_are_the_presets(path: str, paper: str, robot: str) -> None:
    for preset, text in (("paper", paper), ("robot", robot)):
        value: object = train_preset(preset)
        for name in path.split("."):
            value = getattr(value, name)
        assert str(value) == text.strip(), f"{preset}: {path}"
