"""Checkpoints: the bundle directory of this suite. `checkpoint.official` reads official TD-MPC2 files."""

from tdmpc2_core.checkpoint.bundle import FORMAT_VERSION, Bundle, load_bundle, save_bundle
from tdmpc2_core.checkpoint.robot_files import check_same_robot, first_difference

__all__ = ["FORMAT_VERSION", "Bundle", "check_same_robot", "first_difference", "load_bundle", "save_bundle"]
