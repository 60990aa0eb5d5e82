"""LeRobot v2.1 and v3.0: sets that LeRobot wrote, against what its own reader gave, and sets made
here for what can go wrong.

The former are folders `lerobot_*` with data_root, expected.json and arrays.npz.
"""

import hashlib
import io
import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow.parquet import read_table, write_table

from foundry_core.data.convert.read import read_bounded
from foundry_core.data.export.lerobot import export_lerobot
from foundry_core.data.images import decode_image
from foundry_core.data.robot.episodes import Episode, UnusableEpisode
from foundry_core.data.sources.robot import lerobot_tables
from foundry_core.data.sources.robot.lerobot import Lerobot
from foundry_core.data.sources.robot.lerobot_cameras import (
    DepthCode,
    stored_depth,
    stored_pictures,
)
from foundry_core.data.sources.robot.lerobot_meta import Feature
from foundry_core.data.sources.robot.lerobot_tables import EpisodeRows
from foundry_core.data.video import VideoReader
from foundry_core.errors import FoundryError
from tests.lerobot_sets import FPS, coded, digits, make_coded_shards, make_old, read_digits
from tests.real_data import ABSENT, FORMATS

FRONT = "observation.images.front"
ORIGINALS = sorted(FORMATS.glob("lerobot_*"))


def pixels(picture: bytes | np.ndarray) -> np.ndarray:
    return decode_image(picture) if isinstance(picture, bytes) else picture


def episodes(root: Path) -> list[Episode]:
    source = Lerobot(path=str(root))
    return [source.read_episode(ref) for ref in source.episodes()]


@pytest.mark.skipif(not ORIGINALS, reason=ABSENT)
@pytest.mark.parametrize("folder", ORIGINALS, ids=lambda folder: folder.name)
def test_sets_that_lerobot_wrote_are_read_as_it_reads_them(folder):
    expected = json.loads((folder / "expected.json").read_text())
    source = Lerobot(path=str(folder / "data_root"))
    assert source.contract().hz == expected["fps"]
    refs = source.episodes()
    assert len(refs) == expected["num_episodes"]
    with np.load(folder / "arrays.npz") as arrays:
        for ref, wanted in zip(refs, expected["episodes"], strict=True):
            if wanted.get("error"):
                with pytest.raises(UnusableEpisode):
                    read_all(source.read_episode(ref))
                continue
            episode = source.read_episode(ref)
            assert episode.instructions["original"] == wanted["tasks_in_order"]
            assert episode.length == wanted["length"]
            check_fields(episode, wanted, arrays)
            check_pictures(episode, wanted["images"], wanted["episode_index"])
            check_depth(episode, expected.get("depth", {}), wanted["key"])


def read_all(episode: Episode) -> None:
    for frames in (*episode.images.values(), *episode.depth.values()):
        assert len(list(frames)) == episode.length


def check_fields(episode: Episode, wanted: dict, arrays) -> None:
    for field in wanted["fields"]:
        key = f"{wanted['key']}|{field}"
        if key not in arrays.files:
            continue
        stored, read = arrays[key], episode.lowdim[field]
        assert read.shape == (len(stored), int(np.prod(stored.shape[1:])))
        assert np.array_equal(read, stored.reshape(read.shape), equal_nan=True), field


def check_pictures(episode: Episode, wanted: dict, number: int) -> None:
    for camera, frames in wanted.items():
        for step, picture in enumerate(episode.images[camera]):
            assert read_digits(pixels(picture)) == digits(number, step)
        for step, known in frames.items():
            picture = pixels(episode.images[camera][int(step)])
            assert list(picture.shape) == known["shape"]
            assert np.abs(picture.reshape(-1, 3).mean(0) - known["mean"]).max() < 4
            if "sha256_pixels" in known:
                assert hashlib.sha256(picture.tobytes()).hexdigest() == known["sha256_pixels"]


def check_depth(episode: Episode, wanted: dict, key: str) -> None:
    for step, known in wanted.get("frames", {}).get(key, {}).items():
        depth = episode.depth[wanted["camera"]][int(step)]
        millimetres = np.round(depth.astype(np.float64) * 1000)
        assert depth.dtype == np.float32
        assert abs(millimetres.mean() - known["mm_mean"]) < 0.01
        assert (millimetres.min(), millimetres.max()) == (known["mm_min"], known["mm_max"])
        assert millimetres[0, 0] == known["mm_at_0_0"]


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    return make_old(tmp_path_factory.mktemp("old") / "set")


