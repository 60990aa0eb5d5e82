"""What is done to one recording of three, format by format, and what is to be said of it.

A cell of the table is a `Poison`, or the reason why the two make no sense together. Every poison
has a cell for every format: a gap is a failing test.
"""

import io
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow.parquet import read_table, write_table

from foundry_core.data.images import encode_jpeg
from foundry_core.data.npy import write_npz
from tests.data.poison.poison_sets import (
    EPISODES_V30,
    HZ,
    LEAD,
    LENGTH,
    READERS,
    STEP,
    Item,
    Reader,
    shortened,
)  # fmt: skip
from tests.synthetic import npz

Change = Callable[[Item], Item]
Damage = Callable[[Path, Reader], None]


@dataclass(frozen=True, kw_only=True)
class Poison:
    """change: of the item before it is written. damage: of what was written. after: of files when
    they are listed already. says: what the one line holds beside the file's name ({state},
    {action}, {camera} are the reader's). lost: items that are counted as skipped; 0: it is taken.
    same: what is left of it is what a clean conversion makes of it."""

    change: Change | None = None
    damage: Damage | None = None
    after: Damage | None = None
    says: tuple[str, ...] = ()
    lost: int = 1
    same: bool = True


Cell = Poison | str
STEPS = f"step {STEP}"
ROBOTS = tuple(name for name, reader in READERS.items() if reader.is_robot)
HDF5 = ("robomimic", "libero_hdf5", "aloha")
ROS = ("bag1", "bag2", "mcap")
LEROBOT = ("lerobot", "lerobot_v30", "lerobot_video")
CAPTIONS = ("img2dataset", "scenes")
NPZ = ("demonstrations", "spartan")
FILES = tuple(name for name, reader in READERS.items() if reader.encoded)
ARRAYS = tuple(name for name in READERS if name not in FILES)


def row(*cells: tuple[tuple[str, ...], Cell], rest: str = "") -> dict[str, Cell]:
    """Later entries win; `rest` is why all other formats have none."""
    found: dict[str, Cell] = dict.fromkeys(READERS, rest) if rest else {}
    for names, cell in cells:
        found |= dict.fromkeys(names, cell)
    return found


# Pictures.


def pictures(make: Callable[[np.ndarray], bytes], at: int | None = STEP) -> Change:
    """One picture, or all of them, made anew from its pixels."""

    def change(item: Item) -> Item:
        files = [
            make(pixels) if at in (None, step) else file
            for step, (file, pixels) in enumerate(zip(item.files, item.arrays, strict=True))
        ]
        return replace(item, files=files)

    return change


