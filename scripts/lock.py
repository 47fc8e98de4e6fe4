"""Print constraints.txt for the environment that runs this: every package pip installed, at its version.

Use: .venv/bin/python scripts/lock.py > scripts/requirements/constraints.txt, after scripts/setup.sh --test
--msgs --docs with changed requirements and an empty constraints.txt. torch and what only its CUDA builds
bring stay out: their versions follow from the build that the user chose.
"""

import re
from importlib.metadata import distributions

HEADER = """\
# Every package of the environment at the version tested, for pip install --constraint. Written by
# scripts/lock.py; the packages asked for, and why at these versions, are in the files beside it."""
LEFT_OUT = re.compile(r"(pip|torch|triton|tdmpc2[-_].*|nvidia-.*|cuda-.*)")


def main() -> None:
    """Print the header and one sorted line for each package."""
    pins = set()
    for distribution in distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        # the ROS 2 wheels carry a second metadata folder for their Python part, which no index knows
        if distribution.read_text("INSTALLER") and not LEFT_OUT.fullmatch(name):
            pins.add(f"{name}=={distribution.version}")
    print("\n".join([HEADER, *sorted(pins)]))


if __name__ == "__main__":
    main()
