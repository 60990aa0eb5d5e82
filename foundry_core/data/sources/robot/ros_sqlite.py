"""The SQLite files of ROS 2 bags."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from foundry_core.data.robot.episodes import UnusableEpisode
from foundry_core.data.sources.robot.ros_chunks import (
    MAX_CHUNK,
    REMOVE,
    DamagedChunk,
    PlainFile,
)
from foundry_core.data.sources.robot.ros_files import Channel, Raw


class SqliteFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels: list[Channel] = []
        self.cut = ""
        self._plain = PlainFile(path)
        self._connection: sqlite3.Connection | None = None

    def messages(self, wanted: Callable[[str], bool]) -> Iterator[Raw]:
        with self._readable() as db:
            topics = self._topics(db)
            self.channels += topics.values()
            for number, topic, time, data in db.execute(
                "SELECT id, topic_id, timestamp, data FROM messages ORDER BY id"
            ):
                channel = topics.get(topic)
                if channel is None or not (isinstance(time, int) and isinstance(data, bytes)):
                    raise DamagedChunk(f"message {number} has no topic, no time or no bytes")
                if wanted(channel.topic):
                    yield Raw(channel=channel, log=time, publish=time, data=data, place=(number,))
        beside = self._plain.path.with_name(self._plain.path.name + "-wal")
        if beside.is_file() and beside.stat().st_size:
            self.cut = f"it was never closed ({beside.name} holds the rest)"

    def fetch(self, place: tuple[int, ...]) -> bytes:
        with self._readable() as db:
            row = db.execute("SELECT data FROM messages WHERE id = ?", place).fetchone()
            return row[0]

    @contextmanager
    def _readable(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._connection is None:
                # Immutable: neither a lock nor a journal is looked for, nothing is written.
                address = f"{self._plain.path.absolute().as_uri()}?mode=ro&immutable=1"
                self._connection = sqlite3.connect(address, uri=True, check_same_thread=False)
                self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CHUNK)
                self._connection.execute("PRAGMA trusted_schema = OFF")
            yield self._connection
        except (sqlite3.Error, DamagedChunk) as error:
            raise UnusableEpisode(f"{self.path} is not readable: {error}", REMOVE) from error

    def _topics(self, db: sqlite3.Connection) -> dict[int, Channel]:
        """By id. Bags from before 2023 hold no definitions."""
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        definitions: dict[str, tuple[str, str]] = {}
        if "message_definitions" in tables:
            for kind, encoding, text in db.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            ):
                definitions[kind] = (encoding, text)
        topics = {}
        for number, name, kind, encoding in db.execute(
            "SELECT id, name, type, serialization_format FROM topics ORDER BY id"
        ):
            if not (isinstance(name, str) and isinstance(kind, str)):
                raise DamagedChunk(f"topic {number} has no name or no type")
            schema_encoding, schema = definitions.get(kind, ("", ""))
            topics[number] = Channel(
                topic=name,
                type=kind,
                encoding=str(encoding),
                schema_encoding=str(schema_encoding),
                schema=str(schema).encode(),
            )
        return topics
