"""What this machine has, what it lacks, and what to do about it."""

from tdmpc2_core.doctor.finding import Finding, Level
from tdmpc2_core.doctor.report import Parser, run, shown

__all__ = ["Finding", "Level", "Parser", "run", "shown"]
