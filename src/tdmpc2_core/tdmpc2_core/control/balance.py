"""A policy prior that needs no torch, and a robot that is balanced by it under a command of zero.

For a supervisor: no pose holds a biped that its planner leaves in mid stride, the prior brings it to a stop.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from tdmpc2_core.checkpoint import manifest
from tdmpc2_core.errors import StaleSource, UserError
from tdmpc2_core.robots import ActionMapper, Embodiment, ObservationAssembler, SafetyFilter, SensorState

Array = NDArray[np.float64]
Row = NDArray[np.float32]

_NORM_EPS = 1e-5  # of LayerNorm
_CLIP, _MIN_STD = 10.0, 0.01  # of the observation normaliser


class NumpyPrior:
    """The policy prior's mode of a single-task bundle, in NumPy.

    Raises:
        UserError: no whole bundle, or one of several tasks or of images.
    """

    def __init__(self, path: Path) -> None:
        folder = manifest.find(path)
        content = manifest.read(folder)
        config, weights = content["model"], load(manifest.read_files(folder, content)["weights.safetensors"])
        if content["tasks"] or config["obs_kind"] != "state":
            raise UserError(f"{folder}: a robot is balanced by a bundle of one task that sees states")
        self._robot = content["embodiment"] or {"name": "no robot", "fingerprint": ""}
        self._weights, self._group = weights, int(config["simnorm_dim"])
        self._normalises, self._actions = bool(config["normalise_obs"]), int(config["action_dim"])
        if self._normalises:
            self._mean = weights["normaliser.mean"]
            self._std = np.maximum(np.sqrt(weights["normaliser.variance"]), _MIN_STD)

    def check_robot(self, robot: Embodiment) -> None:
        """Raises UserError: the bundle is of another robot."""
        if self._robot["fingerprint"] != robot.fingerprint:
            raise UserError(f"model: a bundle of {self._robot['name']!r} for a {robot.name!r}; give its own")

    def __call__(self, observation: Row) -> Row:
        """Observation (O,) -> action (A,), normalised."""
        x = observation
        if self._normalises:
            x = np.clip((x - self._mean) / self._std, -_CLIP, _CLIP)
        *hidden, last = self._layers("encoder")
        for layer in hidden:
            x = _mish(self._normed(layer, x))
        groups = self._normed(last, x).reshape(-1, self._group)
        e = np.exp(groups - groups.max(1, keepdims=True))
        x = (e / e.sum(1, keepdims=True)).ravel()
        *hidden, last = self._layers("policy_head")
        for layer in hidden:
            x = _mish(self._normed(layer, x))
        return np.tanh(self._linear(last, x)[: self._actions])

    def _layers(self, network: str) -> list[str]:
        count = sum(name.startswith(f"{network}.") and name.endswith(".weight") for name in self._weights)
        return [f"{network}.layers.{k}" for k in range(count)]

    def _linear(self, layer: str, x: Row) -> Row:
        return np.asarray(self._weights[f"{layer}.weight"] @ x + self._weights[f"{layer}.bias"])

    def _normed(self, layer: str, x: Row) -> Row:
        y = self._linear(layer, x)
        y = (y - y.mean()) / np.sqrt(y.var() + _NORM_EPS)
        return np.asarray(y * self._weights[f"{layer}.norm_weight"] + self._weights[f"{layer}.norm_bias"])


def _mish(x: Row) -> Row:
    return np.asarray(x * np.tanh(np.logaddexp(0.0, x)), np.float32)


class _Uncommanded:
    """The samples of a robot as if nobody commanded it."""

    def __init__(self, sensors: SensorState) -> None:
        self._sensors = sensors
        self.stale_in = sensors.stale_in

    def snapshot(self) -> SimpleNamespace:
        return SimpleNamespace(**vars(self._sensors.snapshot()) | {"command": None})


class Balance:
    """Follows what a planner commands, and goes on from there with a command of zero.

    Args:
        embodiment: the robot, its names as in messages.
        prior: of a bundle for it.
        sensors: the newest samples, written by others.
        now: the time, s, on the clock of their stamps.
    """

    def __init__(
        self, embodiment: Embodiment, prior: NumpyPrior, sensors: SensorState, now: Callable[[], float]
    ) -> None:
        self._prior, self._now = prior, now
        self._sensors, self._alone = sensors, _Uncommanded(sensors)
        self._assembler, self._mapper = ObservationAssembler(embodiment), ActionMapper(embodiment)
        self._safety, self._period = SafetyFilter(embodiment), embodiment.control_period
        self._clock: Array | None = None  # told since the last decision
        self._begun = False  # an observation has been made, and the next one follows it

    def clock(self, row: Array) -> None:
        """The planner's gait clock (3,) at its last decision, which `follow` may not have been told yet."""
        self._clock = row
        self._assembler.set_clock(row)

    def follow(self, targets: Array) -> None:
        """The planner has just decided on targets (J,), rad."""
        if self._observe(self._sensors) is not None:
            self._sent(targets)
        if self._clock is not None:
            self._assembler.set_clock(self._clock)
            self._clock = None

    def targets(self, last: Array) -> Array | None:
        """Targets (1, J), rad, by which the robot comes to a stop and stays upright; once per control period.

        Args:
            last: (J,) rad, that the controller has.

        Returns:
            None where a sensor is stale or the prior gives no number.
        """
        observation = self._observe(self._alone)
        action = None if observation is None else self._prior(observation)
        if action is None or not np.isfinite(action).all():
            return None
        if self._safety.last is None:
            self._safety.reset(last)
        position, wanted = self._sensors.snapshot().joints.position, self._mapper.targets(action, last)
        safe = self._safety.filter(wanted, position, self._period).targets
        self._sent(safe)
        return safe[None]

    def _observe(self, sensors: Any) -> Row | None:
        now = self._now()
        try:
            if not self._begun:
                self._assembler.reset(sensors, now)
            observation = self._assembler.assemble(sensors, now)
        except StaleSource:
            self._begun = False
            return None
        self._begun = True
        return observation

    def _sent(self, targets: Array) -> None:
        self._assembler.record_action(self._mapper.action(targets, self._safety.last))
        self._assembler.record_target(targets)
        self._safety.reset(targets)
