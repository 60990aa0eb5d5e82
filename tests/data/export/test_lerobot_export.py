"""Our shards → LeRobot v3.0 → our reader: equal."""

import json

import numpy as np
import pytest
from pyarrow.parquet import ParquetFile

from flows.cli import main
from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.export import lerobot_files
from foundry_core.data.export.lerobot import export_lerobot
from foundry_core.data.images import decode_image
from foundry_core.data.npy import read_npz
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.sources.robot.lerobot import Lerobot
from foundry_core.errors import FoundryError
from tests.lerobot_sets import STATE_FIELDS, digits, make_coded_shards, read_digits
from tests.synthetic import make_robot

FRONT = "observation.images.front"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_coded_shards(tmp_path_factory.mktemp("shards") / "arm")


def check_equal(shards, out, *, exact: bool) -> None:
    source, stored = Lerobot(path=str(out)), ShardSet(shards)
    refs = source.episodes()
    assert len(refs) == len(stored)
    for number, ref in enumerate(refs):
        members, episode = stored.members(number), source.read_episode(ref)
        for name, values in read_npz(members["lowdim.npz"]).items():
            read = episode.lowdim[name]
            assert read.dtype == np.float64
            assert np.array_equal(read, values.reshape(len(values), -1)), name
        for step, picture in enumerate(episode.images[FRONT]):
            wanted = decode_image(members[f"front_{step:06d}.jpg"])
            if exact:
                assert isinstance(picture, bytes)
                assert np.array_equal(decode_image(picture), wanted)
            else:
                assert read_digits(picture) == digits(number, step)
                assert np.abs(picture.astype(int) - wanted).mean() < 4
        told = {"original": [f"lift cube {number % 2}"], "randomized": ["up"]}
        assert episode.instructions == told
        assert episode.success is (number != 1)


def test_lossless_pictures_and_all_numbers_come_back_bit_for_bit(shards, tmp_path):
    counts = export_lerobot(str(shards), tmp_path / "out", images="png")
    assert counts == {"episodes": 3, "frames": 44, "tasks": 2, "features": 16}
    check_equal(shards, tmp_path / "out", exact=True)
    source = Lerobot(path=str(tmp_path / "out"))
    first = source.read_episode(source.episodes()[0]).images[FRONT][0]
    assert first[:8] == b"\x89PNG\r\n\x1a\n"


