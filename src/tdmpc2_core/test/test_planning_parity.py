"""The planner repeats recorded calls of the official code: same draws, same values, mean and action."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdmpc2_core.checkpoint.official import load_official
from tdmpc2_core.planning import MPPI, PlanDraws, planner_preset

HERE = Path(__file__).parent / "fixtures"
FOLDERS = [
    HERE,
    Path(os.environ.get("TDMPC2_FIXTURES", HERE)),
    Path(__file__).parents[4] / "shared" / "fixtures",
]


def recorded(stem: str) -> tuple[Path, dict[str, Any]]:
    """Folder and arrays of one recording, or a skip that says where it was looked for."""
    for folder in FOLDERS:
        if (folder / f"{stem}.npz").is_file() and (folder / f"{stem}.pt").is_file():
            return folder, dict(np.load(folder / f"{stem}.npz"))
    pytest.skip(f"no {stem}.npz in {', '.join(map(str, FOLDERS))}; set TDMPC2_FIXTURES to its folder")


def draws(arrays: dict[str, Any], prefix: str) -> PlanDraws:
    """The recorded random numbers with a robot axis."""

    def get(name: str) -> torch.Tensor:
        return torch.from_numpy(arrays[prefix + name])

    final = get("final_noise").unsqueeze(0) if f"{prefix}final_noise" in arrays else None
    return PlanDraws(
        prior=get("pi_eps").unsqueeze(1),
        samples=get("sample_noise").unsqueeze(2),
        terminal=get("value_pi_eps").unsqueeze(1),
        heads=get("q_idx"),
        elite=get("gumbel_exponential").unsqueeze(0),
        final=final,
    )


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("stem", ["tiny_episodic_5q", "single_1m_obs24_act6"])
def test_three_calls_in_sequence(stem: str, fused: bool) -> None:
    folder, arrays = recorded(stem)
    described = json.loads((folder / f"{stem}.json").read_text())
    model = load_official(folder / f"{stem}.pt", dropout=0.0)
    assert planner_preset("paper").iterations == described["iterations"]
    planner = MPPI(model, planner_preset("paper"), described["discount"], torch.Generator(), fused=fused)
    for call in range(3):
        prefix = f"plan_{call}_"
        if call:
            previous = torch.from_numpy(arrays[prefix + "prev_mean_in"])
            torch.testing.assert_close(planner._mean.squeeze(1), previous, atol=1e-3, rtol=1e-3)
        plan = planner.plan(
            torch.from_numpy(arrays[prefix + "obs"]).unsqueeze(0),
            torch.tensor([bool(arrays[prefix + "t0"])]),
            evaluate=bool(arrays[prefix + "eval"]),
            draws=draws(arrays, prefix),
        )
        values = torch.stack(plan.trace).squeeze(1)
        reference = torch.from_numpy(arrays[prefix + "values"]).squeeze(-1)
        error = (values - reference).abs() / (1 + reference.abs())
        assert error.max() < 1e-3, f"call {call}: values"
        want = torch.from_numpy(arrays[prefix + "mean_out"])
        torch.testing.assert_close(plan.mean.squeeze(0), want, atol=1e-3, rtol=1e-3)
        want = torch.from_numpy(arrays[prefix + "action"])
        torch.testing.assert_close(plan.action.squeeze(0), want, atol=1e-3, rtol=1e-3)
