"""Writes a rosbag2 (sqlite3 storage) that survives being killed. No ROS imports.

Messages are committed to the database with every `checkpoint`, after which metadata.yaml is replaced as a
whole: what was checkpointed is a complete bag at any time, also after SIGKILL. Layout: rosbag2 metadata
version 9 and storage schema version 4, as ROS 2 Jazzy and later write them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from tdmpc2_core.errors import UserError
from tdmpc2_core.files import write_text

T = TypeVar("T")
_SCHEMA = """
CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
  serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL,
  type_description_hash TEXT NOT NULL);
CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL,
  encoding TEXT NOT NULL, encoded_message_definition TEXT NOT NULL, type_description_hash TEXT NOT NULL);
CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,
  data BLOB NOT NULL);
CREATE INDEX timestamp_idx ON messages (timestamp ASC);
INSERT INTO schema(schema_version, ros_distro) VALUES (4, 'jazzy');
"""
_VERSION = 9


@dataclass
class _Topic:
    name: str
    kind: str
    hash: str
    count: int = 0


class BagWriter:
    """A new bag in the folder `path`.

    Raises:
        UserError: the folder exists or cannot be made; later, when the disk refuses.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self._topics: list[_Topic] = []
        self._first, self._last = 0, 0
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:
            raise UserError(f"{path}: exists already; give a folder that does not exist yet") from None
        except OSError as error:
            raise UserError(
                f"{path}: cannot be made ({error.strerror}); give a folder that can be written"
            ) from None
        self._file = f"{self.path.resolve().name}_0.db3"
        self._database = self._guarded(lambda: sqlite3.connect(self.path / self._file))
        self._guarded(lambda: self._database.executescript(_SCHEMA))
        self.checkpoint()

    def add_topic(self, name: str, kind: str, own_definition: str = "") -> int:
        """Register a topic (`kind` such as sensor_msgs/msg/Imu); returns the number for `write`.

        Types that do not come with ROS 2 need their definition, the content of the .msg file.
        """
        if own_definition and kind not in self._types.types:
            self._types.register(get_types_from_msg(own_definition, kind))
        definition, _ = self._types.generate_msgdef(kind, ros_version=2)
        digest = self._types.hash_rihs01(kind)
        if kind not in {topic.kind for topic in self._topics}:
            row = (kind, "ros2msg", definition, digest)
            self._execute("INSERT INTO message_definitions VALUES(NULL, ?, ?, ?, ?)", row)
        self._topics.append(_Topic(name, kind, digest))
        number = len(self._topics)
        self._execute("INSERT INTO topics VALUES(?, ?, ?, 'cdr', '', ?)", (number, name, kind, digest))
        return number

    def write(self, topic: int, timestamp: int, data: bytes) -> None:
        """Add one message: CDR bytes received at `timestamp`, ns."""
        self._execute("INSERT INTO messages VALUES(NULL, ?, ?, ?)", (topic, timestamp, data))
        self._topics[topic - 1].count += 1
        self._first = timestamp if not self._first else min(self._first, timestamp)
        self._last = max(self._last, timestamp)

    @property
    def counts(self) -> dict[str, int]:
        """Messages written per topic."""
        return {topic.name: topic.count for topic in self._topics}

    def checkpoint(self) -> None:
        """Make all that was written so far a complete bag on disk."""
        self._guarded(self._database.commit)
        text = yaml.safe_dump({"rosbag2_bagfile_information": self._information()}, sort_keys=False)
        self._guarded(lambda: self._replace(text))

    def close(self) -> None:
        """Finish the bag."""
        text = yaml.safe_dump(self._information(), sort_keys=False)
        self._execute("INSERT INTO metadata VALUES(NULL, ?, ?)", (_VERSION, text))
        self.checkpoint()
        self._database.close()

    def _replace(self, text: str) -> None:
        write_text(self.path / "metadata.yaml", text)

    def _execute(self, statement: str, values: tuple[object, ...]) -> None:
        self._guarded(lambda: self._database.execute(statement, values))

    def _guarded(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"{self.path}: the bag cannot be written any more ({error}); free the disk"
            ) from None

    def _information(self) -> dict[str, Any]:
        start = {"nanoseconds_since_epoch": self._first}
        duration = {"nanoseconds": self._last - self._first}
        count = sum(topic.count for topic in self._topics)
        return {
            "version": _VERSION,
            "storage_identifier": "sqlite3",
            "duration": duration,
            "starting_time": start,
            "message_count": count,
            "topics_with_message_count": [self._topic(topic) for topic in self._topics],
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [self._file],
            "files": [
                {"path": self._file, "starting_time": start, "duration": duration, "message_count": count}
            ],
            "custom_data": None,
            "ros_distro": "jazzy",
        }

    @staticmethod
    def _topic(topic: _Topic) -> dict[str, Any]:
        metadata = {
            "name": topic.name,
            "type": topic.kind,
            "serialization_format": "cdr",
            "offered_qos_profiles": [],
            "type_description_hash": topic.hash,
        }
        return {"topic_metadata": metadata, "message_count": topic.count}
