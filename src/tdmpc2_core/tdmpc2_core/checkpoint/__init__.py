"""Checkpoints: the bundle directory of this suite, and files of the official TD-MPC2 code."""

from tdmpc2_core.checkpoint.bundle import (
    FORMAT_VERSION,
    Bundle,
    check_same_robot,
    first_difference,
    load_bundle,
    save_bundle,
)
from tdmpc2_core.checkpoint.official import load_official

__all__ = [
    "FORMAT_VERSION",
    "Bundle",
    "check_same_robot",
    "first_difference",
    "load_bundle",
    "load_official",
    "save_bundle",
]
