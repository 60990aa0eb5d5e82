"""Whatever bytes raw data have: readers give items, or one refusal each that says where.

Seeded mutations of good files: bits flipped, runs cut out, doubled, overwritten by sizes that lie.
`make test-all` tries twenty times as many.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from foundry_core.data.config import ImageConfig
from foundry_core.data.convert import captions
from foundry_core.data.convert.captions import CaptionJob, prepare
from foundry_core.data.convert.read import read_bounded
from foundry_core.data.images import (
    check_jpeg,
    decode_image,
    decode_into,
    encode_jpeg,
    image_size,
    orientation,
)
from foundry_core.data.npy import read_npy, read_npz, write_npz
from foundry_core.data.robot.episodes import UnusableEpisode
from foundry_core.data.shards.index import scan_tar
from foundry_core.data.shards.write import write_shard
from foundry_core.data.sources.robot.tfds.example import parse_example
from foundry_core.errors import FoundryError
from tests.data.poison.poison_sets import READERS, VICTIM, good
from tests.data.poison.poisons import saved
from tests.data.sources.robot import tfds_files as tfds
from tests.synthetic import npz, picture

LONGER = 20 if os.environ.get("HYPOTHESIS_PROFILE") == "search" else 1
LIES = [b"\xff" * 8, b"\0" * 8, b"\x80" + b"\0" * 7, b"9" * 12, b"\x7f" * 4, b"\xd8\xff", b"(" * 64]


def mutated(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    random = np.random.default_rng(seed)
    for _ in range(count * LONGER):
        changed = bytearray(data)
        for _ in range(int(random.integers(1, 4))):
            at = int(random.integers(0, max(len(changed), 1)))
            match int(random.integers(0, 5)):
                case 0 if changed:
                    changed[min(at, len(changed) - 1)] ^= 1 << int(random.integers(0, 8))
                case 1:
                    del changed[at : at + int(random.integers(1, 600))]
                case 2:
                    changed[at:at] = changed[at : at + int(random.integers(1, 600))]
                case 3:
                    lie = LIES[int(random.integers(0, len(LIES)))]
                    changed[at : at + len(lie)] = lie
                case _:
                    del changed[at:]
        yield bytes(changed)


def try_all(read: Callable[[bytes], object], data: bytes, count: int, seed: int) -> None:
    """Only a FoundryError of one line may come out; some of the mutants must be refused."""
    read(data)
    refused = 0
    for mutant in mutated(data, count, seed):
        try:
            read(mutant)
        except FoundryError as error:
            refused += 1
            assert str(error).isprintable()
    assert refused


PIXELS = picture(1, 24)
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
IMAGES = {
    "jpeg": encode_jpeg(PIXELS, 90),
    **{kind: saved(PIXELS, kind) for kind in ("PNG", "WEBP", "GIF", "BMP", "TIFF")},
    "exif": saved(
        PIXELS, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    ),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images(kind):
    def read(data: bytes) -> None:
        assert 1 <= orientation(data) <= 8
        pixels = decode_image(data, "x")
        assert pixels.shape[:2] == image_size(data, "x")
        out = np.empty(pixels.shape, np.uint8)
        assert decode_into(data, out, "x") and (out == pixels).all()
        if data[:2] == b"\xff\xd8":
            check_jpeg(data, "x")

    try_all(read, IMAGES[kind], 150, 1)


ARRAYS = {"a": np.arange(12.0).reshape(3, 4), "b": np.zeros((2, 3), np.uint8), "c": np.array("x")}


@pytest.mark.parametrize("data", [write_npz(ARRAYS), npz(ARRAYS)], ids=["ours", "theirs"])
def test_npz(data):
    try_all(read_npz, data, 400, 2)


def test_npy():
    import io

    for array in (np.arange(20.0), np.asfortranarray(np.ones((3, 2))), np.array(["text"] * 3)):
        out = io.BytesIO()
        np.save(out, array)
        try_all(read_npy, out.getvalue(), 300, 3)


@pytest.mark.parametrize(
    "shape", ["(4294967296, 4294967296)", "(-1,)", "(1.5,)", "('a',)", "3", "(2, 99999999999)"]
)
def test_an_npy_header_that_lies_takes_no_memory(shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
    with pytest.raises(FoundryError):
        read_npy(data)


def test_tars(tmp_path):
    path = tmp_path / "x.tar"
    samples = [(f"key{i}", {"jpg": b"x" * (600 * i), "json": b"{}"}) for i in range(4)]
    write_shard(path, [("deep/" * 30 + "name", {"txt": b"long"}), *samples])
    data = path.read_bytes()

    def read(mutant: bytes) -> None:
        path.write_bytes(mutant)
        index = scan_tar(path)
        assert all(index.offsets + index.sizes <= len(mutant))

    try_all(read, data, 400, 4)


def test_examples():
    data = tfds.example({"a": [1.0, 2.0], "b": [1, -2], "c": [b"x" * 40], "d": []})

    def read(mutant: bytes) -> None:
        try:
            parse_example(mutant)
        except ValueError as error:  # what its caller turns into an unusable episode
            raise FoundryError(str(error)) from error

    try_all(read, data, 500, 5)


FAST = {"demonstrations": 40, "spartan": 25, "zarr_replay": 60, "rlds": 60, "mcap": 40}
LARGE_FILES = pytest.mark.slow("reads large files, damaged in many ways")
SLOW = {"lerobot": 25, "robomimic": 25, "aloha": 25, "bag1": 20, "bag2": 10}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            READERS[name].write(made[name] / "raw", [good(number) for number in range(3)])
        return made[name] / "raw"

    return of


@pytest.mark.parametrize(
    ("name", "count"),
    [*FAST.items(), *(pytest.param(n, c, marks=LARGE_FILES) for n, c in SLOW.items())],
)
def test_recordings(written, name, count):
    """A file of one episode: its episode reads, or is unusable; that of the others reads."""
    root, reader = written(name), READERS[name]
    path = reader.path(root)
    whole = path.read_bytes()

    def read(mutant: bytes) -> None:
        path.write_bytes(mutant)
        source = reader.source(root)
        refs = source.episodes()
        assert len(refs) >= 3
        broken: list[UnusableEpisode] = []
        for number, ref in enumerate(refs):
            try:
                episode = read_bounded(source, ref)
                for pictures in episode.images.values():
                    list(pictures)
            except UnusableEpisode as error:
                assert f"{VICTIM}" in ref.name, number
                broken.append(error)
        if broken:
            raise broken[0]

    try:
        try_all(read, whole, count, 6)
    finally:
        path.write_bytes(whole)


def test_captioned_images(written, tmp_path):
    root, reader = written("img2dataset"), READERS["img2dataset"]
    path = reader.path(root)
    whole = path.read_bytes()
    for mutant in mutated(whole, 80, 7):
        path.write_bytes(mutant)
        source = reader.source(root)
        chunks = []
        for ref in source.refs():
            prepare(CaptionJob(source=source, image=ImageConfig(), ref=ref), tmp_path)
            chunks.append(captions._chunk(tmp_path))
        assert [chunk.samples for chunk in chunks[::2]] == [2, 2]
        assert chunks[1].samples == 2 or chunks[1].skipped
    path.write_bytes(whole)


BOMBS = """
import io, json, struct, sys, zipfile, zlib
import numpy as np
from foundry_core.data.images import decode_image
from foundry_core.data.npy import read_npz
from foundry_core.data.sources.robot.npz_files import NpzFile
from foundry_core.data.sources.robot.zarr_v2 import open_array, open_store
from foundry_core.errors import FoundryError
from pathlib import Path

