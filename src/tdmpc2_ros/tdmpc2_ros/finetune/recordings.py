"""What fine-tuning is given: episode stores, and bags, which become one while a goal runs. No ROS imports."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tdmpc2_core.errors import UserError
from tdmpc2_core.robots import Embodiment

_SUFFIXES = (".mcap", ".db3", ".zstd")


class Cancelled(Exception):
    """The goal was cancelled while its bags were read."""


def is_bag(path: Path) -> bool:
    """Whether it is a rosbag2: a folder of one, or a file."""
    if path.is_file():
        return path.suffix in _SUFFIXES
    return path.is_dir() and any(
        file.name == "metadata.yaml" or file.suffix in _SUFFIXES for file in path.iterdir()
    )


@contextmanager
def as_stores(
    data: Sequence[str], robot: Callable[[], Embodiment], report: Callable[[int, int], bool]
) -> Iterator[list[str]]:
    """Folders of episode stores with all of `data`; the one made of the bags is gone afterwards.

    Args:
        robot: what the bags are read as; asked for where there are some.
        report: called before and after each bag with those read and all; False ends it.

    Raises:
        UserError: a bag cannot be read, gives no episode, or the `tdmpc2_core` extra bags is missing.
        Cancelled: `report` said so.
    """
    bags = [path for path in data if is_bag(Path(path))]
    stores = [path for path in data if path not in bags]
    if not bags:
        yield stores
        return
    try:
        from tdmpc2_core.data.bags.convert import convert_bags
    except ImportError as problem:
        raise UserError(f"bags need the extra bags of tdmpc2_core ({problem.name} is missing)") from None
    read = 0

    def tell(_: object = None) -> None:
        if not report(read, len(bags)):
            raise Cancelled

    with tempfile.TemporaryDirectory(prefix="tdmpc2_finetune_") as folder:
        made = []
        for read, bag in enumerate(bags):  # noqa: B007  # `tell` reads it
            tell()
            made.append(str(Path(folder) / f"bag_{read}"))
            convert_bags([bag], robot(), made[-1])
        read = len(bags)
        tell()
        yield [*stores, *made]
