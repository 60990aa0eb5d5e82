"""ROS bags and MCAP files: sets that the original libraries wrote, against what they read back, and
recordings made here for what can go wrong.

The former are folders `rosbag*` and `mcap_*` with expected.json and arrays.npz.
"""

import hashlib
import io
import json
import shutil
import sqlite3
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard
from mcap.writer import Writer as McapWriter
from PIL import Image

from foundry_core.data.images import decode_image
from foundry_core.data.inspection.raw import detect, raw_contents
from foundry_core.data.robot.episodes import Episode, UnusableEpisode
from foundry_core.data.sources.robot.ros import Ros
from foundry_core.errors import FoundryError
from tests.lerobot_sets import digits, read_digits
from tests.real_data import ABSENT, FORMATS
from tests.ros_bags import joints, make_bag1, make_bag2, make_json

ORIGINALS = sorted([*FORMATS.glob("rosbag*"), *FORMATS.glob("mcap_*")])
originals = pytest.mark.skipif(not ORIGINALS, reason=ABSENT)


def read(path: Path, **options) -> Episode:
    source = Ros(path=str(path), **options)
    (ref,) = source.episodes()
    return source.read_episode(ref)


def pixels(picture: bytes | np.ndarray) -> np.ndarray:
    return decode_image(picture) if isinstance(picture, bytes) else picture


@originals
@pytest.mark.parametrize("folder", ORIGINALS, ids=lambda folder: folder.name)
def test_each_topic_is_read_as_the_original_library_reads_it(folder):
    """A topic that is its own clock gives all of its messages, by stamp."""
    expected = json.loads((folder / "expected.json").read_text())
    path = folder / expected["file"]
    checked = 0
    with np.load(folder / "arrays.npz") as arrays:
        for topic, wanted in expected["topics"].items():
            slug = topic.strip("/").replace("/", "_")
            stamps = arrays[f"{slug}|stamp" if f"{slug}|stamp" in arrays else f"{slug}|log"]
            if "values" in wanted:
                said = [v if isinstance(v, str) else v["instruction"] for v in wanted["values"]]
                path_in = None if isinstance(wanted["values"][0], str) else "instruction"
                check_words(path, expected, {"topic": topic, "path": path_in}, said)
                checked += 1
                continue
            rate = (len(stamps) - 1) * 1e9 / float(stamps.max() - stamps.min())
            episode = read(path, topics={"x": {"topic": topic}}, clock=topic, hz=rate, stale=1)
            order = np.argsort(stamps, kind="stable")
            check_numbers(episode, arrays, slug, order)
            if "images" in wanted:
                check_pictures(episode, wanted, order)
            checked += 1
    assert checked == len(expected["topics"])


def check_words(path: Path, expected: dict, entry: dict, said: list[str]) -> None:
    other = next(t for t, one in expected["topics"].items() if "values" not in one)
    episode = read(path, topics={"original": entry, "x": {"topic": other}})
    assert episode.instructions == {"original": said}
    assert episode.task == said[0]


def check_numbers(episode: Episode, arrays, slug: str, order: np.ndarray) -> None:
    for name in ("position", "velocity"):
        if f"{slug}|{name}" in arrays:
            assert np.array_equal(episode.lowdim[f"x/{name}"], arrays[f"{slug}|{name}"][order])
    if f"{slug}|pose_xyz_xyzw" in arrays:
        pose = np.concatenate([episode.lowdim["x/position"], episode.lowdim["x/orientation"]], 1)
        assert np.array_equal(pose, arrays[f"{slug}|pose_xyz_xyzw"][order])


def check_pictures(episode: Episode, wanted: dict, order: np.ndarray) -> None:
    frames = episode.images["x"]
    assert len(frames) == wanted["count"]
    for number, stated in wanted["images"].items():
        picture = frames[order.tolist().index(int(number))]
        raw = stated.get("as_rgb", stated)
        image = pixels(picture)
        assert list(image.shape) == raw["shape"]
        assert read_digits(image) == raw["code"]
        # Libraries decode a JPEG one grey level apart; bytes and raw pixels are exact.
        np.testing.assert_allclose(image.mean((0, 1)), raw["mean"], atol=1)
        for said, data in (("sha256_bytes", picture), ("sha256_pixels", image)):
            if said in raw:
                data = data if isinstance(data, bytes) else data.tobytes()
                assert hashlib.sha256(data).hexdigest() == raw[said]


