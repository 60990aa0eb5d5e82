"""Recordings of an arm and two cameras, made with the libraries that read them elsewhere.

Message n of a topic of rate r is stamped START + n / r seconds; its record is 2 ms late.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from foundry_core.data.images import encode_jpeg
from tests.lerobot_sets import coded

START = 1_760_000_000 * 10**9
LATE = 2_000_000
JOINTS = ("a", "b", "c")


def joints(number: int) -> np.ndarray:
    return number + np.arange(3) / 10


def ros_messages(store, seconds: float) -> Iterator[tuple[str, int, object]]:
    """(topic, stamp, message); joints change their order with every message."""
    types = {
        name.rpartition("/")[2]: kind
        for name, kind in store.types.items()
        if name != "std_msgs/msg/Time"
    }

    def header(stamp: int):
        time = types["Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        seq = {"seq": 0} if "seq" in types["Header"].__dataclass_fields__ else {}
        return types["Header"](stamp=time, frame_id="", **seq)

    yield "/task", START, types["String"](data="lift it")
    yield "/robot_description", START, types["String"](data="<robot/>")
    for number in range(int(seconds * 50)):
        stamp, turn = START + number * 20_000_000, number % 3
        values = np.roll(joints(number), turn)
        state = types["JointState"](
            header=header(stamp), name=list(np.roll(JOINTS, turn)), position=values,
            velocity=np.array([]), effort=values if number % 2 else np.array([]),
        )  # fmt: skip
        yield "/joints", stamp, state
        gripper = types["Float32"](data=float(number))
        yield "/gripper", stamp, gripper
    for number in range(int(seconds * 20)):
        stamp = START + number * 50_000_000
        data = np.frombuffer(encode_jpeg(coded(0, number), 95), np.uint8)
        yield (
            "/front",
            stamp,
            types["CompressedImage"](header=header(stamp), format="jpeg", data=data),
        )
        rows = np.full((4, 14), 255, np.uint8)
        rows[:, :12] = np.full((4, 6), 1000 + number, ">u2").view(np.uint8)
        yield "/depth", stamp, types["Image"](
            header=header(stamp), height=4, width=6, encoding="16UC1", is_bigendian=1, step=14,
            data=rows.ravel(),
        )  # fmt: skip


def make_bag1(path: Path, compression: str = "LZ4", seconds: float = 2.0) -> Path:
    store = get_typestore(Stores.ROS1_NOETIC)
    writer = Writer1(path)
    writer.set_compression(Writer1.CompressionFormat[compression])
    with writer:
        known = {}
        for topic, stamp, message in ros_messages(store, seconds):
            kind = message.__msgtype__
            if topic not in known:
                known[topic] = writer.add_connection(topic, kind, typestore=store)
            data = bytes(store.serialize_ros1(message, kind))
            writer.write(known[topic], stamp + LATE, data)
    return path


def make_bag2(
    path: Path, storage: str = "SQLITE3", compression: str = "NONE", seconds: float = 2.0
) -> Path:
    store = get_typestore(Stores.ROS2_HUMBLE)
    writer = Writer2(path, version=9, storage_plugin=StoragePlugin[storage])
    if compression != "NONE":
        writer.set_compression(CompressionMode[compression], CompressionFormat.ZSTD)
    with writer:
        known = {}
        for topic, stamp, message in ros_messages(store, seconds):
            kind = message.__msgtype__
            if topic not in known:
                known[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(known[topic], stamp + LATE, bytes(store.serialize_cdr(message, kind)))
    return path


def make_json(path: Path, messages: list[tuple[str, str, int, object]], **options) -> Path:
    """An MCAP file of (topic, type, ns after START, object); bytes become base64."""
    writer = McapWriter(str(path), **{"compression": CompressionType.NONE, **options})
    writer.start()
    known: dict[str, int] = {}
    for topic, kind, time, message in messages:
        if topic not in known:
            schema = writer.register_schema(kind, "jsonschema", b"{}") if kind else 0
            known[topic] = writer.register_channel(topic, "json", schema)
        data = json.dumps(message, default=lambda b: base64.b64encode(b).decode()).encode()
        at = START + time
        writer.add_message(known[topic], log_time=at + LATE, publish_time=at, data=data)
    writer.finish()
    return path