def test_videos_come_back_frame_by_frame(shards, tmp_path, capsys):
    assert main(["data", "export", str(shards), str(tmp_path / "out"), "--to", "lerobot"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 44
    check_equal(shards, tmp_path / "out", exact=False)
    assert len(list((tmp_path / "out/videos").rglob("*.mp4"))) == 1


@pytest.mark.parametrize("hz", [12.5, 29.97, 60000 / 1001])
def test_any_rate_finds_its_frames_again(tmp_path, hz):
    shards = make_coded_shards(tmp_path / "shards", (60, 3), hz=hz)
    export_lerobot(str(shards), tmp_path / "out")
    source = Lerobot(path=str(tmp_path / "out"))
    assert source.contract().hz == hz
    for number, ref in enumerate(source.episodes()):
        for step, picture in enumerate(source.read_episode(ref).images[FRONT]):
            assert read_digits(picture) == digits(number, step)


def test_files_roll_over_without_splitting_an_episode(shards, tmp_path, monkeypatch):
    for name, value in {"CHUNK_FILES": 2, "DATA_MB": 0, "VIDEO_MB": 0}.items():
        monkeypatch.setattr(lerobot_files, name, value)
    export_lerobot(str(shards), tmp_path / "out")
    names = ["chunk-000/file-000", "chunk-000/file-001", "chunk-001/file-000"]
    for folder, ending in (("data", "parquet"), (f"videos/{FRONT}", "mp4")):
        found = sorted((tmp_path / "out" / folder).rglob(f"*.{ending}"))
        assert [str(f.relative_to(tmp_path / "out" / folder)) for f in found] == [
            f"{name}.{ending}" for name in names
        ]
    check_equal(shards, tmp_path / "out", exact=False)


def test_state_and_action_are_joined_and_named(shards, tmp_path):
    export_lerobot(str(shards), tmp_path / "out", images="png")
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    state = info["features"]["observation.state"]
    assert (state["dtype"], state["shape"]) == ("float32", [10])
    assert state["names"][:4] == [f"{STATE_FIELDS[0]}.{i}" for i in range(3)] + [
        f"{STATE_FIELDS[1]}.0"
    ]
    source = Lerobot(path=str(tmp_path / "out"))
    lowdim = source.read_episode(source.episodes()[0]).lowdim
    joined = np.concatenate([lowdim[name] for name in STATE_FIELDS], axis=1)
    assert np.array_equal(lowdim["observation.state"][:, :9], joined.astype(np.float32))
    assert info["features"]["action"]["names"][0].startswith("robot__action__")


def test_statistics_are_those_of_the_values(shards, tmp_path):
    export_lerobot(str(shards), tmp_path / "out", images="png")
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    source = Lerobot(path=str(tmp_path / "out"))
    read = [source.read_episode(ref) for ref in source.episodes()]
    name = STATE_FIELDS[0]
    values = np.concatenate([episode.lowdim[name] for episode in read])
    assert stats[name]["count"] == [44]
    for kind, wanted in {
        "min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0),
        "q10": np.quantile(values, 0.1, axis=0), "q99": np.quantile(values, 0.99, axis=0),
    }.items():  # fmt: skip
        assert np.allclose(stats[name][kind], wanted), kind
    rows = ParquetFile(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet").read().to_pylist()
    assert np.allclose(rows[1][f"stats/{name}/mean"], read[1].lowdim[name].mean(0))
    assert np.shape(stats[FRONT]["mean"]) == (3, 1, 1)
    assert 0.3 < stats[FRONT]["mean"][0][0][0] < 0.4


def test_what_cannot_be_exported_is_refused(shards, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    with pytest.raises(FoundryError, match="is not empty"):
        export_lerobot(str(shards), tmp_path / "full")
    other = make_robot(tmp_path / "other")
    described = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps(described | {"layout": "sample"}))
    with pytest.raises(FoundryError, match="holds windows"):
        export_lerobot(str(other), tmp_path / "out")
    (other / "dataset.json").write_text(
        json.dumps(described | {"cameras": {"absent": {"height": 16, "width": 16}}})
    )
    with pytest.raises(FoundryError, match=r"no whole episode.*absent_000000"):
        export_lerobot(str(other), tmp_path / "out")
    assert not (tmp_path / "out/meta/info.json").exists()


def test_stored_jpeg_files_travel_as_they_are(shards, tmp_path):
    export_lerobot(str(shards), tmp_path / "out", images="jpeg")
    check_equal(shards, tmp_path / "out", exact=True)
    source, stored = Lerobot(path=str(tmp_path / "out")), ShardSet(shards)
    episode = source.read_episode(source.episodes()[1])
    assert episode.images[FRONT][5] == bytes(stored.member(1, "front_000005.jpg"))


def test_what_fields_mean_travels_with_an_export(tmp_path):
    shards = make_coded_shards(tmp_path / "shards", (3,))
    described = json.loads((shards / "dataset.json").read_text())
    gripper = "robot__action__grippers__right::panda_hand"
    meant = {"quantity": "gripper", "unit": "m", "closed": 0.0, "open": 0.1}
    described["contract"] = {"fields": {gripper: meant, "gone": {}}}
    (shards / "dataset.json").write_text(json.dumps(described))
    export_lerobot(str(shards), tmp_path / "out", images="jpeg")
    stated = Lerobot(path=str(tmp_path / "out")).contract()
    assert stated.fields == {gripper: FieldContract(**meant)}
    (tmp_path / "out/meta/foundry.json").write_text('{"fields": {"x": {"unit": "ell"}}}')
    with pytest.raises(FoundryError, match=r"foundry\.json is of another form: fields\.x"):
        Lerobot(path=str(tmp_path / "out")).contract()