@originals
@pytest.mark.parametrize("folder", ORIGINALS, ids=lambda folder: folder.name)
def test_all_topics_meet_on_one_clock(folder):
    """Against a search of the arrays, one tick after the other."""
    expected = json.loads((folder / "expected.json").read_text())
    episode = read(folder / expected["file"], hz=10, stale=0.25)
    with np.load(folder / "arrays.npz") as arrays:
        stamps = {}
        for topic, wanted in expected["topics"].items():
            slug = topic.strip("/").replace("/", "_")
            key = f"{slug}|stamp" if f"{slug}|stamp" in arrays else f"{slug}|log"
            if "values" not in wanted:
                first = wanted["log_first"]
                stamps[topic] = arrays[key] - (first - wanted.get("publish_first", first))
        start = max(one.min() for one in stamps.values())
        pose_topic = "/ee" if "/ee" in stamps else "/ee_pose"
        poses = arrays[pose_topic.strip("/") + "|pose_xyz_xyzw"]
        held = stamps[pose_topic]
        for step, position in enumerate(episode.lowdim[f"{pose_topic}/position"]):
            past = np.flatnonzero(held <= start + step * 100_000_000)
            assert np.array_equal(position, poses[past[np.argmax(held[past])], :3])
        last = start + (episode.length - 1) * 100_000_000
        assert last <= min(one.max() for one in stamps.values()) + 250_000_000
    for frames in episode.images.values():
        assert len(frames) == episode.length


