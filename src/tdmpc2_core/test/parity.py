"""Numerical fixtures made with the official TD-MPC2 code: inputs, every random draw, outputs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tdmpc2_core.checkpoint.official import load_official
from tdmpc2_core.learning import Batch, LearnerConfig, UpdateDraws
from tdmpc2_core.model import WorldModel
from tdmpc2_core.model.kernels import KernelChoice, kernels

HERE = Path(__file__).parent
SHIPPED = HERE / "fixtures"
STEMS = ("tiny_episodic_5q", "single_1m_obs24_act6", "tiny_multitask_3", "tiny_action_21", "tiny_pixels")
TRAINED = tuple(stem for stem in STEMS if stem != "tiny_action_21")  # those with recorded updates


def folder_of(stem: str) -> Path | None:
    """Where the fixture is: with the tests, in $TDMPC2_FIXTURES, or in ../shared/fixtures."""
    outside = os.environ.get("TDMPC2_FIXTURES") or HERE.parents[2].parent / "shared" / "fixtures"
    for folder in (SHIPPED, Path(outside)):
        if (folder / f"{stem}.npz").is_file():
            return folder
    return None


def available(choice: KernelChoice) -> KernelChoice:
    """The choice; skips the test where compiled kernels are asked for and cannot be compiled."""
    if choice == "auto" and kernels(choice) is None:
        pytest.skip("no C compiler here: no compiled kernels to compare")
    return choice


@dataclass(frozen=True)
class Fixture:
    """One model of the fixtures with its arrays and settings."""

    path: Path
    arrays: dict[str, np.ndarray]
    settings: dict[str, Any]

    @classmethod
    def load(cls, stem: str) -> Fixture:
        """Raises pytest's skip, with the reason, when the fixture is not on this machine."""
        folder = folder_of(stem)
        if folder is None:
            pytest.skip(f"{stem} is not shipped: set TDMPC2_FIXTURES to the folder with {stem}.npz")
        with np.load(folder / f"{stem}.npz") as arrays:
            return cls(folder / f"{stem}.pt", dict(arrays), json.loads((folder / f"{stem}.json").read_text()))

    def model(self) -> WorldModel:
        """The fixture's model with its weights, dropout off."""
        return load_official(self.path, dropout=0.0)

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[name]))

    def get(self, name: str) -> Tensor | None:
        """The array, or None where the fixture has none."""
        return self[name] if name in self.arrays else None

    def learner_config(self, **overrides: Any) -> LearnerConfig:
        """Paper settings with the fixture's horizon and discount."""
        discount = self.settings["discount"]
        several = isinstance(discount, list)
        values = {"task_discounts": tuple(discount)} if several else {"discount": discount}
        return LearnerConfig(**{"horizon": self.settings["horizon"], **values, **overrides})

    def batch(self) -> Batch:
        """The batch of the three updates, every step valid."""
        reward = self["upd_reward"]
        return Batch(
            self["upd_obs"],
            self["upd_action"],
            reward,
            self["upd_terminated"],
            torch.ones_like(reward),
            task=self.get("upd_task"),
        )

    def draws(self, update: int) -> UpdateDraws:
        """Recorded random numbers of update 0, 1 or 2."""
        names = ("td_eps", "td_qidx", "pi_eps", "pi_qidx")
        first, others = self.get(f"upd{update}_shift"), self.get(f"upd{update}_td_shift")
        shifts = None if first is None or others is None else torch.cat([first[None], others]).long()
        return UpdateDraws(*(self[f"upd{update}_{name}"] for name in names), shifts)


def assert_close(actual: Tensor, reference: Tensor, tolerance: float, name: str = "value") -> None:
    """|actual - reference| <= tolerance * (1 + |reference|) everywhere, same shape."""
    assert tuple(actual.shape) == tuple(reference.shape), (
        f"{name}: {tuple(actual.shape)} != {tuple(reference.shape)}"
    )
    error = (
        ((actual.detach().double() - reference.double()).abs() / (1.0 + reference.double().abs()))
        .max()
        .item()
    )
    assert error <= tolerance, f"{name}: relative error {error:.2e} > {tolerance:.0e}"
