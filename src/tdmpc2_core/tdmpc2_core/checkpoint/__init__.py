"""Checkpoints: the bundle directory of this suite; official TD-MPC2 files are read by `checkpoint.official`."""

from .bundle import FORMAT_VERSION, Bundle, load_bundle, save_bundle
from .robot_files import check_same_robot, first_difference

__all__ = ["FORMAT_VERSION", "Bundle", "check_same_robot", "first_difference", "load_bundle", "save_bundle"]