@pytest.fixture(scope="module")
def new(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("new")
    export_lerobot(str(make_coded_shards(folder / "shards")), folder / "set")
    return folder / "set"


@pytest.fixture
def copy(old, tmp_path) -> Path:
    return Path(shutil.copytree(old, tmp_path / "copy"))


def test_an_old_set_is_read(old):
    source = Lerobot(path=str(old))
    contract = source.contract()
    assert (contract.hz, contract.cameras[FRONT].drawn) == (FPS, (64, 64))
    first, second = episodes(old)
    assert (first.id, first.hz, first.task, first.success) == ("episode_000000", FPS, "close", None)
    assert first.instructions == {"original": ["close", "open"], "remark": ["careful", "done"]}
    assert {name: values.shape for name, values in second.lowdim.items()} == {
        "observation.state": (7, 3), "pose": (7, 4), "next.done": (7, 1), "timestamp": (7, 1),
        "frame_index": (7, 1), "episode_index": (7, 1), "task_index": (7, 1),
    }  # fmt: skip
    assert second.lowdim["observation.state"].dtype == np.float32
    assert second.lowdim["next.done"][:, 0].tolist() == [0.0] * 6 + [1.0]
    for number, episode in enumerate((first, second)):
        check_pictures(episode, {FRONT: {}}, number)


def test_a_new_set_is_read_by_time_within_one_file(new):
    for number, episode in reversed(list(enumerate(episodes(new)))):
        check_pictures(episode, {FRONT: {}}, number)
        assert episode.success is (number != 1)


def test_of_a_camera_that_is_not_asked_for_nothing_is_opened(new, monkeypatch):
    def refuse(self):
        raise AssertionError("opened")

    monkeypatch.setattr(VideoReader, "_open", refuse)
    assert len(episodes(new)[0].images[FRONT]) == 12


def test_rows_come_from_the_groups_of_their_episode_alone(tmp_path):
    path = tmp_path / "file.parquet"
    held = np.repeat(np.arange(40), 50)
    table = pa.table({"episode_index": held, "x": np.arange(2000.0)})
    write_table(table, path, row_group_size=500)
    rows = lerobot_tables.episode_rows(path, 23)
    assert (rows.groups, rows.first, rows.length) == ((2,), 150, 50)
    assert rows.read(["x"])["x"].to_pylist() == list(range(1150, 1200))
    write_table(table, path, row_group_size=70)  # an episode in two groups
    rows = lerobot_tables.episode_rows(path, 23)
    assert len(rows.groups) == 2
    assert rows.read(["x"])["x"].to_pylist() == list(range(1150, 1200))
    write_table(table, path, write_statistics=False)
    assert lerobot_tables.episode_rows(path, 39).read(["x"])["x"].to_pylist()[-1] == 1999


def damage_table(root: Path, change) -> str:
    path = root / "data/chunk-000/episode_000000.parquet"
    table = read_table(path)
    changed = pa.table(change({n: table[n].combine_chunks() for n in table.column_names}))
    try:
        write_table(changed, path)
    except pa.ArrowNotImplementedError as error:
        if int(pa.__version__.partition(".")[0]) >= 26:
            raise
        pytest.skip(f"pyarrow {pa.__version__} cannot write it: {error}")
    return path.name


def with_null(columns: dict, name: str, step: int) -> dict:
    values = columns[name].to_pylist()
    values[step] = None
    return columns | {name: pa.array(values, columns[name].type)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: with_null(c, "next.done", 5), "'next.done' is null at step 5"),
        (lambda c: with_null(c, "observation.state", 4), "does not hold 3 values at step 4"),
        (
            lambda c: c | {"pose": pa.array([[[1.0, 2.0]] * 2] * 6 + [[[1.0], [2.0, 3.0]]] * 6)},
            "'pose' does not hold 2 values at step 6",
        ),
        (lambda c: c | {"frame_index": pa.array([0, 1, 3, *range(3, 12)])}, "is 3 at step 2"),
        (lambda c: c | {"task_index": pa.array([0] * 9 + [7] * 3)}, "'task_index' is 7 at step 9"),
        (lambda c: {k: v for k, v in c.items() if k != "pose"}, "has no column 'pose'"),
        (lambda c: {k: v[:10] for k, v in c.items()}, "holds 10 rows .* meta says 12"),
        (lambda c: c | {"episode_index": pa.array([9] * 12)}, "holds no row of episode 0"),
        (lambda c: c | {"episode_index": pa.array([0, 9] * 6)}, "scattered"),
        (lambda c: c | {"pose": pa.array([{"a": 1}] * 12)}, "'pose' holds struct<a: int64>"),
        (lambda c: c | {"next.done": pa.array([[[True]]] * 12)}, "more axes than the shape"),
    ],
)  # fmt: skip
def test_a_damaged_episode_is_named_and_the_others_are_read(copy, change, message):
    name = damage_table(copy, change)
    source = Lerobot(path=str(copy))
    bad, good = source.episodes()
    with pytest.raises(UnusableEpisode, match=f"{name}.*{message}|{message}.*{name}"):
        source.read_episode(bad)
    read_all(source.read_episode(good))


