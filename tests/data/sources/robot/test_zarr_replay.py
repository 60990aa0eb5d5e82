"""Replay buffers in Zarr format 2."""

import json
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest

from foundry_core.data.robot.episodes import UnusableEpisode
from foundry_core.data.sources.robot.zarr_replay import ZarrReplay
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import fingerprint
from tests.data.sources.robot.expected import expected, read_all

ROWS = 7
ENDS = (3, 7)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))


def arrays():
    random = np.random.default_rng(0)
    return {
        "action": random.normal(size=(ROWS, 2)).astype(np.float32),
        "state": random.normal(size=(ROWS, 5)).astype(">f8"),
        "keypoint": random.normal(size=(ROWS, 3, 2)),
        "grasped": np.arange(ROWS) % 2 == 0,
        "img": random.integers(0, 256, (ROWS, 6, 5, 3)).astype(np.float32),
        "camera0_rgb": random.integers(0, 256, (ROWS, 6, 5, 3)).astype(np.uint8),
        "depth": random.random((ROWS, 80, 80)).astype(np.float32),
    }


def metadata(array, chunks, **others):
    return {
        "zarr_format": 2, "shape": list(array.shape), "chunks": list(chunks), "filters": None,
        "dtype": array.dtype.str, "compressor": None, "fill_value": 0, "order": "C", **others,
    }  # fmt: skip


def store(folder, name, array, pack=bytes, **others):
    """Writes one array in chunks of 2 rows and halves of the second axis."""
    chunks = [
        2,
        *(-(-size // 2) if axis == 0 else size for axis, size in enumerate(array.shape[1:])),
    ]
    place = folder / name
    place.mkdir(parents=True)
    meta = metadata(array, chunks, **others)
    (place / ".zarray").write_text(json.dumps(meta))
    grid = [-(-size // chunk) for size, chunk in zip(array.shape, chunks, strict=True)]
    for at in np.ndindex(*grid):
        chunk = np.zeros(chunks, array.dtype)
        part = array[tuple(slice(i * c, (i + 1) * c) for i, c in zip(at, chunks, strict=True))]
        chunk[tuple(slice(0, size) for size in part.shape)] = part
        separator = meta.get("dimension_separator", ".")
        file = place / separator.join(map(str, at))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pack(chunk.tobytes(order=meta["order"])))


def buffer(folder, ends=ENDS, **others):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    store(folder, "meta/episode_ends", np.array(ends, np.int64))
    for name, array in arrays().items():
        store(folder, f"data/{name}", array, **others)
    return folder


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


def check(found):
    assert [one.length for one in found] == [3, 4]
    for one, (start, stop) in zip(found, [(0, 3), (3, 7)], strict=True):
        for name, values in arrays().items():
            if name in ("img", "camera0_rgb"):
                pixels = [np.asarray(image) for image in one.images[name]]
                assert {image.dtype for image in pixels} == {np.dtype(np.uint8)}
                assert np.array_equal(np.stack(pixels), values[start:stop])
            elif name == "depth":
                assert name not in one.lowdim
                assert np.array_equal(np.stack(one.depth[name]), values[start:stop])
            else:
                assert np.array_equal(
                    one.lowdim[name], values[start:stop].reshape(len(pixels_of(one)), -1)
                )
        assert one.lowdim["state"].dtype == np.dtype("f8")


def pixels_of(episode):
    return episode.images["img"]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("zarr_pusht", "pusht_cchi_fixture.zarr"),
        ("zarr_pusht", ""),
        ("zarr_umi_zip", "dataset.zarr.zip"),
    ],
)
def test_values_are_those_of_the_original_reader(shared_data, name, place):
    pytest.importorskip("numcodecs")
    wanted = expected(shared_data, name)
    source = ZarrReplay(path=str(wanted.folder / place), hz=wanted.document["fps"])
    found = read_all(source)
    wanted.check(found)
    assert [ref.stop for ref in source.episodes()] == wanted.document["episode_ends"]
    assert {one.hz for one in found} == {float(wanted.document["fps"])}


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"order": "F"},
        {"dimension_separator": "/"},
        {"compressor": {"id": "zlib", "level": 1}, "pack": zlib.compress},
    ],
)
def test_folders_and_zips(tmp_path, layout):
    folder = buffer(tmp_path / "set" / "a.zarr", **layout)
    check(read_all(ZarrReplay(path=str(folder), hz=10)))
    assert [ref.name for ref in ZarrReplay(path=str(folder), hz=10).episodes()] == [
        "episode_0", "episode_1",
    ]  # fmt: skip
    file = zipped(folder, tmp_path / "set" / "b.zarr.zip")
    check(read_all(ZarrReplay(path=str(file), hz=10)))
    both = read_all(ZarrReplay(path=str(tmp_path / "set"), hz=10, instruction="push"))
    assert [one.id for one in both] == ["a_episode_0", "a_episode_1", "b_episode_0", "b_episode_1"]
    assert both[0].instructions == {"original": ["push"]}