MAKERS = {
    "bag1-lz4": lambda path: make_bag1(path / "x.bag"),
    "bag1-bz2": lambda path: make_bag1(path / "x.bag", "BZ2"),
    "sqlite": lambda path: make_bag2(path / "x"),
    "sqlite-messages": lambda path: make_bag2(path / "x", compression="MESSAGE"),
    "sqlite-file": lambda path: make_bag2(path / "x", compression="FILE"),
    "mcap": lambda path: make_bag2(path / "x", "MCAP"),
    "mcap-messages": lambda path: make_bag2(path / "x", "MCAP", "MESSAGE"),
    "mcap-file": lambda path: make_bag2(path / "x", "MCAP", "FILE"),
    "mcap-chunks": lambda path: make_bag2(path / "x", "MCAP", "STORAGE"),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_every_storage_and_compression_gives_the_same_episode(tmp_path, maker):
    path = MAKERS[maker](tmp_path)
    assert detect(path) is Ros
    episode = read(path)
    assert episode.instructions == {"original": ["lift it"]}
    # 2 s of 20 Hz pictures and 50 Hz joints: the last messages hold until the other has ended.
    # Effort is in every second message and begins with the second.
    ticks = 0.02 + np.arange(episode.length) / 10
    newest = np.floor(ticks * 50 + 1e-6).astype(int)
    assert episode.length == 20
    expected = np.stack([joints(number) for number in newest])
    assert np.array_equal(episode.lowdim["/joints/position"], expected)
    odd = newest - (newest + 1) % 2
    assert np.array_equal(episode.lowdim["/joints/effort"], np.stack([joints(n) for n in odd]))
    assert "/joints/velocity" not in episode.lowdim
    # Without a header, what counts is the record's time: 2 ms later, so one message earlier.
    assert np.array_equal(episode.lowdim["/gripper"][:, 0], newest - 1)
    shown = np.floor(ticks * 20 + 1e-6).astype(int)
    for step, number in enumerate(shown):
        assert read_digits(pixels(episode.images["/front"][step])) == digits(0, number)
        depth = episode.depth["/depth"][step]
        assert depth.dtype == np.float32
        np.testing.assert_allclose(depth, np.full((4, 6), (1000 + number) / 1000), rtol=1e-6)


def test_a_split_recording_is_one_episode(tmp_path):
    for number, day in enumerate(("01", "02")):
        make_bag1(tmp_path / f"run_2024-01-{day}-10-00-00_{number}.bag")
    make_bag1(tmp_path / "run_2024-01-03-10-00-00_0.bag")
    make_bag1(tmp_path / "demo_1.bag")
    names = [[Path(f).name for f in ref.files] for ref in Ros(path=str(tmp_path)).episodes()]
    assert names == [
        ["demo_1.bag"],
        ["run_2024-01-01-10-00-00_0.bag", "run_2024-01-02-10-00-00_1.bag"],
        ["run_2024-01-03-10-00-00_0.bag"],
    ]


def test_an_episode_is_called_by_its_recording_without_dots_and_slashes(tmp_path):
    (tmp_path / "a.b").mkdir()
    make_bag1(tmp_path / "a.b/x.bag")
    (ref,) = (source := Ros(path=str(tmp_path))).episodes()
    assert (ref.name, source.read_episode(ref).id) == ("a.b/x.bag", "a_b__x")


def test_the_parts_of_a_ros2_bag_follow_its_metadata(tmp_path):
    bag = make_bag2(tmp_path / "x", seconds=1)
    metadata = bag / "metadata.yaml"
    text = metadata.read_text()
    later = bag / "y.db3"
    shutil.copy(bag / "x.db3", later)
    with sqlite3.connect(later) as db:
        db.execute("UPDATE messages SET timestamp = timestamp + 1000000000")
    metadata.write_text(
        text.replace("  - x.db3", "  - x.db3\n  - y.db3").replace("x.db3", "x/x.db3", 1)
    )
    episode = read(tmp_path, topics={"gripper": {"topic": "/gripper"}}, hz=50)
    assert np.array_equal(episode.lowdim["gripper"][:, 0], np.tile(np.arange(50), 2))
    later.unlink()
    with pytest.raises(UnusableEpisode, match=r"y\.db3 is not there"):
        read(tmp_path)
    metadata.write_text("rosbag2_bagfile_information: 1")
    with pytest.raises(UnusableEpisode, match=r"metadata\.yaml lists no files of a ROS 2 bag"):
        read(tmp_path)
    metadata.write_text("author: somebody else")
    assert [ref.name for ref in Ros(path=str(tmp_path)).episodes()] == ["x/x.db3"]
    (bag / "x.db3").unlink()
    with pytest.raises(FoundryError, match="holds no recording"):
        Ros(path=str(tmp_path)).episodes()


def test_topics_are_named_by_the_config(tmp_path):
    path = make_bag1(tmp_path / "x.bag")
    topics = {
        "arm": {"topic": "/joints", "path": "position", "joints": ["c", "a"]},
        "front": {"topic": "/front"},
        "robot": {"topic": "/robot_description"},
    }
    episode = read(path, topics=topics, clock="/front", hz=20)
    assert list(episode.lowdim) == ["arm"]
    newest = np.arange(40) * 5 // 2
    assert np.array_equal(episode.lowdim["arm"], [joints(n)[[2, 0]] for n in newest])
    assert list(episode.images) == ["front"]
    assert episode.instructions == {"robot": ["<robot/>"]}
    late = read(path, topics={"front": {"topic": "/front"}}, clock="/front", hz=20, time="log")
    assert len(late.images["front"]) == 40


def test_what_is_named_wrongly_is_answered_with_the_nearest_name(tmp_path):
    path = make_bag1(tmp_path / "x.bag")
    for options, message in (
        ({"topics": {"a": {"topic": "/joint"}}}, "no topic '/joint'.*'/joints'"),
        ({"topics": {"a": {"topic": "/joints", "path": "positon"}}}, "positon.*'position'"),
        ({"topics": {"a": {"topic": "/joints", "joints": ["a", "d"]}}}, "no joint 'd'"),
        ({"topics": {"a": {"topic": "/joints", "path": "velocity"}}}, "says nothing for 'a'"),
        ({"topics": {"a": {"topic": "/joints", "path": "header"}}}, "name one of them"),
        ({"topics": {"a": {"topic": "/gripper"}}, "clock": "/front"}, "no clock '/front'"),
        ({"clock": "/joints"}, "50.00 Hz, hz is 10"),
    ):
        with pytest.raises(UnusableEpisode, match=message):
            read(path, **options)


def pose(time: float, topic: str = "/pose", **more) -> tuple:
    at = round(time * 10**9)
    # Not in the order that a vector has.
    turned = {"w": 1.0, "z": 0.3, "y": 0.2, "x": 0.1}
    said = {"orientation": turned, "position": {"z": 3.0, "y": 2.0, "x": time}}
    return topic, "foxglove.PoseInFrame", at, {"pose": said, **more}


def test_a_late_topic_shortens_the_range_and_a_silent_one_ends_it(tmp_path):
    early = [pose(n / 10, "/a") for n in range(20)]
    late = [pose(0.75 + n / 10, "/b") for n in range(5)]
    path = make_json(tmp_path / "x.mcap", early + late)
    episode = read(path, stale=0.2)
    # From 0.75 s, when /b begins, to 1.35 s, when its last message is 0.2 s old.
    np.testing.assert_allclose(episode.lowdim["/a/position"][:, 0], 0.7 + np.arange(7) / 10)
    assert episode.lowdim["/b/orientation"][0].tolist() == [0.1, 0.2, 0.3, 1.0]
    gap = [one for one in early if one[2] not in (800_000_000, 900_000_000)]
    path = make_json(tmp_path / "gap.mcap", gap + late)
    with pytest.raises(UnusableEpisode, match=r"/a says nothing for 0\.250 s"):
        read(path, stale=0.2)
    held = {"a": {"topic": "/a", "stale": 1.0}, "b": {"topic": "/b"}}
    assert read(path, stale=0.2, topics=held).length == 7
    path = make_json(tmp_path / "apart.mcap", [pose(0, "/a"), pose(3, "/b")])
    with pytest.raises(UnusableEpisode, match=r"/b begins 3\.000 s after /a has ended"):
        read(path)


def test_a_stamp_that_lies_asks_for_no_memory(tmp_path):
    years = {"timestamp": {"sec": 4_000_000_000, "nsec": 0}}
    path = make_json(tmp_path / "x.mcap", [pose(0), pose(0.1, **years)])
    with pytest.raises(UnusableEpisode, match="at most 1000000 are read"):
        read(path)
    endless = {"timestamp": {"sec": 10**30, "nsec": 0}}
    path = make_json(tmp_path / "y.mcap", [pose(0), pose(0.1, **endless)])
    with pytest.raises(UnusableEpisode, match="its time is"):
        read(path)


def image(**changes) -> tuple:
    data = {"width": 2, "height": 2, "encoding": "bgr8", "step": 6, "data": bytes(range(12))}
    return "/camera", "foxglove.RawImage", 0, data | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 60_000, "width": 60_000, "step": 180_000}, "60000x60000 pixels"),
        ({"height": 3}, "no 3x2 bgr8"),
        ({"step": 5}, "rows of 5"),
        ({"width": "2"}, "width is '2'"),
        ({"encoding": "bayer_rggb8"}, "'bayer_rggb8' is not read"),
        ({"data": "#"}, "no base64"),
        ({"data": 5}, "not bytes"),
    ],
)
def test_a_picture_whose_size_does_not_fit_is_refused_when_it_is_read(tmp_path, changes, message):
    frames = read(make_json(tmp_path / "x.mcap", [image(**changes)])).images["/camera"]
    with pytest.raises(UnusableEpisode, match=f"/camera at step 0.*{message}"):
        frames[0]


