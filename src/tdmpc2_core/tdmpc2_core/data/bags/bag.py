"""One rosbag2: its files in order, its topics, its messages read as objects with ROS's attributes."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from tdmpc2_core.data.bags.storage import Channel, Damaged, Message, read_file, whole_message
from tdmpc2_core.errors import SensorError, UserError

_SUFFIXES = (".mcap", ".db3", ".mcap.zst", ".mcap.zstd", ".db3.zst", ".db3.zstd")
_STAMP = {0: struct.Struct(">iI"), 1: struct.Struct("<iI")}  # by the bit of endianness


class Bag:
    """A folder or a single file of rosbag2.

    Attributes:
        notes: one sentence about each part that is missing or not whole, as far as it was read.

    Raises:
        UserError: the path is no bag.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.name = self.path.name or str(self.path.resolve().name)
        self.notes: list[str] = []
        self.files = self._find()
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._known: dict[str, str] = {}  # why a type cannot be read, by type; empty where it can
        self._stamped: dict[str, bool] = {}

    def messages(self, wanted: Callable[[Channel], bool] = lambda channel: True) -> Iterator[Message]:
        """Messages of the wanted topics, file after file."""
        for file in self.files:
            yield from read_file(file, wanted, self._note)

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)

    # ---- files ----

    def _find(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        if not self.path.is_dir():
            raise UserError(f"{self.path}: no such bag; name a folder or file of rosbag2")
        there = [path for path in self.path.iterdir() if path.name.endswith(_SUFFIXES) and path.is_file()]
        listed = [self.path / name for name in self._listed()]
        for path in listed:
            if not path.is_file() and not self._other_form(path, there):
                self._note(f"{path.name}: listed in metadata.yaml, but not there")
        if not there:
            raise UserError(f"{self.path}: holds no .mcap or .db3 file; name a folder or file of rosbag2")
        return sorted(there, key=lambda path: [int(t) if t.isdigit() else t for t in _parts(path.name)])

    @staticmethod
    def _other_form(path: Path, there: Sequence[Path]) -> bool:
        """Whether the file is there compressed, or was unpacked."""
        return any(other.name.startswith(path.name) or path.name.startswith(other.name) for other in there)

    def _listed(self) -> list[str]:
        """File names of metadata.yaml; none where it is missing or not whole."""
        try:
            text = (self.path / "metadata.yaml").read_text(encoding="utf-8")
            names = yaml.safe_load(text)["rosbag2_bagfile_information"]["relative_file_paths"]
            return [Path(str(name)).name for name in names]
        except FileNotFoundError:
            self._note("metadata.yaml is missing; the files are taken in the order of their names")
        except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
            self._note("metadata.yaml is not whole; the files are taken in the order of their names")
        return []

    # ---- messages ----

    def decode(self, message: Message) -> Any:
        """The message as an object. Raises SensorError with one sentence where it is none of its type."""
        channel = message.channel
        problem = self._register(channel)
        if problem:
            raise SensorError(f"{channel.topic}: {problem}")
        try:
            return self._store.deserialize_cdr(whole_message(message.data), channel.kind)
        except Damaged as damage:
            raise SensorError(f"{channel.topic}: a message {damage}") from None
        except Exception as error:  # bytes that are no message raise whatever they lead to
            raise SensorError(
                f"{channel.topic}: a message is no {channel.kind} ({type(error).__name__})"
            ) from None

    def stamp(self, message: Message) -> float | None:
        """Stamp in the header of a message, s, read without the rest; None for a type without one.

        Raises SensorError where the message is too short.
        """
        kind = message.channel.kind
        if kind not in self._stamped:
            self._stamped[kind] = not self._register(message.channel) and self._has_header(kind)
        if not self._stamped[kind]:
            return None
        try:
            data = whole_message(message.data)
            seconds, nanoseconds = _STAMP[data[1] & 1].unpack_from(data, 4)
        except (Damaged, struct.error, IndexError):
            raise SensorError(f"{message.channel.topic}: a message is too short for a stamp") from None
        return float(seconds + nanoseconds * 1e-9)

    def _has_header(self, kind: str) -> bool:
        _, fields = self._store.fielddefs[kind]
        return bool(fields) and fields[0][1][1] == "std_msgs/msg/Header"

    def _register(self, channel: Channel) -> str:
        """Make the type known; why it cannot be read, else empty."""
        kind = channel.kind
        if kind not in self._known:
            if kind not in self._store.fielddefs and channel.definition:
                read = get_types_from_idl if "idl" in channel.encoding else None
                with suppress(Exception):  # a definition that is not one leaves the type unknown
                    types = read(channel.definition) if read else get_types_from_msg(channel.definition, kind)
                    new = {name: value for name, value in types.items() if name not in self._store.fielddefs}
                    self._store.register(new)
            known = kind in self._store.fielddefs
            self._known[kind] = "" if known else f"type {kind or 'unnamed'} is not defined in the bag"
        return self._known[kind]


def _parts(name: str) -> list[str]:
    return re.split(r"(\d+)", name)
