"""A file of a bag in MCAP (https://mcap.dev/spec), whole after every checkpoint.

The libraries on PyPI write a file's index and end when it is closed; a process killed before leaves a file
that rosbags refuses. Here each checkpoint replaces the file's tail (index, statistics, footer) by a chunk of
messages and a new tail, in one write. What a full disk leaves of that write is taken back. SIGKILL inside the
write, some tens of microseconds a second, can leave a file without its end, which `mcap recover` mends.
"""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from tdmpc2_ros.recorder.storage import Topic

_MAGIC = b"\x89MCAP0\r\n"
_FIRST = 2**63 - 1  # later than any stamp, ns
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _MESSAGE_INDEX, _CHUNK_INDEX = range(1, 9)
_STATISTICS, _METADATA, _METADATA_INDEX, _SUMMARY_OFFSET, _DATA_END = 0x0B, 0x0C, 0x0D, 0x0E, 0x0F


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data


def _record(kind: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack("<BQ", kind, len(body)) + body


class McapFile:
    """See `storage.BagFile`. Chunks are not compressed and carry no checksum."""

    suffix = ".mcap"

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._schemas: dict[str, bytes] = {}  # records by type
        self._channels: list[bytes] = []
        self._chunk_indices: list[bytes] = []
        self._counts: dict[int, int] = defaultdict(int)
        self._start, self._end = _FIRST, 0
        self._data_end = 0  # where the tail begins
        self._tail = b""
        self._pending: list[bytes] = [_MAGIC, _record(_HEADER, _text("ros2"), _text("tdmpc2"))]
        self._fresh_chunk()

    def _fresh_chunk(self) -> None:
        self._chunk, self._chunk_size = list[bytes](), 0
        self._chunk_start, self._chunk_end = _FIRST, 0
        self._offsets: dict[int, list[tuple[int, int]]] = defaultdict(list)

    @property
    def size(self) -> int:
        """See `BagFile`."""
        return self._data_end + len(self._tail) + self._chunk_size

    def add_topic(self, topic: Topic) -> None:
        """See `BagFile`."""
        if topic.kind not in self._schemas:
            number = struct.pack("<H", len(self._schemas) + 1)
            parts = (number, _text(topic.kind), _text("ros2msg"), _text(topic.definition))
            self._schemas[topic.kind] = _record(_SCHEMA, *parts)
            self._add(self._schemas[topic.kind])
        schema = list(self._schemas).index(topic.kind) + 1
        known = _text("offered_qos_profiles") + _text("") + _text("topic_type_hash") + _text(topic.hash)
        numbers, rest = struct.pack("<HH", topic.number, schema), struct.pack("<I", len(known)) + known
        self._channels.append(_record(_CHANNEL, numbers, _text(topic.name), _text("cdr"), rest))
        self._add(self._channels[-1])

    def write(self, topic: int, timestamp: int, data: bytes) -> None:
        """See `BagFile`."""
        self._offsets[topic].append((timestamp, self._chunk_size))
        self._chunk_start = min(self._chunk_start, timestamp)
        self._chunk_end = max(self._chunk_end, timestamp)
        self._counts[topic] += 1
        number = self._counts[topic] & 0xFFFFFFFF
        self._add(_record(_MESSAGE, struct.pack("<HIQQ", topic, number, timestamp, timestamp), data))

    def _add(self, record: bytes) -> None:
        self._chunk.append(record)
        self._chunk_size += len(record)

    def checkpoint(self, metadata: str = "") -> None:
        """See `BagFile`."""
        if not (self._chunk or self._pending or metadata):
            return
        before = b"".join(self._pending)
        body, index = self._close_chunk(self._data_end + len(before))
        indices = self._chunk_indices + ([index] if index else [])
        start, end = min(self._start, self._chunk_start), max(self._end, self._chunk_end)
        grown = self._data_end + len(before) + len(body)
        tail = self._make_tail(grown, indices, start, end, metadata)
        self._replace_tail(before + body + tail)
        self._data_end, self._tail, self._pending = grown, tail, []
        self._chunk_indices, self._start, self._end = indices, start, end
        self._fresh_chunk()

    def close(self, metadata: str) -> None:
        """See `BagFile`."""
        self.checkpoint(metadata)
        self.abandon()

    def abandon(self) -> None:
        """See `BagFile`."""
        descriptor, self._descriptor = self._descriptor, -1
        with suppress(OSError):
            os.close(descriptor)

    def _replace_tail(self, data: bytes) -> None:
        """One write from the end of the data on; where the disk refuses, the tail before is put back: its
        space is still the file's."""
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, data[written:], self._data_end + written)
        except OSError:
            os.pwrite(self._descriptor, self._tail, self._data_end)
            os.ftruncate(self._descriptor, self._data_end + len(self._tail))
            raise

    def _close_chunk(self, offset: int) -> tuple[bytes, bytes]:
        """The chunk with its message indices, to stand at `offset`, and its index record; or nothing."""
        if not self._chunk:
            return b"", b""
        times = struct.pack("<QQ", self._chunk_start if self._offsets else 0, self._chunk_end)
        records = b"".join(self._chunk)
        sizes = struct.pack("<QI", len(records), 0), struct.pack("<Q", len(records))
        chunk = _record(_CHUNK, times, sizes[0], _text(""), sizes[1], records)
        messages, where = b"", b""
        for topic, entries in self._offsets.items():
            where += struct.pack("<HQ", topic, offset + len(chunk) + len(messages))
            rows = b"".join(struct.pack("<QQ", *entry) for entry in sorted(entries))
            messages += _record(_MESSAGE_INDEX, struct.pack("<HI", topic, len(rows)), rows)
        place = struct.pack("<QQI", offset, len(chunk), len(where)) + where
        lengths = struct.pack("<QQ", len(records), len(records))
        length = struct.pack("<Q", len(messages))
        return chunk + messages, _record(_CHUNK_INDEX, times, place, length, _text(""), lengths)

    def _make_tail(self, offset: int, indices: list[bytes], start: int, end: int, metadata: str) -> bytes:
        """Metadata, end of data, summary and footer, to stand at `offset`."""
        tail, summaries = b"", list[tuple[int, bytes]]()
        if metadata:
            content = _text("serialized_metadata") + _text(metadata)
            tail = _record(_METADATA, _text("rosbag2"), struct.pack("<I", len(content)) + content)
            place = struct.pack("<QQ", offset, len(tail))
            summaries.append((_METADATA_INDEX, _record(_METADATA_INDEX, place, _text("rosbag2"))))
        tail += _record(_DATA_END, struct.pack("<I", 0))
        counts = b"".join(struct.pack("<HQ", *each) for each in sorted(self._counts.items()))
        total = sum(self._counts.values())
        sizes = (total, len(self._schemas), len(self._channels), 0, bool(metadata), len(indices))
        times = struct.pack("<QQI", start if total else 0, end, len(counts))
        summaries = [
            (_SCHEMA, b"".join(self._schemas.values())),
            (_CHANNEL, b"".join(self._channels)),
            (_CHUNK_INDEX, b"".join(indices)),
            *summaries,
            (_STATISTICS, _record(_STATISTICS, struct.pack("<QHIIII", *sizes), times, counts)),
        ]
        summary_start, groups = offset + len(tail), b""
        for kind, records in summaries:
            if records:
                place = struct.pack("<BQQ", kind, offset + len(tail), len(records))
                groups += _record(_SUMMARY_OFFSET, place)
                tail += records
        footer = struct.pack("<QQI", summary_start, offset + len(tail), 0)
        return tail + groups + _record(_FOOTER, footer) + _MAGIC
