"""Bytes of a message → an object with its parts as attributes (CDR, ROS 1, protobuf) or a dict
(JSON). Definitions come from the recording and are parsed by the libraries."""

import json
import struct
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from google.protobuf.message import DecodeError
from mcap.exceptions import McapError
from mcap.records import Schema
from mcap_protobuf.decoder import DecoderFactory
from rosbags.serde import SerdeError
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)
from rosbags.typesys.msg import normalize_msgtype
from rosbags.typesys.store import Typestore

from foundry_core.config.suggest import nearest
from foundry_core.data.robot.episodes import UnusableEpisode
from foundry_core.data.sources.robot.ros_chunks import unpacked_message
from foundry_core.data.sources.robot.ros_files import Channel

_IDL = "=" * 80 + "\n"
# What the libraries raise for bytes that are no such message, or definitions that are none.
_FAILURES = (
    SerdeError, TypesysError, McapError, DecodeError, struct.error, ValueError, LookupError,
    TypeError, AttributeError, AssertionError, RecursionError, MemoryError, OverflowError,
)  # fmt: skip


class Decoder:
    """Of one recording's messages."""

    def __init__(self) -> None:
        self._decode = cache(_decoder)

    def __call__(self, channel: Channel, data: bytes) -> Any:
        """UnusableEpisode names the topic and what is wrong with the bytes."""
        try:
            plain = unpacked_message(data) if channel.encoding == "cdr" else data
            return self._decode(channel)(plain)
        except _FAILURES as error:
            raise UnusableEpisode(
                f"{channel.topic}: a message is no {channel.type or 'object'}: {error!r}"[:500],
                "record or fetch it again, or leave the topic out",
            ) from error


def _decoder(channel: Channel) -> Callable[[bytes], Any]:
    if channel.encoding == "json":
        return json.loads
    if channel.encoding == "protobuf":
        schema = Schema(id=1, name=channel.type, encoding="protobuf", data=channel.schema)
        decode = DecoderFactory().decoder_for("protobuf", schema)
        assert decode is not None  # by what it is given
        return decode
    if channel.encoding not in ("cdr", "ros1"):
        encodings = ("cdr", "ros1", "protobuf", "json")
        raise UnusableEpisode(
            f"{channel.topic} is encoded as {channel.encoding!r}",
            nearest(channel.encoding, encodings),
        )
    kind = normalize_msgtype(channel.type)
    store = _store(channel, kind)
    read = store.deserialize_cdr if channel.encoding == "cdr" else store.deserialize_ros1
    return partial(read, typename=kind)


def _store(channel: Channel, kind: str) -> Typestore:
    """The channel's types. Old bags define none: those that ROS 2 Humble ships."""
    text = channel.schema.decode()
    if not text:
        return get_typestore(Stores.ROS2_HUMBLE)
    store = get_typestore(Stores.EMPTY)
    if channel.schema_encoding != "ros2idl":
        store.register(get_types_from_msg(text, kind))
        return store
    parts = text.split(_IDL)[1:] if text.startswith(f"{_IDL}IDL: ") else [f"IDL:\n{text}"]
    for part in parts:
        store.register(get_types_from_idl(part.partition("\n")[2]))
    return store