def saved(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def grey_file(pixels: np.ndarray) -> bytes:
    return saved(pixels[..., 0], "JPEG")


def wide_file(pixels: np.ndarray) -> bytes:
    return saved(pixels[..., 0].astype(np.uint16) * 200, "PNG")


def cut_jpeg(pixels: np.ndarray) -> bytes:
    """With an end mark: what is missing is inside."""
    data = encode_jpeg(pixels, 90)
    return data[: len(data) * 2 // 3] + b"\xff\xd9"


def flipped_png(pixels: np.ndarray) -> bytes:
    data = bytearray(saved(pixels, "PNG"))
    data[data.index(b"IDAT") + 100] ^= 1
    return bytes(data)


def huge_jpeg(pixels: np.ndarray) -> bytes:
    data = bytearray(encode_jpeg(pixels, 90))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(data[: data.index(b"\xff\xda") + 20]) + b"\xff\xd9"


def program(pixels: np.ndarray) -> bytes:
    """PostScript, for which Pillow would start Ghostscript."""
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n"


def grey_arrays(item: Item) -> Item:
    return replace(item, arrays=item.arrays[..., 0])


def float_arrays(item: Item) -> Item:
    return replace(item, arrays=item.arrays.astype(np.float32) / 255)


# Numbers.


def value(name: str, number: float) -> Change:
    def change(item: Item) -> Item:
        values = getattr(item, name).copy()
        values[STEP, 0] = number
        return replace(item, **{name: values})

    return change


def fewer_actions(item: Item) -> Item:
    return replace(item, action=item.action[:-1])


def no_steps(item: Item) -> Item:
    return shortened(item, 0)


def no_rotation(item: Item) -> Item:
    rotation = item.rotation.copy()
    rotation[STEP] = 0
    return replace(item, rotation=rotation)


def texts(item: Item) -> Item:
    return replace(item, state=np.full(item.state.shape, "high"))


def objects(item: Item) -> Item:
    return replace(item, state=np.full(item.state.shape, None))


def times(*new: float) -> Change:
    def change(item: Item) -> Item:
        stamps = item.times.copy()
        stamps[STEP : STEP + len(new)] = new
        return replace(item, times=stamps)

    return change


# Words, names, rates.


def words(text: str) -> Change:
    return lambda item: replace(item, words=text)


def extra(**fields: Any) -> Change:
    return lambda item: replace(item, extra=fields)


# Files.


def rewritten(make: Callable[[bytes], bytes], place: str = "") -> Damage:
    def damage(root: Path, reader: Reader) -> None:
        path = reader.path(root)
        path = path.parent / place if place else path
        path.write_bytes(make(path.read_bytes()))

    return damage


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def nothing(data: bytes) -> bytes:
    return b""


def folder(root: Path, reader: Reader) -> None:
    path = reader.path(root)
    path.unlink()
    path.mkdir()


def gone(root: Path, reader: Reader) -> None:
    reader.path(root).unlink()


def dangling(root: Path, reader: Reader) -> None:
    gone(root, reader)
    reader.path(root).symlink_to("/nowhere/at/all")


def pipe(root: Path, reader: Reader) -> None:
    gone(root, reader)
    os.mkfifo(reader.path(root))


def linked(root: Path, reader: Reader) -> None:
    """A good file that lies elsewhere, as in the cache of the Hugging Face hub."""
    path = reader.path(root)
    outside = root.parent / "elsewhere"
    path.rename(outside)
    path.symlink_to(outside)


def device(root: Path, reader: Reader) -> None:
    gone(root, reader)
    reader.path(root).symlink_to("/dev/zero")


def at_a_border(members: int) -> Callable[[bytes], bytes]:
    """A tar cut behind some of its members, as a full disk or a lost connection leaves it."""

    def make(data: bytes) -> bytes:
        import tarfile

        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return data[: tar.getmembers()[members].offset]

    return make


def bad_tar_header(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[at_a_border(3)(data).__len__() + 5] ^= 1
    return bytes(changed)


def joined(data: bytes) -> bytes:
    return data + data


def gzip_bomb(data: bytes) -> bytes:
    """6 GB of zeros in 6 MB would take half a minute to make; the kind is the same."""
    import gzip

    return gzip.compress(bytes(1 << 20))


def npz_with(change: Callable[[dict[str, np.ndarray]], bytes], inside: str = "") -> Damage:
    """Another .npz in place of an item's; inside: the member of its tar that it is."""

    def damage(root: Path, reader: Reader) -> None:
        path = reader.path(root)
        if not inside:
            with np.load(path) as arrays:
                path.write_bytes(change(dict(arrays)))
            return
        import tarfile

        with tarfile.open(path) as tar:
            members = [(m.name, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
        with tarfile.open(path, "w") as tar:
            for name, data in members:
                if name == inside:
                    with np.load(io.BytesIO(data)) as arrays:
                        data = change(dict(arrays))
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

    return damage


def lying_header(arrays: dict[str, np.ndarray]) -> bytes:
    """One array claims 10^12 elements."""
    name = next(name for name in arrays if name.endswith(("xyz", "state")))
    data = write_npz({name: np.arange(6.0)} | {k: v for k, v in arrays.items() if k != name})
    true = b"'shape': (6,), }" + b" " * 12
    at = data.index(true, data.index(name.encode()))
    lie = b"'shape': (1000000000000,), }"
    return _with_crcs(data[:at] + lie + data[at + len(lie) :])


def _with_crcs(data: bytes) -> bytes:
    """The zip again, its checksums those of what it holds."""
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for one in old.infolist():
            start = one.header_offset + 30 + len(one.filename)
            new.writestr(one.filename, data[start : start + one.file_size])
    return out.getvalue()


def flipped_npz(arrays: dict[str, np.ndarray]) -> bytes:
    """A bit of a packed array."""
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    data = bytearray(out.getvalue())
    name = next(name for name in arrays if name.endswith(("xyz", "state")))
    data[data.index(name.encode()) + len(name) + 60] ^= 4
    return bytes(data)


def pickled(arrays: dict[str, np.ndarray]) -> bytes:
    name = next(name for name in arrays if name.endswith(("xyz", "state")))
    return npz(arrays | {name: np.full((LENGTH, 3), {}, object)})


def flipped_chunk(root: Path, reader: Reader) -> None:
    """A bit of the packed actions of an HDF5 file."""
    path = reader.path(root)
    with h5py.File(path) as file:
        found = file[reader.action if reader.action in file else f"data/demo_0/{reader.action}"]
        at = found.id.get_chunk_info(0).byte_offset + 20
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(bytes(data))


def flip(at: int) -> Callable[[bytes], bytes]:
    def make(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[at] ^= 4
        return bytes(changed)

    return make


def cut_bag_chunk(data: bytes) -> bytes:
    return data[: len(data) * 2 // 5]


def flipped_lz4(data: bytes) -> bytes:
    return flip(data.index(b"\x04\x22\x4d\x18") + 60)(data)


def without_summary(root: Path, reader: Reader) -> None:
    """An MCAP file that ends with its data: a footer that says there is no summary."""
    path = reader.path(root)
    data = path.read_bytes()
    footer = len(data) - 8 - 20 - 9
    (summary,) = struct.unpack_from("<Q", data, footer + 9)
    empty = data[footer : footer + 9] + bytes(20)
    path.write_bytes(data[:summary] + empty + data[-8:])


def metadata(text: str) -> Damage:
    def damage(root: Path, reader: Reader) -> None:
        (reader.path(root).parent / "metadata.yaml").write_text(text)

    return damage


def episodes_twice(root: Path, reader: Reader) -> None:
    """ep_1 as `ep.1`, too: another name, the same id."""
    path = reader.path(root)
    folder = path.parents[1] if path.parent.name == "processed" else path
    import shutil

    target = folder.with_name(folder.name.replace("_", "."))
    copy = shutil.copytree if folder.is_dir() else shutil.copy
    copy(folder, target)


def listed_twice_v30(root: Path, reader: Reader) -> None:
    table = read_table(root / EPISODES_V30)
    write_table(pa.concat_tables([table, table.slice(reader.victim, 1)]), root / EPISODES_V30)


def fewer_rows(root: Path, reader: Reader) -> None:
    """Of the data, where the list of episodes promises more."""
    path = reader.path(root)
    if path.suffix == ".mp4":
        path = root / READERS["lerobot_v30"].file.format(reader.victim)
    write_table(read_table(path).slice(0, LENGTH - 1), path)


def patched_frame(root: Path, reader: Reader) -> None:
    """The second half of a frame's bytes is others: decoders fill in what they cannot read."""
    path = reader.path(root)
    with av.open(str(path)) as container:
        packets = [one for one in container.demux(video=0) if one.size]
    packet = packets[LEAD + STEP]
    data, middle = bytearray(path.read_bytes()), packet.pos + packet.size // 2
    data[middle : packet.pos + packet.size] = bytes(packet.size - packet.size // 2)
    path.write_bytes(data)


def listed_twice(root: Path, reader: Reader) -> None:
    with (root / "meta/episodes.jsonl").open("a") as lines:
        lines.write(json.dumps({"episode_index": reader.victim, "length": LENGTH}) + "\n")


NO_FILES = "it holds arrays, no image files"
NO_ARRAYS = "it holds image files, no arrays"
NO_NUMBERS = "it holds no numbers over steps"
NO_STAMPS = "it holds no times"
NO_WORDS = "it holds no words; the recipe says them"
NO_FILMS = "it has no films"
NO_NPZ = "it holds no .npz"

TABLE: dict[str, dict[str, Cell]] = {
    "a grey JPEG": row(
        (FILES, Poison(change=pictures(grey_file), same=False, lost=0)),
        (ARRAYS, NO_FILES),
    ),
    "16 bits per channel": row(
        (FILES, Poison(change=pictures(wide_file), says=("more than 8 bits", "{camera}", STEPS))),
        (ARRAYS, NO_FILES),
        (("img2dataset",), "its .jpg members are JPEG"),
    ),
    "grey arrays": row(
        (ARRAYS, Poison(change=grey_arrays, says=("{camera}",))),
        (("lerobot_video",), Poison(change=grey_arrays, lost=0, same=False)),
        (FILES, NO_ARRAYS),
    ),
    "float arrays": row(
        (ARRAYS, Poison(change=float_arrays, says=("{camera}", "step 0", "float"))),
        (("lerobot_video",), "a film's pixels are whole numbers"),
        (FILES, NO_ARRAYS),
    ),
    "a truncated JPEG": row(
        (FILES, Poison(change=pictures(cut_jpeg), says=("{camera}", STEPS, "not a readable"))),
        (ARRAYS, NO_FILES),
    ),
    "a bit of a PNG": row(
        (FILES, Poison(change=pictures(flipped_png), says=("{camera}", STEPS, "checksum"))),
        (ARRAYS, NO_FILES),
    ),
    "a JPEG of 65500 x 65500": row(
        (FILES, Poison(change=pictures(huge_jpeg), says=("{camera}", STEPS, "65500 x 65500"))),
        (ARRAYS, NO_FILES),
    ),
    "a program for a picture": row(
        (FILES, Poison(change=pictures(program), says=("{camera}", STEPS))),
        (ARRAYS, NO_FILES),
    ),
    "no steps": row(
        (ROBOTS, Poison(change=no_steps, says=("no steps",))),
        (ROS, Poison(change=no_steps, says=("no topic",))),
        (LEROBOT, Poison(change=no_steps, says=("no row",))),
        (CAPTIONS, "a sample is one picture"),
    ),
    "fewer actions than observations": row(
        (ROBOTS, Poison(change=fewer_actions, says=("{action}",))),
        (("rlds",), Poison(change=fewer_actions, says=("action",))),
        (("spartan",), Poison(change=fewer_actions, says=("differ in length",))),
        (ROS, "topics have rates of their own; the last action holds for `stale`"),
        (CAPTIONS, NO_NUMBERS),
    ),
    "NaN in the state": row(
        (ROBOTS, Poison(change=value("state", np.nan), says=("{state}", STEPS, "not finite"))),
        (("mcap",), "JSON has no NaN"),
        (CAPTIONS, NO_NUMBERS),
    ),
    "infinity in an action": row(
        (ROBOTS, Poison(change=value("action", np.inf), says=("{action}", STEPS, "not finite"))),
        (("mcap",), "JSON has no infinity"),
        (CAPTIONS, NO_NUMBERS),
    ),
    "a rot6d of zeros": row(
        (NPZ, Poison(change=no_rotation, says=("rot_6d", STEPS, "no rotation"))),
        rest="its rotations are turned into rot6d by a mapping (tests/data/mapping)",
    ),
    "texts where numbers belong": row(
        (ROBOTS, Poison(change=texts, says=("state",))),
        (("spartan", "aloha"), Poison(change=texts, says=("{state}",))),
        (("bag1", "bag2"), "messages have types"),
        (("mcap",), Poison(change=texts, says=("/state",))),
        (CAPTIONS, NO_NUMBERS),
    ),
    "Python objects": row(
        (("demonstrations",), Poison(
            damage=npz_with(pickled, "lowdim.npz"), says=("'state'", "Python objects"))),
        (("spartan",), Poison(damage=npz_with(pickled), says=("{state}", "Python objects"))),
        rest="the format has no pickles (HDF5 objects, Zarr object arrays: its own tests)",
    ),
    "an array that claims 10^12 elements": row(
        (("demonstrations",), Poison(
            damage=npz_with(lying_header, "lowdim.npz"), says=("'state'", "truncated"))),
        (("spartan",), Poison(damage=npz_with(lying_header), says=("{state}", "truncated"))),
        rest=NO_NPZ,
    ),
    "a bit of packed numbers": row(
        (("demonstrations",), Poison(
            damage=npz_with(flipped_npz, "lowdim.npz"), says=("'state'",))),
        (("spartan",), Poison(damage=npz_with(flipped_npz), says=("{state}",))),
        (HDF5, Poison(damage=flipped_chunk, says=("action",))),
        (("zarr_replay",), Poison(damage=rewritten(flip(20)), says=("action",))),
        (LEROBOT, "parquet pages have no checksums unless their writer asked for them"),
        (("lerobot_video",), "a film's bytes: below"),
        (("rlds",), Poison(damage=rewritten(flip(40)), says=("CRC",))),
        (("mcap",), Poison(damage=rewritten(flipped_lz4), says=("damaged",))),
        (("bag1", "bag2"), "neither ROS 1 chunks nor SQLite pages have checksums"),
        (CAPTIONS, NO_NUMBERS),
    ),
    "times that go back": row(
        (LEROBOT, Poison(change=times(0.1), says=("timestamp", STEPS))),
        (ROS, Poison(change=times(-90, -89.9, -89.8), says=("/state", "goes back"))),
        rest=NO_STAMPS,
    ),
    "a time twice": row(
        (LEROBOT, Poison(change=times(0.2), says=("timestamp", STEPS))),
        (ROS, "the later of two messages of one time holds"),
        rest=NO_STAMPS,
    ),
    "lone surrogates": row(
        (("demonstrations", "lerobot", "robomimic", "libero_hdf5", "mcap"),
         Poison(change=words("\ud800 go"), says=("Unicode",))),
        (("lerobot_v30", "lerobot_video"), "Arrow's texts refuse them: "
         "`test_tasks_that_are_no_texts_spoil_their_episodes_alone`"),
        (("rlds",), Poison(change=words("\ud800 go"), says=("language_instruction", "utf-8"))),
        (CAPTIONS, Poison(change=words("\ud800 go"), says=("utf-8",))),
        (("scenes",), Poison(change=words("\ud800 go"), says=("half a character",))),
        (("spartan",), "NumPy's texts are UCS-4 and refuse them"),
        (("bag1", "bag2"), "the library that writes them refuses them"),
        (("aloha", "zarr_replay"), NO_WORDS),
    ),
    "empty words": row(
        (("demonstrations", *LEROBOT, "spartan"),
         Poison(change=words("  "), says=("instruction", "empty"))),
        (("robomimic", "libero_hdf5", "rlds"),
         "what holds none, or an empty one, takes the source's `instruction`"),
        (ROS, Poison(change=words(" "), says=("instruction", "empty"))),
        (CAPTIONS, Poison(change=words(" \n"), says=("empty",))),
        (("aloha", "zarr_replay"), NO_WORDS),
    ),
    "no rate": row(
        (("demonstrations",), Poison(change=extra(hz="absent"), says=("meta.json", "'hz'"))),
        (("robomimic",), Poison(change=extra(control_freq="absent"), says=("control rate",))),
        rest="the rate is one of the whole set, or the recipe's",
    ),
    'the rate "ten"': row(
        (("demonstrations",), Poison(change=extra(hz="ten"), says=("hz", "'ten'"))),
        (("robomimic",), Poison(change=extra(control_freq="ten"), says=("control rate",))),
        (LEROBOT, "info.json is of the whole set: `test_what_is_no_such_set_is_refused`"),
        rest="the rate is one of the whole set, or the recipe's",
    ),
    "an id that leads out": row(
        (("demonstrations",), Poison(change=extra(id="../../x"), says=("'../../x'",))),
        (("img2dataset",), Poison(change=extra(names=("../../x", "y")), says=("../../x",))),
        (("scenes",), Poison(change=extra(image="../x.jpg"), says=("../x.jpg",))),
        rest="ids are made of the names of files",
    ),
    "a success that is none": row(
        (("demonstrations",), Poison(change=extra(success=float("nan")), says=("success",))),
        rest="it holds truth values, or nothing",
    ),
    "metadata that are no JSON value": row(
        (("img2dataset",), "pandas writes NaN for nothing: null is kept"),
        (("scenes",), Poison(change=extra(row={"score": float("nan")}), says=("JSON",))),
        rest="a sample's metadata are Foundry's own",
    ),
    "a caption that is no text": row(
        (("scenes",), Poison(change=extra(row={"caption": 3}), says=("caption",))),
        (("img2dataset",), "its captions are files of text"),
        rest="it has instructions",
    ),
    "two of one id": row(
        (("demonstrations",), Poison(change=extra(id="ep_0"), says=("two episodes", "'ep_0'"))),
        (("spartan", "aloha", "robomimic", "libero_hdf5", "mcap", "bag1"),
         Poison(damage=episodes_twice, says=("two episodes",), same=False)),
        (("bag2",), "as mcap: ids of recordings are made in one place"),
        (("zarr_replay",), "as aloha: ids of files are made in one place"),
        (("lerobot",), Poison(damage=listed_twice, says=("two episodes",))),
        (("lerobot_v30", "lerobot_video"),
         Poison(damage=listed_twice_v30, says=("two episodes",))),
        (("rlds",), "records are numbered"),
        (("img2dataset",), Poison(
            change=extra(names=("a", "a")), says=("twice",))),
        (("scenes",), "lines are numbered"),
    ),
    "keys a/b and a_b": row(
        (("img2dataset",), Poison(change=extra(names=("a/b", "a_b")), lost=0, same=False)),
        rest="one item is one file, or a numbered part of one",
    ),
    "members of a folder v1.0": row(
        (("img2dataset",), Poison(change=extra(names=("v1.0/a", "./b")), lost=0, same=False)),
        rest="its members have fixed names",
    ),
    "a file cut in half": row(
        (tuple(READERS), Poison(damage=rewritten(half))),
        (ROS, Poison(damage=rewritten(half))),
        (("scenes",), Poison(damage=rewritten(half), says=("image",))),
        (("img2dataset",), Poison(damage=rewritten(half), says=("truncated",), lost=1)),
    ),
    "an empty file": row((tuple(READERS), Poison(damage=rewritten(nothing)))),
    "a folder in place of a file": row((tuple(READERS), Poison(damage=folder))),
    "a link to nothing": row((tuple(READERS), Poison(damage=dangling))),
    "a pipe in place of a file": row((tuple(READERS), Poison(damage=pipe))),
    "a device in place of a file": row((tuple(READERS), Poison(damage=device))),
    "a file that is gone when it is read": row((tuple(READERS), Poison(after=gone))),
    "a link to a file elsewhere": row((tuple(READERS), Poison(damage=linked, lost=0))),
    "a tar cut at a member's border": row(
        (("demonstrations",), Poison(damage=rewritten(at_a_border(4)), says=("truncated",))),
        (("img2dataset",), Poison(damage=rewritten(at_a_border(3)), says=("truncated",))),
        rest="it has no tars",
    ),
    "a bit of a tar's header": row(
        (("demonstrations",), Poison(damage=rewritten(bad_tar_header), says=("no tar header",))),
        (("img2dataset",), Poison(damage=rewritten(bad_tar_header), says=("no tar header",))),
        rest="it has no tars",
    ),
    "two tars in one file": row(
        (("demonstrations",), Poison(damage=rewritten(joined), says=("goes on behind",))),
        (("img2dataset",), Poison(damage=rewritten(joined), says=("goes on behind",))),
        rest="it has no tars",
    ),
    "a compressed tar": row(
        (("demonstrations",), Poison(damage=rewritten(gzip_bomb), says=("compressed (gzip)",))),
        (("img2dataset",), Poison(damage=rewritten(gzip_bomb), says=("compressed (gzip)",))),
        rest="it has no tars",
    ),
    "metadata.yaml that is no YAML": row(
        (("spartan",), Poison(damage=metadata("a: [1"), says=("metadata.yaml", "no YAML"))),
        (("bag2",), Poison(
            damage=metadata("rosbag2_bagfile_information: ["), says=("metadata.yaml",))),
        rest="it has none",
    ),
    "metadata.yaml that maps nothing": row(
        (("spartan",), Poison(damage=metadata("- 3"), says=("metadata.yaml", "camera_id"))),
        (("bag2",), Poison(
            damage=metadata("rosbag2_bagfile_information: 3"), says=("metadata.yaml",))),
        rest="it has none",
    ),
    "truncated intrinsics": row(
        (("spartan",), Poison(
            damage=rewritten(half, "intrinsics.npz"), says=("intrinsics.npz",))),
        rest="it has none",
    ),
    "a cut chunk": row(
        (("bag1", "mcap"), Poison(damage=rewritten(cut_bag_chunk), says=("cut short",))),
        rest="it has no chunks, or files of them (above)",
    ),
    "an MCAP file without summary": row(
        (("mcap",), Poison(damage=without_summary, lost=0)),
        rest="it is no MCAP",
    ),
    "a film that ends early": row(
        (("lerobot_video",), Poison(
            change=extra(frames=LEAD + STEP), says=("{camera}", STEPS, "no frame at"))),
        rest=NO_FILMS,
    ),
    "a film of another rate": row(
        (("lerobot_video",), Poison(
            change=extra(rate=HZ + 1), says=("{camera}", "step 0", "no frame at"))),
        rest=NO_FILMS,
    ),
    "a damaged frame of a film": row(
        (("lerobot_video",), Poison(damage=patched_frame, says=("{camera}", "decoded whole"))),
        rest=NO_FILMS,
    ),
    "a table of fewer rows": row(
        (("lerobot", "lerobot_v30", "lerobot_video"),
         Poison(damage=fewer_rows, says=("rows",))),
        rest="its steps are not counted elsewhere",
    ),
}  # fmt: skip
