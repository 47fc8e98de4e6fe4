"""The files of a rosbag2, read once from front to back: MCAP and sqlite3, plain or compressed, whole or cut.

No index, summary or metadata is needed, so that what a killed recorder or a full disk left is read as far as
it is whole. Memory is that of one chunk.
"""

from __future__ import annotations

import shutil
import sqlite3
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, NamedTuple, cast
from urllib.parse import quote

import lz4.frame

from tdmpc2_core.errors import UserError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MCAP, _SQLITE, _ZSTD = b"\x89MCAP0\r\n", b"SQLite format 3\0", b"\x28\xb5\x2f\xfd"
_ROS1 = b"#ROSBAG V"
_LARGEST = 1 << 30  # bytes of a record or chunk; what claims to be larger is damaged
_RECORD, _MESSAGE, _CHUNK = struct.Struct("<BQ"), struct.Struct("<HIQQ"), struct.Struct("<QQQI")
_COPIED = 1 << 20  # bytes at a time


class Channel(NamedTuple):
    """A topic of one file."""

    topic: str
    kind: str  # such as sensor_msgs/msg/Imu
    definition: str  # text of the message type, empty where the file has none
    encoding: str  # of the definition: ros2msg or ros2idl


class Message(NamedTuple):
    """A serialised message, and when the recorder received it (ns)."""

    channel: Channel
    time: int
    data: bytes


Wanted = Callable[[Channel], bool]
Tell = Callable[[str], None]


class Damaged(Exception):
    """The rest of the file, or of the chunk, cannot be read; the text says why."""


def read_file(path: Path, wanted: Wanted, tell: Tell) -> Iterator[Message]:
    """The wanted messages of a file, in the order in which they were written.

    `tell` hears one sentence about every part that is not whole; what comes before it is given.

    Raises:
        UserError: the file is missing, or none of rosbag2.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(16)
            if not magic:
                tell(f"{path.name}: is empty")
                return
            compressed = magic.startswith(_ZSTD)
            file.seek(0)
            stream = cast(IO[bytes], zstd.open(file) if compressed else file)
            if compressed:
                magic = _begin(stream)
                stream.seek(0)
            if magic.startswith(_MCAP):
                yield from _mcap(path.name, stream, wanted, tell)
            elif magic.startswith(_SQLITE):
                yield from _sqlite(path, stream if compressed else None, wanted, tell)
            else:
                raise UserError(f"{path}: {_what(magic)}")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; name a folder or file of rosbag2") from None


def _begin(stream: IO[bytes]) -> bytes:
    try:
        return stream.read(16)
    except (EOFError, zstd.ZstdError):
        return b""


def _what(magic: bytes) -> str:
    if magic.startswith(_ROS1):
        return "a bag of ROS 1; convert it first: rosbags-convert --src FILE --dst FOLDER"
    return "not a file of rosbag2; MCAP and sqlite3 are read"


# ---- MCAP ----


def _mcap(name: str, stream: IO[bytes], wanted: Wanted, tell: Tell) -> Iterator[Message]:
    reader = _McapRecords(wanted)
    try:
        stream.seek(len(_MCAP))
        while (head := stream.read(_RECORD.size)) != b"":
            if len(head) < _RECORD.size:
                if head != _MCAP:  # the magic at a file's end is as long as no record
                    raise Damaged("is cut off in the middle of a record")
                return
            operation, size = _RECORD.unpack(head)
            if operation == 0x02:  # footer
                return
            if size > _LARGEST:
                raise Damaged("holds a record that claims to be larger than 1 GB")
            content = stream.read(size)
            if len(content) < size:
                raise Damaged("is cut off in the middle of a record")
            if operation == 0x0F:  # end of the data; what follows repeats it
                return
            try:
                yield from reader.record(operation, memoryview(content))
            except Damaged as problem:
                tell(f"{name}: a part is left out, as it {problem}")
        raise Damaged("was not finished by its recorder")
    except Damaged as problem:
        tell(f"{name}: {problem}; what comes before is kept")
    except (EOFError, zstd.ZstdError, OSError) as problem:
        tell(f"{name}: compression is cut off or damaged ({problem}); what comes before is kept")


class _McapRecords:
    """Schemas and channels seen so far; messages out of records."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._channels: dict[int, Channel | None] = {}  # None: not wanted

    def record(self, operation: int, content: memoryview) -> Iterator[Message]:
        """Messages that a record holds. Raises Damaged."""
        try:
            if operation == 0x05:
                yield from self._message(content)
            elif operation == 0x06:
                yield from self._chunk(content)
            elif operation == 0x03:
                (number,), texts = struct.unpack_from("<H", content), _Texts(content, 2)
                self._schemas[number] = texts.next(), texts.next(), texts.next()
            elif operation == 0x04:
                number, schema = struct.unpack_from("<HH", content)
                texts = _Texts(content, 4)
                kind, encoding, definition = self._schemas.get(schema, ("", "", ""))
                channel = Channel(texts.next(), kind, definition, encoding)
                self._channels[number] = channel if self._wanted(channel) else None
        except (struct.error, UnicodeDecodeError, IndexError) as problem:
            raise Damaged(f"holds a damaged record ({problem})") from None

    def _message(self, content: memoryview) -> Iterator[Message]:
        number, _, time, _ = _MESSAGE.unpack_from(content)
        channel = self._channels.get(number)
        if channel is not None:
            yield Message(channel, time, bytes(content[_MESSAGE.size :]))

    def _chunk(self, content: memoryview) -> Iterator[Message]:
        _, _, size, checksum = _CHUNK.unpack_from(content)
        texts = _Texts(content, _CHUNK.size)
        records = memoryview(_unpacked(texts.next(), content[texts.at + 8 :], size))
        if len(records) != size or checksum and zlib.crc32(records) != checksum:
            raise Damaged("holds a chunk whose checksum is wrong")
        at = 0
        while at + _RECORD.size <= size:
            operation, length = _RECORD.unpack_from(records, at)
            at += _RECORD.size
            if at + length > size:
                raise Damaged("holds a chunk that ends in the middle of a record")
            if operation in (0x03, 0x04, 0x05):
                yield from self.record(operation, records[at : at + length])
            at += length


