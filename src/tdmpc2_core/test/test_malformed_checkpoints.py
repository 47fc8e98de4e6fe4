"""Damaged bundles and official files end in a sentence or in a right load; benchmarks has the long search."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from malformed import Originals, attempt


def test_random_damage(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    originals = Originals(tmp_path)
    outcomes = {seed: attempt(originals, tmp_path / "work", seed) for seed in range(150)}
    wrong = {seed: text for seed, (_, text) in outcomes.items() if text not in ("error", "loaded")}
    assert not wrong, "\n".join(f"case {seed}: {text}" for seed, text in wrong.items())
    counts = Counter(outcomes.values())
    assert {kind for kind, _ in outcomes.values()} == {"bytes", "repacked", "state", "bundle"}
    assert sum(number for (_, text), number in counts.items() if text == "error") > 90, counts