def test_a_damaged_file_spoils_its_episode_alone(copy):
    table = copy / "data/chunk-000/episode_000000.parquet"
    video = copy / f"videos/1/{FRONT}/000001.mp4"
    table.write_bytes(table.read_bytes()[:900])
    video.unlink()
    source = Lerobot(path=str(copy))
    first, second = source.episodes()
    with pytest.raises(UnusableEpisode, match=r"episode_000000.parquet is not readable"):
        source.read_episode(first)
    episode = source.read_episode(second)
    with pytest.raises(UnusableEpisode, match=rf"'{FRONT}' at step 0: .*000001.mp4"):
        episode.images[FRONT][0]


def test_a_time_without_a_frame_names_camera_and_step(copy):
    damage_table(
        copy,
        lambda c: c | {"timestamp": pa.array(np.r_[np.arange(11) / 10, 9.0].astype(np.float32))},
    )
    source = Lerobot(path=str(copy))
    episode = source.read_episode(source.episodes()[0])
    assert read_digits(pixels(episode.images[FRONT][10])) == digits(0, 10)
    with pytest.raises(UnusableEpisode, match=r"at step 11: .*no frame at 9.000000 s"):
        episode.images[FRONT][11]


def rewrite_info(root: Path, **changes) -> Lerobot:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return Lerobot(path=str(root))


@pytest.mark.parametrize(
    "template",
    [
        "../{episode_index:06d}.parquet",
        "/etc/{episode_index}",
        "data/.hidden/{episode_index}.parquet",
        "{episode_index.__class__}",
        "{episode_index:0999999999d}",
        "{episode_index!r}",
        "{episode_index:{episode_chunk}}",
        "{0}",
        "{",
        "{secret}",
    ],
)
def test_a_template_leads_nowhere_else(copy, template):
    source = rewrite_info(copy, data_path=template)
    with pytest.raises(UnusableEpisode, match=r"path template|not a visible file"):
        source.read_episode(source.episodes()[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v1.6"}, "version v1.6; v2.1 and v3.0 are read"),
        ({"codebase_version": "v4.0"}, "version v4.0"),
        ({"fps": 0}, "fps"),
        ({"features": {}}, "features"),
        ({"data_path": None}, "data_path"),
    ],
)
def test_what_is_no_such_set_is_refused(copy, changes, message):
    with pytest.raises(FoundryError, match=message):
        rewrite_info(copy, **changes).episodes()


def test_a_folder_without_info_is_refused(tmp_path):
    with pytest.raises(FoundryError, match=r"holds no meta/info.json"):
        Lerobot(path=str(tmp_path)).episodes()


def test_a_list_of_episodes_that_is_none_is_refused(copy):
    (copy / "meta/episodes.jsonl").write_text('{"episode_index": 0}\n')
    with pytest.raises(FoundryError, match=r"episodes.jsonl is not LeRobot's"):
        Lerobot(path=str(copy)).episodes()


def table_of_pictures(path: Path, data: bytes | None) -> EpisodeRows:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cell = {"bytes": data, "path": "/etc/passwd"}
    write_table(pa.table({"top": pa.array([cell] * 2, kind)}), path)
    return EpisodeRows(path=path, groups=(0,), first=0, length=2, names=("top",))


def png_header(side: int) -> bytes:
    chunk = b"IHDR" + side.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\r" + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return head + b"\x00\x00\x00\x00IDAT"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "holds no bytes"),
        (b"no picture", "not a readable image"),
        (png_header(65500), r"not a readable image: Image size \(4290250000 pixels\)"),
        (png_header(9000), "9000 x 9000 pixels"),
    ],
)
def test_a_bad_picture_in_a_table_is_named(tmp_path, data, message):
    rows = table_of_pictures(tmp_path / "file.parquet", data)
    with pytest.raises(UnusableEpisode, match=f"'top' at step 1.*{message}"):
        stored_pictures(rows, "top")[1]


def test_images_of_depth_are_metres(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, 1500]], np.uint16)).save(buffer, "TIFF")
    rows = table_of_pictures(tmp_path / "file.parquet", buffer.getvalue())
    depth = stored_depth(rows, "top", DepthCode(unit="mm"))[0]
    assert (depth.dtype, depth.tolist()) == (np.float32, [[0.0, 1.5]])
    rows = table_of_pictures(tmp_path / "cut.parquet", buffer.getvalue()[:-4])
    with pytest.raises(UnusableEpisode, match="'top' at step 0"):
        stored_depth(rows, "top", DepthCode())[0]


