"""Calibration: what is chosen on machines whose speed the test sets, and that real plans are timed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planning_support import small_model

from tdmpc2_core import calibration
from tdmpc2_core.agent import Agent
from tdmpc2_core.calibration import calibrate
from tdmpc2_core.checkpoint.bundle import load_bundle
from tdmpc2_core.cli import main
from tdmpc2_core.config import to_mapping
from tdmpc2_core.errors import UserError
from tdmpc2_core.planning import PLANNERS, GradientConfig, PlannerConfig, planner_preset

OWN = PlannerConfig(num_samples=128, num_elites=16, num_pi_trajs=24, iterations=3)


def agent(planner: PlannerConfig = OWN, measured: tuple[dict[str, Any], ...] = ()) -> Agent:
    return Agent(small_model(), planner, 0.97, control_period=0.02, measured=measured)


def row(value: float, samples: int) -> dict[str, Any]:
    settings = to_mapping(replace(OWN, num_samples=samples))
    return {"settings": settings, "return": value, "p50 ms": samples / 10}


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch):
    """Sets the seconds that one candidate costs on the machine."""

    def set_to(seconds: float) -> None:
        def times(agent: Agent, config: PlannerConfig, budget: float) -> tuple[float, float]:
            search = 0 if config.method == "policy" else config.num_samples * config.iterations
            return 0.001 + search * seconds, 0.001 + 1.1 * search * seconds

        monkeypatch.setattr(calibration, "_plan_times", times)

    return set_to


def test_own_settings_are_kept_where_they_fit(speed: Any) -> None:
    speed(1e-5)
    found = calibrate(agent(), rate=50)
    assert found.config == OWN and found.budget == pytest.approx(0.012)
    assert str(found) == (
        "mppi 128 samples x 3 for 50 Hz: 4.8 ms, 90 % of plans within 5.2 ms, of 12.0 ms; "
        "the bundle's own settings"
    )


@pytest.mark.parametrize("rate", [100, 200, 400])
def test_a_higher_rate_gets_a_smaller_search_that_fits(speed: Any, rate: float) -> None:
    speed(2e-5)
    found = calibrate(agent(), rate)
    assert found.slow <= found.budget == pytest.approx(0.6 / rate)
    larger = PlannerConfig(num_samples=found.config.num_samples + 40, iterations=found.config.iterations)
    if found.config.method == "mppi":
        assert 0.001 + 1.1 * larger.num_samples * larger.iterations * 2e-5 > found.budget, "no more would fit"
    assert (found.config.method == "policy") == (rate == 400)


def test_best_measured_settings_that_fit_are_taken_and_the_fastest_of_equals(speed: Any) -> None:
    rows = (row(1.0, 64), row(2.0, 128), row(1.99, 96), row(3.0, 512))
    speed(2e-5)
    assert calibrate(agent(measured=rows), rate=50).config.num_samples == 96
    speed(2e-6)
    assert calibrate(agent(measured=rows), rate=50).config.num_samples == 512
    speed(3e-5)
    assert calibrate(agent(measured=rows), rate=50, budget=0.008).config.num_samples == 64
    assert calibrate(agent(measured=rows), rate=50, budget=0.02, measured=()).config == OWN


def test_settings_shrink_step_by_step_to_the_prior() -> None:
    large = replace(planner_preset("large"), prior_weight=0.5, gradient=GradientConfig(seeds=8, iterations=6))
    for method in ("mppi", "gradient", "mppi+gradient"):
        config, steps = replace(large, method=method), 0
        while (smaller := PLANNERS[config.method].cheaper(config)) is not None:
            cost = [
                c.num_samples * c.iterations + 10 * c.gradient.iterations + c.gradient.seeds
                for c in (smaller, config)
            ]
            assert cost[0] < cost[1]
            config, steps = smaller, steps + 1
        assert 5 <= steps < 40
    assert PLANNERS["policy"].cheaper(planner_preset("policy")) is None


@pytest.mark.parametrize("rate", [0.0, -5.0, float("nan"), float("inf")])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(UserError, match="must be above 0"):
        calibrate(agent(), rate)


def test_real_plans_are_timed_and_the_command_writes_a_bundle(tmp_path: Any, capsys: Any) -> None:
    small = replace(OWN, num_samples=32, num_elites=4, num_pi_trajs=4, iterations=1)
    agent(small).save(tmp_path / "bundle")
    command = ["calibrate", str(tmp_path / "bundle"), "--rate", "0.1"]
    assert main([*command, "--out", str(tmp_path / "here")]) == 0
    line = capsys.readouterr().out
    assert line.startswith("mppi 32 samples x 1 for 0.1 Hz: ") and line.count("\n") == 1
    assert load_bundle(tmp_path / "here").planner == small
    found = calibrate(agent(small), rate=0.1)
    assert 0 < found.typical <= found.slow < 6
    assert main([*command[:-1], "1e6"]) == 0
    assert capsys.readouterr().out.startswith("policy prior for 1e+06 Hz: ")
    assert main([*command[:-1], "0"]) == 2
    assert np.isfinite(found.typical)