def test_colours_come_out_as_rgb(tmp_path):
    made = {
        "bgr8": ({}, [2, 1, 0]),
        "rgb8": ({}, [0, 1, 2]),
        "rgba8": ({"step": 8, "data": bytes(range(16))}, [0, 1, 2]),
        "mono8": ({"step": 3, "data": bytes(range(6))}, [0, 0, 0]),
    }
    for encoding, (changes, first) in made.items():
        path = make_json(tmp_path / f"{encoding}.mcap", [image(encoding=encoding, **changes)])
        picture = read(path).images["/camera"][0]
        assert picture.shape == (2, 2, 3)
        assert picture[0, 0].tolist() == first
    assert picture[1].tolist() == [[3] * 3, [4] * 3]
    lone = image(height=1, step=2**62)
    assert read(make_json(tmp_path / "lone.mcap", [lone])).images["/camera"][0].shape == (1, 2, 3)


def test_depth_comes_in_metres(tmp_path):
    metres = np.array([[0.5, 1.25]], np.float32)
    raw = {"width": 2, "height": 1, "encoding": "32FC1", "step": 8, "data": metres.tobytes()}
    png = io.BytesIO()
    Image.fromarray((metres * 1000).astype(np.uint16)).save(png, "png")
    packed = {"format": "16UC1; compressedDepth png", "data": bytes(12) + png.getvalue()}
    plain = {"format": "16UC1; png compressed ", "data": png.getvalue()}
    lossy = {"format": "32FC1; compressedDepth png", "data": bytes(12) + png.getvalue()}
    kinds = ("RawImage", "CompressedImage", "CompressedImage", "CompressedImage")
    made = [
        (f"/{number}", f"foxglove.{kind}", 0, message)
        for number, (kind, message) in enumerate(
            zip(kinds, (raw, packed, plain, lossy), strict=True)
        )
    ]
    depth = read(make_json(tmp_path / "x.mcap", made)).depth
    for topic in ("/0", "/1", "/2"):
        assert np.array_equal(depth[topic][0], metres)
    with pytest.raises(UnusableEpisode, match="compressed 32FC1 is not read"):
        depth["/3"][0]


