"""Three small recordings, written as every format has them, and each of their files.

What is damaged is an `Item` before it is written, or a file after that; number VICTIM is the one.
"""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow as pa
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from pyarrow.parquet import write_table
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from foundry_core.data.config import PoseGroup
from foundry_core.data.images import encode_jpeg
from foundry_core.data.sources.base import CaptionFormat, RobotFormat
from foundry_core.data.sources.captions.img2dataset import ImageCaptionTars
from foundry_core.data.sources.captions.scenes import SceneFolder
from foundry_core.data.sources.robot.aloha import Aloha
from foundry_core.data.sources.robot.demonstrations import Demonstrations
from foundry_core.data.sources.robot.lerobot import Lerobot
from foundry_core.data.sources.robot.libero_hdf5 import LiberoHdf5
from foundry_core.data.sources.robot.rlds import Rlds
from foundry_core.data.sources.robot.robomimic import Robomimic
from foundry_core.data.sources.robot.ros import Ros
from foundry_core.data.sources.robot.spartan import Spartan
from foundry_core.data.sources.robot.zarr_replay import ZarrReplay
from tests.data.sources.robot import tfds_files as tfds
from tests.synthetic import npz, picture

LENGTH, SIZE, VICTIM, STEP = 6, 16, 1, 3
HZ = 10
START = 1_760_000_000 * 10**9
# Frames in front of an episode in its film.
LEAD = 2
EPISODES_V30 = "meta/episodes/chunk-000/file-000.parquet"
ARM = "robot__actual__poses__right::panda"
NO_TURN = np.array([1.0, 0, 0, 0, 1, 0])


@dataclass(frozen=True, kw_only=True)
class Item:
    """One good recording. state [L, 3], action [L, 2], rotation [L, 6]; pictures: L of them, as
    arrays and as JPEG files; times: seconds."""

    number: int
    state: Any
    action: Any
    rotation: np.ndarray
    arrays: Any
    files: list[bytes]
    times: np.ndarray
    words: str
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"ep_{self.number}"


def good(number: int) -> Item:
    random = np.random.default_rng(number)
    arrays = np.stack([picture(number * 100 + step, SIZE) for step in range(LENGTH)])
    return Item(
        number=number,
        state=random.normal(size=(LENGTH, 3)),
        action=random.normal(size=(LENGTH, 2)),
        rotation=np.tile(NO_TURN, (LENGTH, 1)),
        arrays=arrays,
        files=[encode_jpeg(one, 90) for one in arrays],
        times=np.arange(LENGTH) / HZ,
        words=f"lift it {number}",
    )


def shortened(item: Item, length: int) -> Item:
    names = ("state", "action", "rotation", "arrays", "files", "times")
    return replace(item, **{name: getattr(item, name)[:length] for name in names})


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One format. file: path of an item's file below the root; victim: the item that is damaged.
    state, action, camera: their names in it. encoded: whether it holds image files."""

    write: Callable[[Path, list[Item]], None]
    source: Callable[[Path], RobotFormat | CaptionFormat]
    file: str
    state: str = ""
    action: str = ""
    camera: str = "front"
    encoded: bool = True
    groups: tuple[PoseGroup, ...] = ()
    others: tuple[str, ...] = ()
    victim: int = VICTIM

    def path(self, root: Path) -> Path:
        """Of the victim's file."""
        return root / self.file.format(self.victim)

    @property
    def is_robot(self) -> bool:
        return bool(self.state)

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.state, self.action, *self.others)


def _tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_demonstrations(root: Path, items: list[Item]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "demos.json").write_text("{}")
    for item in items:
        meta = {
            "id": item.name, "task": "t", "hz": HZ, "success": True,
            "instructions": {"original": [item.words]},
        } | item.extra  # fmt: skip
        meta = {name: value for name, value in meta.items() if value != "absent"}
        arrays = {"state": item.state, "action": item.action, f"{ARM}__rot_6d": item.rotation}
        arrays[f"{ARM}__xyz"] = np.zeros((len(item.rotation), 3))
        members = [("meta.json", json.dumps(meta).encode()), ("lowdim.npz", npz(arrays))]
        members += [(f"front/{step:06d}.jpg", data) for step, data in enumerate(item.files)]
        _tar(root / f"episodes/t/{item.name}.tar", members)


