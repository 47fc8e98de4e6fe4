"""Point the CMake exports of the ROS 2 message wheels at this machine's Python and NumPy headers.

The wheels name the include folders of the machine that built them, and CMake refuses a target whose include
folders do not exist. Run with the interpreter of the environment that holds the wheels; a second run changes
nothing.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy


def main() -> int:
    """Rewrite the include folders of every rosidl_generator_py export in the environment's share folder."""
    folders = f"{sysconfig.get_path('include')};{numpy.get_include()}"
    exports = sorted(Path(sys.prefix, "share").glob("*/cmake/export_*__rosidl_generator_pyExport.cmake"))
    if not exports:
        print(
            f"no rosidl_generator_py exports below {sys.prefix}/share: are the ROS 2 wheels installed?",
            file=sys.stderr,
        )
        return 2
    for export in exports:
        text = export.read_text(encoding="utf-8")
        mended = re.sub(
            r'(INTERFACE_INCLUDE_DIRECTORIES )"[^"]*"', lambda match: f'{match[1]}"{folders}"', text
        )
        if mended != text:
            export.write_text(mended, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
