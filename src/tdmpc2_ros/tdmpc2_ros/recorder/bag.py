"""Writes a rosbag2 that survives being killed, in one or several files. No ROS imports.

With every `checkpoint` the messages go to the file and then metadata.yaml is replaced as a whole: what was
checkpointed is a complete bag at any time, also after SIGKILL. Layout: rosbag2 metadata version 9, as ROS 2
Jazzy and later write it.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from tdmpc2_core.errors import UserError
from tdmpc2_core.files import write_text
from tdmpc2_ros.recorder.mcap_file import McapFile
from tdmpc2_ros.recorder.sqlite_file import METADATA_VERSION, SqliteFile
from tdmpc2_ros.recorder.storage import BagFile, Topic

T = TypeVar("T")
Storage = Literal["mcap", "sqlite3"]
_FILES: Mapping[str, type[BagFile]] = {"mcap": McapFile, "sqlite3": SqliteFile}
_RESERVE = 1 << 16  # bytes kept for metadata.yaml, which a full disk must not refuse
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times as fast, where libyaml is
_PENDING = 1 << 22  # bytes after which messages go to the disk before the next checkpoint


@dataclass(frozen=True)
class Splitting:
    """When a new file begins, and which are kept; 0: never, and all.

    ring: s of the newest messages that are kept at least; older files are deleted.
    """

    size: int = 0  # bytes
    duration: float = 0.0  # s
    ring: float = 0.0

    @property
    def seconds(self) -> float:
        """After which a new file begins: a ring is made of six files or more."""
        parts = [limit for limit in (self.duration, self.ring / 6.0) if limit > 0.0]
        return min(parts, default=0.0)


@dataclass
class _Part:
    """One file: its name and what is in it."""

    name: str
    first: int = 0  # stamps, ns
    last: int = 0
    counts: Counter[int] = field(default_factory=Counter)

    def note(self, topic: int, timestamp: int) -> None:
        self.first = min(self.first, timestamp) if self.counts else timestamp
        self.last = max(self.last, timestamp)
        self.counts[topic] += 1

    def copy(self) -> _Part:
        return _Part(self.name, self.first, self.last, Counter(self.counts))


class BagWriter:
    """A new bag in the folder `path`.

    Raises:
        UserError: the folder exists or cannot be made; later, when the disk refuses. The bag is closed then,
            whole up to the last checkpoint.
    """

    def __init__(
        self, path: str | os.PathLike[str], storage: Storage = "mcap", splitting: Splitting | None = None
    ) -> None:
        self.path, self.storage = Path(path), storage
        self._splitting = splitting or Splitting()
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self._topics: list[Topic] = []
        self._latest: dict[int, bytes] = {}  # of topics that every file repeats
        self._parts: deque[_Part] = deque()
        self._committed = _Part("")  # the newest part as it is on disk
        self._made, self._unwritten, self.closed = 0, 0, False
        self.remarks: dict[str, str] = {}  # go into the metadata
        make_folder(self.path)
        self._reserve = self.path / ".reserve"
        self._guarded(lambda: self._reserve.write_bytes(b"\1" * _RESERVE))
        self._guarded(self._begin)
        self.checkpoint()

    def add_topic(self, name: str, kind: str, own_definition: str = "", repeat: bool = False) -> int:
        """Register a topic (`kind` such as sensor_msgs/msg/Imu); returns the number for `write`.

        Types that do not come with ROS 2 need their definition, the content of the .msg file. `repeat`: every
        file begins with the topic's last message, as that of a latched topic may be the only one.
        """
        if own_definition and kind not in self._types.types:
            self._types.register(get_types_from_msg(own_definition, kind))
        definition, _ = self._types.generate_msgdef(kind, ros_version=2)
        number, digest = len(self._topics) + 1, self._types.hash_rihs01(kind)
        topic = Topic(number, name, kind, definition, digest, repeat)
        self._topics.append(topic)
        self._guarded(lambda: self._file.add_topic(topic))
        return number

    def write(self, topic: int, timestamp: int, data: bytes) -> None:
        """Add one message: CDR bytes received at `timestamp`, ns."""
        limits, part = self._splitting, self._parts[-1]
        age = 1e-9 * (timestamp - part.first) if part.counts else 0.0
        if (limits.size and self._file.size >= limits.size) or (limits.seconds and age >= limits.seconds):
            self.split(timestamp)
        self._put(topic, timestamp, data)
        if self._topics[topic - 1].repeat:
            self._latest[topic] = bytes(data)
        if self._unwritten > _PENDING:
            self.checkpoint()

    def split(self, timestamp: int) -> None:
        """Go on in a new file; drop the files that the ring no longer needs."""
        self._guarded(self._end)
        self._guarded(self._begin)
        for topic, data in self._latest.items():
            self._put(topic, timestamp, data)
        dropped = self._drop_old(timestamp)
        self.checkpoint()  # first: metadata names no file that is not there
        for part in dropped:
            (self.path / part.name).unlink(missing_ok=True)

    def save(self, target: Path, timestamp: int) -> int:
        """Keep all that is in the bag now as another one, in the new folder `target`; recording goes on.

        Files are linked, which takes no time and no space. Returns the number of messages.

        Raises:
            UserError: `target` exists, or its file system does not take links of this one's.
        """
        make_folder(target)
        self.split(timestamp)
        kept = []
        try:
            for number, part in enumerate(list(self._parts)[:-1]):
                copy = part.copy()
                copy.name = f"{target.resolve().name}_{number}{_FILES[self.storage].suffix}"
                os.link(self.path / part.name, target / copy.name)
                kept.append(copy)
            write_text(target / "metadata.yaml", self._yaml(kept))
        except OSError as error:
            raise UserError(f"{target}: cannot be saved ({error.strerror or error})") from None
        return sum(part.counts.total() for part in kept)

    @property
    def counts(self) -> dict[str, int]:
        """Messages per topic in the files that are kept."""
        total: Counter[int] = sum((part.counts for part in self._parts), Counter())
        return {topic.name: total[topic.number] for topic in self._topics}

    def checkpoint(self) -> None:
        """Make all that was written so far a complete bag on disk."""
        self._guarded(self._commit)

    def close(self) -> None:
        """Finish the bag; nothing when it is closed."""
        if self.closed:
            return
        self._guarded(self._end)
        self._guarded(self._write_metadata)
        self.closed = True
        self._reserve.unlink(missing_ok=True)

    # ---- parts ----

    def _begin(self) -> None:
        name = f"{self.path.resolve().name}_{self._made}{_FILES[self.storage].suffix}"
        self._file = _FILES[self.storage](self.path / name)
        self._made += 1
        self._parts.append(_Part(name))
        for topic in self._topics:
            self._file.add_topic(topic)

    def _end(self) -> None:
        self._file.close(_dump(self._information([self._parts[-1]])))
        self._committed = self._parts[-1].copy()

    def _put(self, topic: int, timestamp: int, data: bytes) -> None:
        self._guarded(lambda: self._file.write(topic, timestamp, data))
        self._parts[-1].note(topic, timestamp)
        self._unwritten += len(data)

    def _drop_old(self, now: int) -> list[_Part]:
        """Files that are no longer of the ring: those after them reach back far enough."""
        reach, dropped = now - int(1e9 * self._splitting.ring), list[_Part]()
        while self._splitting.ring and len(self._parts) > 1 and self._parts[1].counts:
            if self._parts[1].first > reach:
                break
            dropped.append(self._parts.popleft())
        return dropped

    def _commit(self) -> None:
        self._file.checkpoint()
        self._committed, self._unwritten = self._parts[-1].copy(), 0
        self._write_metadata()

    def _write_metadata(self) -> None:
        parts = list(self._parts)
        parts[-1] = self._committed if self._committed.name == parts[-1].name else parts[-1]
        write_text(self.path / "metadata.yaml", self._yaml(parts))

    def _guarded(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except (OSError, sqlite3.Error) as error:
            self._give_up()
            raise UserError(
                f"{self.path}: the bag cannot be written any more ({error}) and ends with its last whole "
                "second; free the disk and start the recorder again"
            ) from None

    def _give_up(self) -> None:
        """Close the bag as it was at the last checkpoint, metadata and content alike."""
        if self.closed:
            return
        self.closed = True
        self._reserve.unlink(missing_ok=True)
        if self._parts:
            self._file.abandon()
            unfinished = self._parts.pop()
            if self._committed.name == unfinished.name:
                self._parts.append(self._committed)
            else:  # the disk refused a new file
                (self.path / unfinished.name).unlink(missing_ok=True)
            with suppress(OSError, IndexError):
                self._write_metadata()

    def _yaml(self, parts: list[_Part]) -> str:
        return _dump({"rosbag2_bagfile_information": self._information(parts)})

    def _information(self, parts: list[_Part]) -> dict[str, Any]:
        filled = [part for part in parts if part.counts]
        counts: Counter[int] = sum((part.counts for part in parts), Counter())
        first = min((part.first for part in filled), default=0)
        last = max((part.last for part in filled), default=0)
        return {
            "version": METADATA_VERSION,
            "storage_identifier": self.storage,
            **_span(first, last),
            "message_count": counts.total(),
            "topics_with_message_count": [_listed(each, counts[each.number]) for each in self._topics],
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [part.name for part in parts],
            "files": [
                {
                    "path": part.name,
                    **_span(part.first, part.last),
                    "message_count": part.counts.total(),
                }
                for part in parts
            ],
            "custom_data": self.remarks or None,
            "ros_distro": "jazzy",
        }


def make_folder(path: Path) -> None:
    """Make a folder that is not there yet. Raises UserError."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"{path}: exists already; give a folder that does not exist yet") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be made ({error.strerror}); give a folder that can be written"
        ) from None


def _dump(content: dict[str, Any]) -> str:
    return str(yaml.dump(content, Dumper=_DUMPER, sort_keys=False))


def _span(first: int, last: int) -> dict[str, Any]:
    return {
        "duration": {"nanoseconds": last - first},
        "starting_time": {"nanoseconds_since_epoch": first},
    }


def _listed(topic: Topic, count: int) -> dict[str, Any]:
    metadata = {
        "name": topic.name,
        "type": topic.kind,
        "serialization_format": "cdr",
        "offered_qos_profiles": [],
        "type_description_hash": topic.hash,
    }
    return {"topic_metadata": metadata, "message_count": count}