def write_spartan(root: Path, items: list[Item]) -> None:
    for item in items:
        folder = root / f"tasks/Lift/{item.name}/processed"
        folder.mkdir(parents=True, exist_ok=True)
        actions = np.zeros((len(item.action), 20), np.asarray(item.action).dtype)
        actions[:, 18:] = item.action
        length = len(item.state)
        observations = {
            f"{ARM}__xyz": item.state,
            f"{ARM}__rot_6d": item.rotation,
            "cam_depth": np.zeros((length, 4, 4), np.uint16),
            "cam": item.arrays,
            "language_instruction": np.array([item.words] * length),
        }
        np.savez_compressed(folder / "observations.npz", **observations)
        np.savez(folder / "actions.npz", actions=actions, skill_type=np.array([{}], object))
        np.savez(folder / "intrinsics.npz", cam=np.eye(3))
        np.savez(folder / "extrinsics.npz", cam=np.tile(np.eye(4), (length, 1, 1)))
        (folder / "metadata.yaml").write_text("camera_id_to_semantic_name: {cam: front}\n")


def _demo(path: Path, item: Item, attributes: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for name, text in attributes.items():
            data.attrs[name] = text
        demo = data.create_group("demo_0")
        demo.attrs["ep_meta"] = json.dumps({"lang": item.words})
        _put(demo, "actions", item.action)
        _put(demo, "obs/state", item.state)
        _put(demo, "obs/front", item.arrays)


def _put(group: Any, name: str, values: Any) -> None:
    values = np.asarray(values)
    if values.dtype.kind in "UO":
        values = values.astype(h5py.string_dtype())
        group.create_dataset(name, data=values)
    elif values.size:
        group.create_dataset(name, data=values, compression="gzip", chunks=values.shape)
    else:
        group.create_dataset(name, data=values)


def write_robomimic(root: Path, items: list[Item]) -> None:
    for item in items:
        kwargs = {"control_freq": HZ} | item.extra
        kwargs = {name: value for name, value in kwargs.items() if value != "absent"}
        env = {"env_name": "Lift", "env_kwargs": kwargs}
        _demo(root / f"{item.name}.hdf5", item, {"env_args": json.dumps(env)})


def write_libero(root: Path, items: list[Item]) -> None:
    for item in items:
        attributes = {
            "env_args": json.dumps({"env_kwargs": {"control_freq": HZ}}),
            "problem_info": json.dumps({"language_instruction": item.words}),
        }
        _demo(root / f"{item.name}.hdf5", item, attributes)


def write_aloha(root: Path, items: list[Item]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for item in items:
        with h5py.File(root / f"{item.name}.hdf5", "w") as file:
            _put(file, "action", item.action)
            _put(file, "observations/qpos", item.state)
            rows = np.zeros((len(item.files), max(map(len, item.files), default=0) + 5), np.uint8)
            for row, data in zip(rows, item.files, strict=True):
                row[: len(data)] = np.frombuffer(data, np.uint8)
            _put(file, "observations/images/front", rows)


def _zarray(folder: Path, array: np.ndarray, compress: bool = True) -> None:
    import zlib

    folder.mkdir(parents=True, exist_ok=True)
    chunks = [max(len(array), 1), *array.shape[1:]]
    meta = {
        "zarr_format": 2, "shape": list(array.shape), "chunks": chunks, "filters": None,
        "dtype": array.dtype.str, "compressor": {"id": "zlib", "level": 1}, "fill_value": None,
        "order": "C",
    }  # fmt: skip
    (folder / ".zarray").write_text(json.dumps(meta))
    if array.size:
        place = ".".join("0" * array.ndim)
        (folder / place).write_bytes(zlib.compress(array.tobytes()))


def write_zarr(root: Path, items: list[Item]) -> None:
    for item in items:
        buffer = root / f"{item.name}.zarr"
        ends = np.array([len(item.state)], np.int64)
        _zarray(buffer / "meta/episode_ends", ends)
        for name, values in (
            ("state", item.state), ("action", item.action), ("front", item.arrays)
        ):  # fmt: skip
            _zarray(buffer / "data" / name, np.asarray(values))


RLDS_STEPS = {
    "action": tfds.tensor("float64", 2),
    "language_instruction": tfds.TEXT,
    "front": tfds.image(SIZE, SIZE, 3),
    "observation": tfds.features(state=tfds.tensor("float32", 3)),
}


def write_rlds(root: Path, items: list[Item]) -> None:
    records = []
    for item in items:
        flat = {"action": item.action, "observation/state": item.state}
        values = {
            f"steps/{name}": tfds.floats(held)
            if np.asarray(held).dtype.kind == "f"
            else [str(one).encode() for one in np.asarray(held).reshape(-1)]
            for name, held in flat.items()
        }
        values["steps/front"] = item.files
        words = item.words.encode(errors="surrogatepass")
        values["steps/language_instruction"] = [words] * len(item.state)
        records.append([tfds.example(values)])
    tfds.write(root / "toy" / "1.0.0", RLDS_STEPS, {"train": records}, {})


def _lerobot_info(version: str, picture: str) -> dict[str, Any]:
    number = {"shape": [1], "names": None}
    features = {
        "observation.state": {"dtype": "float64", "shape": [3], "names": None},
        "action": {"dtype": "float64", "shape": [2], "names": None},
        "front": {
            "dtype": picture, "shape": [SIZE, SIZE, 3], "names": ["height", "width", "channels"]
        },
        "timestamp": {"dtype": "float32", **number},
        **{k: {"dtype": "int64", **number} for k in ("frame_index", "episode_index", "task_index")},
    }  # fmt: skip
    return {"codebase_version": version, "fps": HZ, "chunks_size": 1000, "features": features}


def write_lerobot(root: Path, items: list[Item]) -> None:
    """v2.1, pictures in the tables."""
    info = _lerobot_info("v2.1", "image")
    info["data_path"] = "data/{episode_index:06d}.parquet"
    (root / "meta").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "meta/info.json").write_text(json.dumps(info))
    tasks = [{"task_index": item.number, "task": item.words} for item in items]
    rows = [{"episode_index": item.number, "length": len(item.state)} for item in items]
    for name, lines in (("tasks", tasks), ("episodes", rows)):
        (root / f"meta/{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    for item in items:
        write_table(_lerobot_table(item), root / f"data/{item.number:06d}.parquet")


def write_lerobot_v30(root: Path, items: list[Item], *, films: bool = False) -> None:
    """v3.0, a file per episode; pictures in the tables, or as films that begin a little earlier."""
    info = _lerobot_info("v3.0", "video" if films else "image")
    info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    if films:
        info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    for folder in ("meta/episodes/chunk-000", "data/chunk-000", "videos/front/chunk-000"):
        (root / folder).mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    numbers = [item.number for item in items]
    tasks = pa.table({"task_index": numbers, "task": [item.words for item in items]})
    write_table(tasks, root / "meta/tasks.parquet")
    rows = {
        "episode_index": numbers,
        "length": [len(item.state) for item in items],
        "data/chunk_index": [0] * len(items),
        "data/file_index": numbers,
        "videos/front/chunk_index": [0] * len(items),
        "videos/front/file_index": numbers,
        "videos/front/from_timestamp": [LEAD / HZ] * len(items),
    }
    write_table(pa.table(rows), root / EPISODES_V30)
    for item in items:
        table = _lerobot_table(item)
        write_table(
            table.drop_columns(["front"]) if films else table,
            root / f"data/chunk-000/file-{item.number:03d}.parquet",
        )
        if films:
            _film(root / f"videos/front/chunk-000/file-{item.number:03d}.mp4", item)


def write_lerobot_video(root: Path, items: list[Item]) -> None:
    write_lerobot_v30(root, items, films=True)


def _film(path: Path, item: Item) -> None:
    """LEAD frames of something else, then the item's; extra: how many `frames`, at which `rate`."""
    lead = good(item.number + 20).arrays[:LEAD]
    grey = item.arrays.ndim == 3
    rate = item.extra.get("rate", HZ)
    frames = [*([one[..., 0] for one in lead] if grey else lead), *item.arrays]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"g": "2"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "gray" if grey else "yuv420p"
        for number, pixels in enumerate(frames[: item.extra.get("frames", len(frames))]):
            form = "gray" if grey else "rgb24"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=form)
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _lerobot_table(item: Item) -> pa.Table:
    length = len(item.state)
    action = list(np.asarray(item.action).tolist())
    columns = {
        "observation.state": np.asarray(item.state).tolist(),
        "action": action + [None] * (length - len(action)),
        "front": [{"bytes": data, "path": None} for data in item.files],
        "timestamp": item.times.astype(np.float32),
        "frame_index": np.arange(length),
        "episode_index": np.full(length, item.number),
        "task_index": np.full(length, item.number),
    }
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def _said(item: Item) -> list[tuple[str, str, int, Any]]:
    """(topic, what, ns after START, value) of the messages, by time."""
    said: list[tuple[str, str, int, Any]] = [("/instruction", "text", 0, item.words)]
    for step, seconds in enumerate(item.times):
        at = round(float(seconds) * 1e9)
        said.append(("/state", "numbers", at, np.asarray(item.state[step]).tolist()))
        if step < len(item.action):
            said.append(("/action", "numbers", at, np.asarray(item.action[step]).tolist()))
        said.append(("/front", "picture", at, item.files[step]))
    return said


def write_mcap(root: Path, items: list[Item]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    types = {"text": "std_msgs/String", "numbers": "Float64Array", "picture": "CompressedImage"}
    for item in items:
        writer = McapWriter(str(root / f"{item.name}.mcap"), compression=CompressionType.LZ4)
        writer.start()
        channels: dict[str, int] = {}
        for topic, what, at, value in _said(item):
            if topic not in channels:
                schema = writer.register_schema(types[what], "jsonschema", b"{}")
                channels[topic] = writer.register_channel(topic, "json", schema)
            message = _json_message(what, value)
            time = START + at
            writer.add_message(channels[topic], time, json.dumps(message).encode(), time)
        writer.finish()


def _json_message(what: str, value: Any) -> dict[str, Any]:
    import base64

    if what == "picture":
        return {"format": "jpeg", "data": base64.b64encode(value).decode()}
    return {"data": value}


def _ros_message(types: dict[str, Any], what: str, at: int, value: Any) -> Any:
    if what == "text":
        return types["String"](data=value)
    if what == "numbers":
        layout = types["MultiArrayLayout"](dim=[], data_offset=0)
        return types["Float64MultiArray"](layout=layout, data=np.array(value, np.float64))
    time = types["Time"](sec=(START + at) // 10**9, nanosec=(START + at) % 10**9)
    seq = {"seq": 0} if "seq" in types["Header"].__dataclass_fields__ else {}
    header = types["Header"](stamp=time, frame_id="", **seq)
    return types["CompressedImage"](
        header=header, format="jpeg", data=np.frombuffer(value, np.uint8)
    )


def _bag(writer: Any, store: Any, item: Item, serialize: Callable[..., Any]) -> None:
    types = {
        name.rpartition("/")[2]: kind
        for name, kind in store.types.items()
        if name != "std_msgs/msg/Time"
    }
    known: dict[str, Any] = {}
    with writer:
        for topic, what, at, value in _said(item):
            message = _ros_message(types, what, at, value)
            kind = message.__msgtype__
            if topic not in known:
                known[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(known[topic], START + at, bytes(serialize(message, kind)))


@cache
def _types(store: Stores) -> Any:
    return get_typestore(store)


def write_bag1(root: Path, items: list[Item]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    store = _types(Stores.ROS1_NOETIC)
    for item in items:
        writer = Writer1(root / f"{item.name}.bag")
        writer.set_compression(Writer1.CompressionFormat.LZ4)
        _bag(writer, store, item, store.serialize_ros1)


def write_bag2(root: Path, items: list[Item]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    store = _types(Stores.ROS2_HUMBLE)
    for item in items:
        writer = Writer2(root / item.name, version=9, storage_plugin=StoragePlugin.SQLITE3)
        _bag(writer, store, item, store.serialize_cdr)


def write_tars(root: Path, items: list[Item]) -> None:
    """Two captioned images a tar: the item's, and one that is always good."""
    for item in items:
        names = item.extra.get("names", (f"{item.number:05d}0", f"{item.number:05d}1"))
        members: list[tuple[str, bytes]] = []
        for name, data, caption in (
            (names[0], item.files[STEP], item.words),
            (names[1], good(item.number + 10).files[0], "good"),
        ):
            members += [
                (f"{name}.jpg", data),
                (f"{name}.txt", caption.encode(errors="surrogatepass")),
                (f"{name}.json", item.extra.get("json", b'{"width": 16}')),
            ]
        _tar(root / f"{item.name}.tar", members)


def write_scenes(root: Path, items: list[Item]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    lines = []
    for item in items:
        name = f"{item.name}.jpg"
        (root / name).write_bytes(item.files[STEP])
        row = {"image": item.extra.get("image", name), "caption": item.words}
        lines.append(json.dumps(row | item.extra.get("row", {})))
    (root / "scenes.jsonl").write_text("\n".join(lines) + "\n")


def _ros(root: Path) -> Ros:
    topics = {
        "state": {"topic": "/state"}, "action": {"topic": "/action"}, "front": {"topic": "/front"},
        "original": {"topic": "/instruction"},
    }  # fmt: skip
    return Ros(path=str(root), topics=topics, hz=HZ, clock="/state")


ROT = PoseGroup(reference=ARM, poses=(ARM,))
ROS = {"source": _ros, "state": "state", "action": "action"}
LEROBOT = {
    "source": lambda root: Lerobot(path=str(root)), "state": "observation.state", "action": "action"
}  # fmt: skip
DEMO = {"state": "obs/state", "action": "actions", "encoded": False, "file": "ep_{}.hdf5"}
READERS: dict[str, Reader] = {
    "demonstrations": Reader(
        write=write_demonstrations, source=lambda root: Demonstrations(path=str(root)),
        file="episodes/t/ep_{}.tar", state="state", action="action",
        groups=(ROT,), others=(f"{ARM}__xyz", f"{ARM}__rot_6d"),
    ),
    "spartan": Reader(
        write=write_spartan, source=lambda root: Spartan(path=str(root)),
        file="tasks/Lift/ep_{}/processed/observations.npz", state=f"{ARM}__xyz",
        action="robot__action__grippers__right::panda_hand", encoded=False,
        groups=(ROT,), others=(f"{ARM}__rot_6d",),
    ),
    "lerobot": Reader(
        write=write_lerobot, file="data/{:06d}.parquet", **LEROBOT
    ),
    "lerobot_v30": Reader(
        write=write_lerobot_v30, file="data/chunk-000/file-{:03d}.parquet", **LEROBOT
    ),
    "lerobot_video": Reader(
        write=write_lerobot_video, file="videos/front/chunk-000/file-{:03d}.mp4", encoded=False,
        **LEROBOT,
    ),
    "robomimic": Reader(
        write=write_robomimic, source=lambda root: Robomimic(path=str(root)), **DEMO
    ),
    "libero_hdf5": Reader(
        write=write_libero, source=lambda root: LiberoHdf5(path=str(root)), **DEMO
    ),
    "aloha": Reader(
        write=write_aloha, source=lambda root: Aloha(path=str(root), hz=HZ, instruction="x"),
        file="ep_{}.hdf5", state="observations/qpos", action="action",
    ),
    "zarr_replay": Reader(
        write=write_zarr, source=lambda root: ZarrReplay(path=str(root), hz=HZ),
        file="ep_{}.zarr/data/action/0.0", state="state", action="action", encoded=False,
    ),
    "rlds": Reader(
        write=write_rlds, source=lambda root: Rlds(path=str(root), hz=HZ),
        file="toy/1.0.0/toy-train.tfrecord-{:05d}-of-00003", state="observation/state",
        action="action",
    ),
    "bag1": Reader(write=write_bag1, file="ep_{}.bag", **ROS),
    "bag2": Reader(write=write_bag2, file="ep_{0}/ep_{0}.db3", **ROS),
    "mcap": Reader(write=write_mcap, file="ep_{}.mcap", **ROS),
    "img2dataset": Reader(
        write=write_tars, source=lambda root: ImageCaptionTars(path=str(root)), file="ep_{}.tar"
    ),
    "scenes": Reader(
        write=write_scenes, source=lambda root: SceneFolder(path=str(root)), file="ep_{}.jpg"
    ),
}  # fmt: skip