def test_definitions_are_ros1_idl_or_those_of_ros2(tmp_path):
    idl = "module std_msgs { module msg { struct Float32 { float data; }; }; };"
    writer = McapWriter(str(tmp_path / "x.mcap"))
    writer.start()
    for topic, encoding, schema, text in (
        ("/one", "ros1", "ros1msg", "float32 data"),
        ("/two", "cdr", "ros2idl", idl),
        ("/three", "cdr", "ros2idl", "=" * 80 + "\nIDL: std_msgs/msg/Float32\n" + idl),
    ):
        kind = writer.register_schema("std_msgs/msg/Float32", schema, text.encode())
        channel = writer.register_channel(topic, encoding, kind)
        data = (b"" if encoding == "ros1" else bytes([0, 1, 0, 0])) + struct.pack("<f", 0.5)
        writer.add_message(channel, log_time=5, publish_time=5, data=data)
    writer.finish()
    fields = read(tmp_path / "x.mcap").lowdim
    assert {name: values.tolist() for name, values in fields.items()} == {
        "/one": [[0.5]], "/two": [[0.5]], "/three": [[0.5]],
    }  # fmt: skip
    bag = make_bag2(tmp_path / "old")
    whole = read(bag)
    with sqlite3.connect(bag / "old.db3") as db:
        db.execute("DELETE FROM message_definitions")
    assert np.array_equal(read(bag).lowdim["/gripper"], whole.lowdim["/gripper"])


def test_a_field_keeps_its_joints_and_its_number_of_values(tmp_path):
    def state(time: float, names: list[str]) -> tuple:
        values = {"name": names, "position": [time] * len(names), "velocity": [], "effort": []}
        return "/joints", "sensor_msgs/msg/JointState", round(time * 10**9), values

    two = [state(0, ["a", "b"]), state(0.1, ["hand"]), state(0.2, ["b", "a"])]
    path = make_json(tmp_path / "x.mcap", two)
    with pytest.raises(UnusableEpisode, match=r"its joints are a, b and then hand.*`joints`"):
        read(path)
    topics = {
        "arm": {"topic": "/joints", "path": "position", "joints": ["a", "b"]},
        "hand": {"topic": "/joints", "path": "position", "joints": ["hand"]},
    }
    assert read(path, topics=topics).lowdim["hand"].tolist() == [[0.1], [0.1]]
    kind = "std_msgs/msg/Float64MultiArray"
    rows = [("/x", kind, 0, {"data": [1.0, 2.0]}), ("/x", kind, 10**8, {"data": [1.0]})]
    with pytest.raises(UnusableEpisode, match="1 numbers, and 2 before"):
        read(make_json(tmp_path / "y.mcap", rows))
    strange = [("/x", "our/Type", 0, {"a": {"b": [1, 2]}})]
    path = make_json(tmp_path / "z.mcap", strange)
    with pytest.raises(UnusableEpisode, match=r"no topic whose type has a meaning.*/x"):
        read(path)
    with pytest.raises(UnusableEpisode, match="our/Type holds is not known"):
        read(path, topics={"x": {"topic": "/x"}})
    assert read(path, topics={"x": {"topic": "/x", "path": "a.b"}}).lowdim["x"].tolist() == [[1, 2]]


@pytest.mark.parametrize("maker", [m for m in MAKERS if m.startswith(("bag1", "mcap-chunks"))])
def test_of_a_cut_file_what_is_whole_is_read_if_asked_for(tmp_path, maker):
    path = MAKERS[maker](tmp_path)
    file = path if path.is_file() else next(path.glob("*.mcap"))
    data = file.read_bytes()
    with pytest.raises(UnusableEpisode, match=rf"cut short: .*at byte \d+ of {len(data) - 20}"):
        file.write_bytes(data[:-20])
        read(path)
    assert read(path, keep_cut=True).length == 20