def refused(read, *arguments):
    try:
        read(*arguments)
    except FoundryError as error:
        assert str(error).isprintable()
        return
    raise SystemExit(f"{read} took it")

folder = Path(sys.argv[1])
packed = io.BytesIO()
said = b"{'descr': '<f8', 'fortran_order': False, 'shape': (300000000,), }"
header = b"\\x93NUMPY\\x01\\x00v\\x00" + said.ljust(117) + b"\\n"
with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    with archive.open("a.npy", "w", force_zip64=True) as stream:
        stream.write(header)
        for _ in range(2400):
            stream.write(bytes(1_000_000))
data = packed.getvalue()
assert len(data) < 20_000_000
(folder / "a.npz").write_bytes(data)
refused(NpzFile.at(folder / "a.npz").array, "a")
refused(read_npz, data)

def chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

def png(side, *chunks):
    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    ends = chunk(b"IEND", b"")
    return b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", size) + b"".join(chunks) + ends

refused(decode_image, png(65500, chunk(b"IDAT", zlib.compress(bytes(10**6)))))
text = chunk(b"zTXt", b"a\\0\\0" + zlib.compress(bytes(10**9 // 2), 1))
refused(decode_image, png(8, text, chunk(b"IDAT", b"")))

array = folder / "z" / "data" / "x"
array.mkdir(parents=True)
meta = {"zarr_format": 2, "shape": [9], "chunks": [9], "dtype": "<f8", "fill_value": 0,
        "order": "C", "compressor": {"id": "zlib"}, "filters": None}
(array / ".zarray").write_text(json.dumps(meta))
(array / "0").write_bytes(zlib.compress(bytes(10**5)))
refused(open_array(open_store(folder / "z"), "data/x", "z").rows, 0, 9)
(array / ".zarray").write_text(json.dumps(meta | {"shape": [10**12], "chunks": [10**12]}))
refused(open_array(open_store(folder / "z"), "data/x", "z").rows, 0, 9)
"""


def test_bombs_are_refused_within_two_gigabytes_and_a_minute(tmp_path):
    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

    done = subprocess.run(
        [sys.executable, "-c", BOMBS, str(tmp_path)],
        preexec_fn=bounded,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout
