"""A file of a bag in sqlite3: storage schema version 4, as ROS 2 Jazzy and later write it.

Messages are committed by every checkpoint; the database's journal restores the last one after SIGKILL.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from tdmpc2_ros.recorder.storage import Topic

METADATA_VERSION = 9
"""Of rosbag2's metadata, as ROS 2 Jazzy and later write it."""

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


class SqliteFile:
    """See `storage.BagFile`."""

    suffix = ".db3"

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        self._database.executescript(_SCHEMA)
        self._kinds: set[str] = set()
        self.size = 0

    def add_topic(self, topic: Topic) -> None:
        """See `BagFile`."""
        if topic.kind not in self._kinds:
            self._kinds.add(topic.kind)
            row = (topic.kind, "ros2msg", topic.definition, topic.hash)
            self._database.execute("INSERT INTO message_definitions VALUES(NULL, ?, ?, ?, ?)", row)
        named = (topic.number, topic.name, topic.kind, topic.hash)
        self._database.execute("INSERT INTO topics VALUES(?, ?, ?, 'cdr', '', ?)", named)

    def write(self, topic: int, timestamp: int, data: bytes) -> None:
        """See `BagFile`."""
        self._database.execute("INSERT INTO messages VALUES(NULL, ?, ?, ?)", (topic, timestamp, data))
        self.size += len(data) + 32  # row and index

    def checkpoint(self) -> None:
        """See `BagFile`."""
        self._database.commit()

    def close(self, metadata: str) -> None:
        """See `BagFile`."""
        self._database.execute("INSERT INTO metadata VALUES(NULL, ?, ?)", (METADATA_VERSION, metadata))
        self._database.commit()
        self._database.close()

    def abandon(self) -> None:
        """See `BagFile`."""
        with suppress(sqlite3.Error):
            self._database.rollback()
        with suppress(sqlite3.Error):
            self._database.close()