def test_an_mcap_file_without_chunks_or_end_gives_its_whole_records(tmp_path):
    poses = [pose(n / 10) for n in range(20)]
    path = make_json(tmp_path / "x.mcap", poses, use_chunking=False)
    whole = read(path)
    assert whole.length == 20
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b'"x": 1.5')])
    with pytest.raises(UnusableEpisode, match="cut short"):
        read(path)
    kept = read(path, keep_cut=True)
    assert kept.length == 15
    assert np.array_equal(kept.lowdim["/pose/position"], whole.lowdim["/pose/position"][:15])


def test_a_bag_that_was_never_closed_says_so(tmp_path):
    path = make_bag1(tmp_path / "x.bag")
    data = bytearray(path.read_bytes())
    at = data.index(b"index_pos=") + len(b"index_pos=")
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(UnusableEpisode, match="never closed"):
        read(path)
    assert read(path, keep_cut=True).length == 20


def test_a_chunk_that_lies_about_its_size_is_refused(tmp_path):
    path = make_bag1(tmp_path / "x.bag")
    data = bytearray(path.read_bytes())
    at = data.index(b"size=") + len(b"size=")
    honest = struct.unpack_from("<I", data, at)[0]
    for lie, message in ((honest - 1, "bytes or more, not"), (2**32 - 1, "at most")):
        data[at : at + 4] = struct.pack("<I", lie)
        path.write_bytes(data)
        with pytest.raises(UnusableEpisode, match=f"chunk at byte .*{message}"):
            read(path)


def test_a_flipped_byte_of_a_chunk_is_found_by_its_checksum(tmp_path):
    path = make_json(tmp_path / "x.mcap", [pose(n / 10) for n in range(20)])
    data = bytearray(path.read_bytes())
    data[data.index(b'"x": 1.5') + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnusableEpisode, match="checksum"):
        read(path)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path):
    packed = zstandard.ZstdCompressor().compress(bytes(1 << 26))
    (tmp_path / "x.mcap.zstd").write_bytes(packed)
    with pytest.raises(UnusableEpisode, match="1000 times its size"):
        read(tmp_path)


def test_broken_databases_and_foreign_files_are_unusable(tmp_path):
    bag = make_bag2(tmp_path / "x")
    file = bag / "x.db3"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnusableEpisode, match=r"x\.db3 is not readable"):
        read(bag)
    file.write_bytes(whole)
    with sqlite3.connect(file) as db:
        db.execute("UPDATE messages SET data = 'text' WHERE id = 5")
    with pytest.raises(UnusableEpisode, match="message 5 has no topic"):
        read(bag)
    for name in ("a.bag", "a.mcap", "a.db3"):
        (tmp_path / name).write_bytes(b"nothing of the kind" * 100)
        with pytest.raises(UnusableEpisode, match=name):
            read(tmp_path / name)


def test_a_message_that_is_no_message_of_its_type_names_its_topic(tmp_path):
    bag = make_bag2(tmp_path / "x")
    with sqlite3.connect(bag / "x.db3") as db:
        (joints_id,) = db.execute("SELECT id FROM topics WHERE name = '/joints'").fetchone()
        # Little endian CDR: a header, then a list of names that is said to have 2^31.
        lie = bytes([0, 1, 0, 0, *bytes(8), 1, 0, 0, 0, *bytes(4), 0, 0, 0, 128])
        db.execute("UPDATE messages SET data = ? WHERE topic_id = ?", (lie, joints_id))
    with pytest.raises(UnusableEpisode, match=r"/joints: a message is no sensor_msgs/msg/JointSt"):
        read(bag)
    assert read(bag, topics={"gripper": {"topic": "/gripper"}}).length > 1


def test_inspect_drafts_a_mapping_of_a_bag(tmp_path):
    path = make_json(tmp_path / "x.mcap", [pose(n / 10) for n in range(20)])
    contents, _ = raw_contents(Ros(path=str(path)), str(path))
    assert contents.fields["/pose/position"].dims == 3
    assert "form: quaternion_xyzw" in contents.mapping


def test_the_extra_is_named_where_it_is_absent(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rosbags", None)
    with pytest.raises(FoundryError, match=r"foundry-robotics\[ros\]"):
        Ros(path=str(tmp_path)).episodes()