class _Texts:
    """Strings that lie one after the other, each behind its length; `at` is where the next begins."""

    def __init__(self, content: memoryview, at: int) -> None:
        self._content, self.at = content, at

    def next(self) -> str:
        (length,) = struct.unpack_from("<I", self._content, self.at)
        begin = self.at + 4
        if begin + length > len(self._content):
            raise IndexError("a text ends behind its record")
        self.at = begin + length
        return str(self._content[begin : self.at], "utf-8")


def _unpacked(compression: str, data: memoryview, size: int) -> bytes | memoryview:
    if size > _LARGEST:
        raise Damaged("holds a chunk that claims to be larger than 1 GB")
    try:
        if compression == "":
            return data
        if compression == "zstd":
            return zstd.ZstdDecompressor().decompress(data, max_length=size)
        if compression == "lz4":
            return bytes(lz4.frame.LZ4FrameDecompressor().decompress(bytes(data), max_length=size))
    except (zstd.ZstdError, RuntimeError, EOFError) as problem:
        raise Damaged(f"holds a chunk that cannot be unpacked ({problem})") from None
    raise Damaged(f"holds a chunk of unknown compression {compression!r}")


def whole_message(data: bytes) -> bytes:
    """A message whose recorder compressed each by itself, unpacked. Raises Damaged."""
    if not data.startswith(_ZSTD):
        return data
    try:
        return zstd.ZstdDecompressor().decompress(data, max_length=_LARGEST)
    except (zstd.ZstdError, EOFError) as problem:
        raise Damaged(f"is compressed and cannot be unpacked ({problem})") from None


# ---- sqlite3 ----


def _sqlite(path: Path, compressed: IO[bytes] | None, wanted: Wanted, tell: Tell) -> Iterator[Message]:
    if compressed is None and not _torn(path):
        yield from _rows(path.name, path, wanted, tell)
        return
    with tempfile.NamedTemporaryFile(suffix=".db3") as copy:  # a database needs random access
        try:
            with path.open("rb") as file:
                shutil.copyfileobj(compressed or file, copy, _COPIED)
        except (EOFError, zstd.ZstdError) as problem:
            tell(f"{path.name}: compression is cut off or damaged ({problem}); what comes before is kept")
        copy.flush()
        if torn := _torn(Path(copy.name)):
            copy.truncate(copy.tell() - torn)
            copy.flush()
        yield from _rows(path.name, Path(copy.name), wanted, tell)


def _torn(path: Path) -> int:
    """Bytes of a page that is not whole at the end: sqlite would read its rest as zeros."""
    with path.open("rb") as file:
        (size,) = struct.unpack_from(">H", file.read(18).ljust(18, b"\0"), 16)
    return path.stat().st_size % (1 << 16 if size == 1 else max(size, 512))


def _rows(name: str, path: Path, wanted: Wanted, tell: Tell) -> Iterator[Message]:
    try:
        with closing(_opened(path)) as database:
            channels = _channels(database, wanted)
            marks = ",".join("?" * len(channels))
            query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks})"
            for number, time, data in database.execute(query, tuple(channels)):
                if isinstance(time, int) and isinstance(data, bytes):
                    yield Message(channels[number], time, data)
    except sqlite3.Error as problem:
        tell(f"{name}: is cut off or damaged ({problem}); what comes before is kept")


def _opened(path: Path) -> sqlite3.Connection:
    """The database, read only; also where its folder may not be written, and where the file is cut."""
    place = quote(str(path.resolve()))
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        database = sqlite3.connect(f"file:{place}?{mode}", uri=True)
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        try:
            database.execute("PRAGMA writable_schema=ON")  # else a file that is too short is not read at all
            database.execute("SELECT count(*) FROM topics").fetchone()
        except sqlite3.OperationalError:
            database.close()
            if mode != "mode=ro":
                raise
        else:
            return database
    raise AssertionError("unreachable")


def _channels(database: sqlite3.Connection, wanted: Wanted) -> dict[int, Channel]:
    try:
        rows = database.execute(
            "SELECT topic_type, encoded_message_definition, encoding FROM message_definitions"
        )
        definitions = {kind: (str(text), str(encoding)) for kind, text, encoding in rows}
    except sqlite3.OperationalError:  # of before Iron
        definitions = {}
    found = {}
    for number, topic, kind in database.execute("SELECT id, name, type FROM topics"):
        channel = Channel(str(topic), str(kind), *definitions.get(kind, ("", "")))
        if wanted(channel):
            found[number] = channel
    return found