@pytest.mark.parametrize("codec", ["blosc", "zstd", "lz4"])
def test_codecs_by_zarr_itself(tmp_path, codec):
    zarr, numcodecs = pytest.importorskip("zarr"), pytest.importorskip("numcodecs")
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    values = {**{f"data/{k}": v for k, v in arrays().items()}, "meta/episode_ends": np.array(ENDS)}
    for name, array in values.items():
        root.create_array(
            name,
            data=array,
            chunks=(3, *array.shape[1:]),
            compressors=numcodecs.get_codec({"id": codec}),
        )
    check(read_all(ZarrReplay(path=str(tmp_path / "a.zarr"), hz=10)))


def test_pictures_as_jpeg_xl(tmp_path):
    """UMI: a chunk is one frame."""
    imagecodecs = pytest.importorskip("imagecodecs")
    folder = buffer(tmp_path / "a.zarr")
    frames = arrays()["camera0_rgb"]
    place = folder / "data/camera0_rgb"
    codec = {"id": "imagecodecs_jpegxl", "lossless": True}
    meta = metadata(frames, (1, 6, 5, 3), compressor=codec)
    (place / ".zarray").write_text(json.dumps(meta))
    for step, frame in enumerate(frames):
        (place / f"{step}.0.0.0").write_bytes(imagecodecs.jpegxl_encode(frame, lossless=True))
    source = ZarrReplay(path=str(folder), hz=60)
    check(read_all(source))
    (place / "1.0.0.0").write_bytes(imagecodecs.jpegxl_encode(np.zeros((600, 500, 3), np.uint8)))
    with pytest.raises(UnusableEpisode, match=r"camera0_rgb/1.0.0.0 is not readable"):
        read_all(source)[0].images["camera0_rgb"][1]


def test_a_chunk_that_is_not_stored_is_the_fill_value(tmp_path):
    folder = buffer(tmp_path / "a.zarr")
    (folder / "data/action/0.0").unlink()
    found = read_all(ZarrReplay(path=str(folder), hz=10))
    assert found[0].lowdim["action"][:2, 0].tolist() == [0, 0]
    assert np.array_equal(found[0].lowdim["action"][2], arrays()["action"][2])


def test_metadata_belong_to_what_is_identified(tmp_path):
    """`.zarray` has a leading dot, and without it the chunks mean nothing."""
    folder = buffer(tmp_path / "a.zarr")
    before = fingerprint(folder)
    path = folder / "data/action/.zarray"
    path.write_text(path.read_text().replace("<f4", "<i4"))
    assert fingerprint(folder) != before


def edit(name, **others):
    def change(folder):
        path = folder / name / ".zarray"
        path.write_text(json.dumps(json.loads(path.read_text()) | others))

    return change


def chunk(name, data, **others):
    def change(folder):
        (folder / name).write_bytes(data)
        if others:
            edit(name.rpartition("/")[0], **others)(folder)

    return change


