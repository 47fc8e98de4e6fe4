"""Fit a robot model to recorded motion, as `tdmpc2 identify` does. Needs MuJoCo; no ROS, no torch."""

from tdmpc2_core.identification.fit import Found, Identification, IdentifyConfig, identify
from tdmpc2_core.identification.report import as_mapping, report_table, write_report
from tdmpc2_core.identification.robot import check_new, identified_embodiment, write_robot

__all__ = [
    "Found",
    "Identification",
    "IdentifyConfig",
    "as_mapping",
    "check_new",
    "identified_embodiment",
    "identify",
    "report_table",
    "write_report",
    "write_robot",
]
