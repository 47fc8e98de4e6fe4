"""What tells a model that foretells its robot as usual from one that does not; a file of the bundle."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tdmpc2_core.errors import UserError

Array = NDArray[np.float32]
FILE = "trust.safetensors"


@dataclass(frozen=True)
class TrustCalibration:
    """Fitted to good runs by `control.gate_fit`, read by `control.gate.TrustGate`.

    W: residuals of a decision, of V inputs; T: time constants that residuals are smoothed with.

    Attributes:
        measured: (X,) entries of the observation that sensors gave at this decision.
        known: (C,) newest entries that are not measured: command, gait phase, previous action.
        residuals: (V, W) linear map from inputs to residuals, of variance 1 on good runs.
        keep: (T,) share of a smoothed residual that the next decision keeps.
        centre: (T, 2 W) mean of the smoothed residuals and of the logarithms of their smoothed squares.
        whiten: (T, 2 W, 2 W) from those less `centre` to independent entries of variance 1.
        unit: (T,) of the mean square whitened entry: its 99.9th percentile on good runs.
        threshold: (1,) of the largest mean square over its unit, that ends trust.
        horizon: (1,) decisions that are foretold.
        false_alarms: (1,) per hour, what the threshold was set for.
        hours: (1,) of good runs that it was set on.
        weights: (32,) sha256 of the weights file that was calibrated.
    """

    measured: NDArray[np.int64]
    known: NDArray[np.int64]
    residuals: Array
    keep: Array
    centre: Array
    whiten: Array
    unit: Array
    threshold: Array
    horizon: NDArray[np.int64]
    false_alarms: Array
    hours: Array
    weights: NDArray[np.uint8]

    def to_bytes(self) -> bytes:
        """The file's content."""
        return save({name: np.ascontiguousarray(value) for name, value in vars(self).items()})

    @staticmethod
    def from_bytes(data: bytes, where: str) -> TrustCalibration:
        """The calibration in a file's content.

        Raises:
            UserError: damaged, of another layout, or with sizes that do not fit each other.
        """
        try:
            found: dict[str, Any] = load(data)
        except (SafetensorError, ValueError, KeyError) as error:
            raise UserError(f"{where}: is no whole safetensors file ({error}); calibrate again") from None
        names = {field.name for field in fields(TrustCalibration)}
        if set(found) != names:
            raise UserError(f"{where}: must hold {', '.join(sorted(names))}; calibrate again")
        calibration = TrustCalibration(**found)
        calibration._check(where)
        return calibration

    def _check(self, where: str) -> None:
        if self.residuals.ndim != 2 or self.keep.ndim != 1:
            raise UserError(f"{where}: residuals or keep have a wrong shape; calibrate again")
        width, times = 2 * self.residuals.shape[1], len(self.keep)
        shapes = {
            "centre": (times, width), "whiten": (times, width, width), "unit": (times,), "weights": (32,),
            **dict.fromkeys(("threshold", "horizon", "false_alarms", "hours"), (1,)),
        }  # fmt: skip
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise UserError(
                    f"{where}: {name} has shape {getattr(self, name).shape}, must be {shape}; calibrate again"
                )
        for name, values in vars(self).items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise UserError(f"{where}: {name} is not finite; calibrate again")
        if int(self.horizon[0]) < 1 or float(self.threshold[0]) <= 0.0:
            raise UserError(f"{where}: horizon and threshold must be above 0; calibrate again")
