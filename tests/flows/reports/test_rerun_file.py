"""An episode for rerun's viewer, read back with rerun's own reader, and what is refused."""

import importlib.util
import io
import json
import sys
import zipfile

import numpy as np
import pytest

from flows.reports import episodes_page, rerun_file
from flows.reports.episodes_page import write_episode_rerun
from flows.reports.rerun_file import rate_of, read_track, write_rerun
from foundry_core.errors import FoundryError
from foundry_core.evaluation.rollout.video import encode_track, encode_video
from tests.release.kept import Kept

XYZ = "robot__actual__poses__right::panda__xyz"
needed = pytest.mark.skipif(
    importlib.util.find_spec("rerun") is None, reason="the extra `rerun` is not installed"
)


def track(steps: int = 5) -> bytes:
    rows = [({XYZ: np.arange(3.0) + step}, {"goal": np.array([-step])}) for step in range(steps)]
    return encode_track(rows)


@pytest.fixture
def run(tmp_path, monkeypatch):
    store = Kept(tmp_path / "store")
    folder = store.folder("evaluate", "ours")
    for name in ("000002_success", "000007_failure"):
        for place, data in (
            (f"videos/push/{name}.mp4", encode_video([np.zeros((48, 64, 3), np.uint8)] * 6, 10)),
            (f"tracks/push/{name}.npz", track()),
        ):
            (folder / "records" / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / "records" / place).write_bytes(data)
    (folder / "evaluation.json").write_text(json.dumps({"hz": 10.0}))
    store.run("r1", ours=store.add("evaluate", name="ours"))
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(episodes_page, "open_store", lambda uri: store)
    return tmp_path


@needed
def test_an_episode_is_read_back_with_reruns_own_reader(run):
    from rerun.chunk import RrdReader

    name = write_episode_rerun("r1", run / "out/one.rrd", scenario=None)
    assert name == "r1/ours/push/7 failure"  # the page's first
    reader = RrdReader(run / "out/one.rrd")
    (entry,) = reader.recordings()
    assert entry.recording_id == name
    rows = {}
    video = []
    for chunk in reader.stream().to_chunks():
        columns = chunk.to_record_batch().to_pydict()
        if "AssetVideo:blob" in columns:
            video.append(bytes(columns["AssetVideo:blob"][0][0]))
        for kind in ("Scalars:scalars", "VideoFrameReference:timestamp"):
            if kind in columns:
                path = str(chunk.entity_path).replace("\\", "")
                rows.setdefault(path, []).extend(
                    zip(columns["step"], columns["time"], columns[kind], strict=True)
                )
    assert video[0][4:8] == b"ftyp"
    measured = sorted(rows[f"/observed/{XYZ}"])
    assert [(step, list(values)) for step, _, values in measured] == [
        (step, [step, step + 1, step + 2]) for step in range(5)
    ]
    assert [time.total_seconds() for _, time, _ in measured] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert [list(values) for *_, values in sorted(rows["/commanded/goal"])] == [
        [-step] for step in range(5)
    ]
    assert [list(at) for *_, at in sorted(rows["/scene"])] == [
        [step * 100_000_000] for step in range(6)
    ]


@needed
def test_a_scenario_and_a_stage_are_chosen(run):
    path = run / "one.rrd"
    assert write_episode_rerun("r1", path, scenario=2) == "r1/ours/push/2 success"
    with pytest.raises(FoundryError, match="no video of such an episode") as refused:
        write_episode_rerun("r1", path, stage="theirs", scenario=None)
    assert "its evaluations are ours" in refused.value.hint


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(FoundryError, match="rerun is not installed") as refused:
        write_rerun(tmp_path / "a", name="n", video=tmp_path / "v", track=tmp_path / "t", hz=1)
    assert "foundry-robotics[rerun]" in refused.value.hint


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"no archive", "not a zip file"),
        (npz(**{"observed/a": np.zeros((2, 1)), "commanded/b": np.zeros((3, 1))}), "2, 3"),
        (npz(**{"observed/a": np.zeros(4)}), "not numbers"),
        (npz(**{"observed/a": np.array([["x"]])}), "not numbers"),
        (npz(**{"observed/a": np.array([[object()]])}), "allow_pickle"),
        (npz(other=np.zeros((2, 2))), "a field 'other'"),
    ],
)
def test_a_track_that_is_none_is_refused(tmp_path, data, says):
    (tmp_path / "t.npz").write_bytes(data)
    with pytest.raises(FoundryError, match="is no track of an episode") as refused:
        read_track(tmp_path / "t.npz")
    assert says in str(refused.value)


def test_a_small_file_that_unpacks_to_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(rerun_file, "_MAX_TRACK", 1 << 20)
    (tmp_path / "t.npz").write_bytes(npz(**{"observed/a": np.zeros((1 << 18, 1))}))
    assert (tmp_path / "t.npz").stat().st_size < 1 << 14
    with pytest.raises(FoundryError, match="1 MB"):
        read_track(tmp_path / "t.npz")


def test_a_file_that_lies_about_its_size_is_refused(tmp_path):
    """The directory of a zip says how much comes out; reading more than that is an error."""
    data = bytearray(npz(**{"observed/a": np.zeros((1000, 1))}))
    (tmp_path / "t.npz").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "t.npz") as archive:
        size = archive.infolist()[0].file_size
    at = data.rfind(size.to_bytes(4, "little"))
    data[at : at + 4] = (100).to_bytes(4, "little")
    (tmp_path / "t.npz").write_bytes(data)
    with pytest.raises(FoundryError, match="is no track of an episode"):
        read_track(tmp_path / "t.npz")


@pytest.mark.parametrize("hz", [0, -1, None, "10", 1e9])
def test_a_rate_that_is_none_is_refused(tmp_path, hz):
    (tmp_path / "evaluation.json").write_text(json.dumps({"hz": hz}))
    with pytest.raises(FoundryError, match="not a rate"):
        rate_of(tmp_path / "evaluation.json")