BLOSC = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
HUGE = {"shape": [ROWS, 10**9], "chunks": [ROWS, 10**9]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("data/action", dtype="|O"), r"data/action is not readable: .*'\|O', not plain"),
        (edit("data/action", dtype=[["a", "<f4"]]), "not plain numbers"),
        (edit("data/action", compressor={"id": "pickle"}), r"action/0.0 .* 'pickle' is not read"),
        (edit("data/action", filters=[{"id": "pickle"}]), "filters .'pickle'. are not read"),
        (edit("data/action", shape=[5, 2]), "action has 5 rows; meta/episode_ends ends at 7"),
        (edit("data/action", chunks=[0, 2]), "sizes"),
        (edit("data/action", chunks=[10**9, 2]), "action takes 8,000,000,000 bytes"),
        (edit("data/img", shape=[ROWS, 10**5, 10**5, 3]), "img takes 120,000,000,000 bytes"),
        (edit("data/action", fill_value=None), None),
        (chunk("data/action/0.0", b"short"), r"action/0.0 is not readable: 5 bytes; a chunk has 8"),
        (
            chunk("data/action/0.0", zlib.compress(bytes(10**7)), compressor={"id": "zlib"}),
            "9 bytes; a chunk has 8",
        ),
        (
            chunk("data/action/0.0", b"\2\1\1\1" + b"\xff" * 12, compressor=BLOSC),
            "blosc says 4294967295 bytes; a chunk has 8",
        ),
        (
            chunk("data/action/0.0", b"\2\1\1\1\x08\0\0\0" + bytes(8), compressor=BLOSC),
            r"action/0.0 is not readable",
        ),
        (chunk("data/action/.zarray", b"{"), "data/action is not readable"),
        (edit("meta/episode_ends", dtype="<f8"), "episode_ends is no list of rows"),
        (chunk("meta/episode_ends/0", b""), "episode_ends/0 is not readable: 0 bytes"),
        (edit("meta/episode_ends", shape=[10**12], chunks=[10**12]), "episode_ends takes"),
    ],
)
def test_what_is_refused(tmp_path, change, message):
    pytest.importorskip("numcodecs")
    folder = buffer(tmp_path / "a.zarr")
    change(folder)
    for path in (folder, zipped(folder, tmp_path / "b.zarr.zip")):
        source = ZarrReplay(path=str(path), hz=10)
        if message is None:
            check(read_all(source))
            continue
        with pytest.raises(UnusableEpisode, match=message) as caught:
            read_all(source)
        assert path.name in str(caught.value)


def test_pictures_that_are_no_pictures(tmp_path):
    folder = buffer(tmp_path / "a.zarr")
    values = np.zeros((2, 3, 5, 3), np.float32)
    values[1, 0, 0, 0] = 0.5
    (folder / "data/img/0.0.0.0").write_bytes(values.tobytes())
    (first, _) = read_all(ZarrReplay(path=str(folder), hz=10))
    assert first.images["img"][0].dtype == np.uint8
    with pytest.raises(UnusableEpisode, match="img at step 1: floats that are no whole numbers"):
        first.images["img"][1]


@pytest.mark.parametrize(
    ("ends", "message"), [((0, 7), "has no steps"), ((5, 3), "ends before it begins")]
)
def test_episodes_without_steps(tmp_path, ends, message):
    folder = buffer(tmp_path / "a.zarr", ends)
    with pytest.raises(UnusableEpisode, match=message):
        read_all(ZarrReplay(path=str(folder), hz=10))


def test_a_buffer_that_cannot_be_listed_costs_its_own_episodes(tmp_path):
    buffer(tmp_path / "a.zarr")
    (tmp_path / "b.zarr.zip").write_bytes(b"PK no zip")
    source = ZarrReplay(path=str(tmp_path), hz=10)
    refs = source.episodes()
    assert [ref.name for ref in refs] == ["a.zarr/episode_0", "a.zarr/episode_1", "b.zarr.zip"]
    with pytest.raises(UnusableEpisode, match=r"b.zarr.zip is not readable"):
        source.read_episode(refs[2])


def test_what_is_no_buffer(tmp_path):
    with pytest.raises(FoundryError, match="holds no meta/episode_ends"):
        ZarrReplay(path=str(tmp_path), hz=10).episodes()
    (tmp_path / "c.zarr/meta/episode_ends").mkdir(parents=True)
    (tmp_path / "c.zarr/meta/episode_ends/zarr.json").write_text("{}")
    with pytest.raises(FoundryError, match="Zarr format 2"):
        ZarrReplay(path=str(tmp_path), hz=10).episodes()


def test_the_extra_is_named_where_it_is_missing(tmp_path):
    folder = buffer(tmp_path / "a.zarr", compressor=BLOSC)
    (folder / "data/action/0.0").write_bytes(b"\2\1\1\1\x08\0\0\0" + bytes(8))
    code = (
        "import sys\n"
        "sys.modules['numcodecs'] = None\n"
        "from foundry_core.data.sources.robot.zarr_replay import ZarrReplay\n"
        f"source = ZarrReplay(path={str(folder)!r}, hz=10)\n"
        "source.read_episode(source.episodes()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'foundry-robotics[zarr]'" in done.stderr.splitlines()[-1]
    assert "UnusableEpisode" not in done.stderr.splitlines()[-1]