def test_tasks_are_found_by_their_index_whatever_their_column_is_called(new, tmp_path):
    root = Path(shutil.copytree(new, tmp_path / "set"))
    noted = json.dumps({"index_columns": ["__index_level_0__"], "columns": []})
    table = pa.table({"__index_level_0__": ["second", "first"], "task_index": [1, 0]})
    write_table(table.replace_schema_metadata({"pandas": noted}), root / "meta/tasks.parquet")
    assert [e.instructions["original"] for e in episodes(root)] == [
        ["first"],
        ["second"],
        ["first"],
    ]


def no_texts(values: list) -> pa.Array:
    """Arrow's strings of what is no UTF-8, as writers in other languages leave them."""
    held = pa.array([value.encode(errors="surrogatepass") for value in values], pa.binary())
    return pa.Array.from_buffers(pa.string(), len(held), held.buffers())


def test_tasks_that_are_no_texts_spoil_their_episodes_alone(new, old, tmp_path):
    root = Path(shutil.copytree(new, tmp_path / "set"))
    tasks = read_table(root / "meta/tasks.parquet")
    texts = no_texts(["\ud800 lift", "lift cube 1"])
    write_table(
        pa.table({"task": texts, "task_index": tasks["task_index"]}), root / "meta/tasks.parquet"
    )
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = read_table(path)
    lists = pa.ListArray.from_arrays(
        [0, 1, 2, 3], no_texts(["\ud800 lift", "lift cube 1", "\ud800 lift"])
    )
    write_table(table.set_column(table.column_names.index("tasks"), "tasks", lists), path)
    source = Lerobot(path=str(root))
    refs = source.episodes()
    assert all(source.reads(ref).files for ref in refs)
    (root / "meta/instructions.jsonl").unlink(missing_ok=True)
    assert read_bounded(source, refs[1]).instructions["original"] == ["lift cube 1"]
    for number in (0, 2):
        with pytest.raises(UnusableEpisode, match="Unicode"):
            read_bounded(source, refs[number])


def test_pictures_of_other_axes_and_depth():
    def feature(shape, names=None, **info):
        return Feature(dtype="video", shape=shape, names=names, info=info)

    assert feature((3, 48, 64)).size == feature((48, 64, 3)).size == (48, 64)
    assert feature((64, 3, 48), ["width", "channel", "height"]).size == (48, 64)
    depth = feature(
        (4, 4, 1), is_depth_map=True, **{"video.depth_max": 4.0, "video.use_log": False}
    )
    code = DepthCode.of(depth, "depth")
    assert np.allclose(code.metres(np.array([0, 4095], np.uint16)), [0.01, 4.0])
    default = DepthCode().metres(np.array([0, 4095], np.uint16))
    assert np.allclose(default, [0.01, 10.0])
    with pytest.raises(FoundryError, match="no depth can be coded"):
        DepthCode.of(feature((4, 4, 1), depth_unit="miles"), "depth")


@pytest.mark.parametrize("values", [None, ["0", "1", "2"], [0, None, 2]])
def test_a_table_of_episodes_without_their_numbers_is_refused(new, tmp_path, values):
    root = Path(shutil.copytree(new, tmp_path / "set"))
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = read_table(path).drop_columns(["episode_index"])
    if values is not None:
        table = table.append_column("episode_index", [values])
    write_table(table, path)
    with pytest.raises(FoundryError, match=r"meta/episodes: not every row has 'episode_index'"):
        Lerobot(path=str(root)).episodes()


def test_where_a_video_lies_is_asked_of_its_row(new, tmp_path):
    root = Path(shutil.copytree(new, tmp_path / "set"))
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    column = f"videos/{FRONT}/from_timestamp"
    table = read_table(path)
    starts = table[column].to_pylist()
    starts[1] = None
    write_table(table.drop_columns([column]).append_column(column, [starts]), path)
    first, second, _ = episodes(root)
    read_all(first)
    with pytest.raises(UnusableEpisode, match=rf"{FRONT}' at step 0: .*no number '{column}'"):
        second.images[FRONT][0]


def test_lasting_words_are_instructions_by_their_style():
    said = [
        {"style": "subtask", "content": "reach"},
        {"style": "task_aug", "content": "please lift"},
        {"style": "subtask", "content": "reach"},
        {"style": None, "content": "hm"},
        {"style": "subtask", "content": None},
        {"style": "subtask", "content": "lift"},
    ]
    assert lerobot_tables.spoken(pa.chunked_array([[said] * 3])) == {
        "subtask": ["reach", "lift"],
        "task_aug": ["please lift"],
    }


def test_coded_pictures_can_be_told_apart():
    assert read_digits(coded(3, 47)) == [3, 4, 7]
