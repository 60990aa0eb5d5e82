"""Conversion of demonstrations: equal bytes for any workers, published statistics, refusals."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest

from foundry_core.data.config import ImageConfig, PoseGroup, WindowConfig
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.convert.robot import convert_robot
from foundry_core.data.convert.robot_samples import RobotSettings
from foundry_core.data.images import encode_jpeg
from foundry_core.data.npy import write_npz
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.sources.robot.demonstrations import Demonstrations
from foundry_core.data.sources.robot.spartan import Spartan
from foundry_core.errors import FoundryError

TWO = pytest.param(2, marks=pytest.mark.slow("an interpreter per worker"))
ARM = "poses__right::panda"
FIELDS = tuple(
    f"robot__{kind}__{part}"
    for kind in ("actual", "action")
    for part in (f"{ARM}__xyz", f"{ARM}__rot_6d", "grippers__right::panda_hand")
)
GROUP = PoseGroup(
    reference=f"robot__actual__{ARM}", poses=(f"robot__actual__{ARM}", f"robot__action__{ARM}")
)


def silent(*_args, **_values):
    """Progress nobody looks at."""


def settings(cameras=("scene",), fields=FIELDS, rotate=None, **changes):
    image = changes.get("image", ImageConfig())
    values = {
        "contract": DataContract().converted(cameras, fields, image, rotate or {}),
        "groups": (GROUP,),
        "window": WindowConfig(past=0, future=3, max_padding_right=3),
        "image_steps": (0,),
        "image": image,
        "layout": "episode",
        "keep_failures": False,
    }
    return RobotSettings(**values | changes)


def write_episode(
    root, number, length=6, name=None, nan_at=None, success=True, rest_from=None, **meta
):
    generator = np.random.default_rng(number)
    lowdim = {}
    for field in FIELDS:
        width = {"xyz": 3, "6d": 6}.get(field.rsplit("_", 1)[-1], 1)
        lowdim[field] = generator.normal(size=(length, width))
    if nan_at is not None:
        lowdim[FIELDS[0]][nan_at] = np.nan
    if rest_from is not None:
        for values in lowdim.values():
            values[rest_from:] = values[rest_from]
    name = name or f"ep_{number:03d}"
    meta = {
        "id": name, "task": "t", "hz": 16.0, "success": success,
        "instructions": {"original": ["do it"]}, "length": length, **meta,
    }  # fmt: skip
    members = {"meta.json": json.dumps(meta).encode(), "lowdim.npz": write_npz(lowdim)}
    for step in range(length):
        image = generator.integers(0, 255, size=(8, 8, 3), dtype=np.uint8)
        members[f"scene/{step:06d}.jpg"] = encode_jpeg(image, 90)
    path = root / "episodes" / "t" / f"file_{number:03d}.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return lowdim


@pytest.fixture
def demos(tmp_path):
    root = tmp_path / "demos"
    for number in range(7):
        write_episode(root, number)
    (root / "demos.json").write_text("{}")
    return root


def convert(source, out, workers=1, max_skipped=0, scratch=None, shuffle=None, **changes):
    episodes_per_shard = changes.pop("episodes_per_shard", 2)
    return convert_robot(
        source,
        settings(**changes),
        out,
        episodes_per_shard=episodes_per_shard,
        max_skipped=max_skipped,
        workers=workers,
        progress=silent,
        scratch=scratch,
        shuffle=shuffle,
    )


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("layout", ["episode", "sample"])
def test_one_and_four_workers_write_the_same_bytes(demos, tmp_path, layout, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "no home"))  # nor units of the other one
    for workers in (1, 4):
        out = tmp_path / f"out{workers}"
        out.mkdir()
        convert(Demonstrations(path=str(demos)), out, workers, layout=layout)
    one, four = digests(tmp_path / "out1"), digests(tmp_path / "out4")
    assert one == four
    assert sum(name.endswith(".tar") for name in one) == 4


@pytest.mark.parametrize("workers", [1, TWO])
def test_the_second_of_equal_ids_in_another_unit_is_one_skip(demos, tmp_path, workers, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "no home"))
    found = {}
    for name, change in (("twice", {"name": "ep_000"}), ("without", {"success": False})):
        write_episode(demos, 5, **change)
        out = tmp_path / name
        out.mkdir()
        source = Demonstrations(path=str(demos))
        assert convert(source, out, workers, max_skipped=1)["episodes"] == 6
        found[name] = digests(out)
    skipped = json.loads((tmp_path / "twice/report.json").read_text())["skipped"]
    assert [row["id"] for row in skipped] == ["episodes/t/file_005.tar"]
    assert "two episodes have the id 'ep_000'" in skipped[0]["reason"]
    assert found["twice"].pop("report.json") != found["without"].pop("report.json")
    assert found["twice"] == found["without"]


def test_episodes_come_back_as_they_were(demos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    metrics = convert(Demonstrations(path=str(demos)), out)
    assert metrics == {"episodes": 7, "windows": 42, "skipped": 0, "doubts": 0}
    shards = ShardSet(out)
    assert len(shards) == 7
    members = shards.members(0)
    expected = write_episode(tmp_path / "again", 0)
    with np.load(io.BytesIO(bytes(members["lowdim.npz"]))) as arrays:
        for field in FIELDS:
            np.testing.assert_array_equal(arrays[field], expected[field])
    stats = json.loads((out / "stats.json").read_text())
    assert f"robot__action__{ARM}__xyz_relative" in str(stats.keys()) + str(stats.get("fields"))


def test_statistics_and_real_steps_do_not_depend_on_the_padding(demos, tmp_path):
    def arrays(out):
        shards = ShardSet(out)
        for number in range(len(shards)):
            with np.load(io.BytesIO(bytes(shards.members(number)["lowdim.npz"]))) as stored:
                yield {name: stored[name] for name in stored.files}

    window = WindowConfig(past=1, future=3, max_padding_left=1, max_padding_right=3)
    for padding in ("copy", "reflect", "zero"):
        (tmp_path / padding).mkdir()
        padded = window.model_copy(update={"padding": padding})
        convert(Demonstrations(path=str(demos)), tmp_path / padding, layout="sample", window=padded)
    stats = {(tmp_path / p / "stats.json").read_bytes() for p in ("copy", "reflect", "zero")}
    assert len(stats) == 1
    turned, seen = f"robot__action__{ARM}__rot_6d_relative", 0
    for copied, zeros in zip(arrays(tmp_path / "copy"), arrays(tmp_path / "zero"), strict=True):
        real = copied["past_mask"] | copied["future_mask"]
        seen += np.count_nonzero(~real)
        np.testing.assert_array_equal(zeros[turned][real], copied[turned][real])
        assert not zeros[turned][~real].any()
    assert seen


def test_refusals_name_episode_field_and_step(demos, tmp_path):
    write_episode(demos, 3, nan_at=4)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(FoundryError, match=rf"'ep_003'.*{ARM}__xyz.*step 4"):
        convert(Demonstrations(path=str(demos)), out)


def test_tolerated_skips_and_failures_are_counted(demos, tmp_path):
    write_episode(demos, 3, nan_at=4)
    write_episode(demos, 5, success=False)
    out = tmp_path / "out"
    out.mkdir()
    metrics = convert(Demonstrations(path=str(demos)), out, max_skipped=1)
    assert metrics["episodes"] == 5
    report = json.loads((out / "report.json").read_text())
    assert report["seen"] == 7
    assert report["left_out"] == {"not successful": 1}
    assert [row["id"] for row in report["skipped"]] == ["episodes/t/file_003.tar"]


def test_equal_ids_truncated_files_and_absent_cameras(demos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(FoundryError, match=r"no camera 'scnee'.*'scene'"):
        convert(Demonstrations(path=str(demos)), out, cameras=("scnee",))
    write_episode(demos, 8, name="ep_001")
    with pytest.raises(FoundryError, match="two episodes have the id 'ep_001'"):
        convert(Demonstrations(path=str(demos)), out)
    path = demos / "episodes" / "t" / "file_008.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(FoundryError, match=r"file_008.tar is not a readable episode"):
        convert(Demonstrations(path=str(demos)), out)


def test_lbm_episodes_give_the_published_statistics(shared_data, tmp_path):
    raw = shared_data / "lbm_raw"
    expected = json.loads((raw / "expected_stats_past1_future14_pad3_12.json").read_text())
    fields = tuple(name for name in expected if not name.endswith("_relative"))
    groups = tuple(
        PoseGroup(
            reference=f"robot__actual__poses__{side}::panda",
            poses=tuple(
                f"robot__{kind}__poses__{side}::panda" for kind in ("actual", "desired", "action")
            ),
        )
        for side in ("right", "left")
    )
    window = WindowConfig(past=1, future=14, max_padding_left=3, max_padding_right=12)
    out = tmp_path / "out"
    out.mkdir()
    metrics = convert(
        Spartan(path=str(raw / "tasks" / "PutMugOnSaucer")),
        out,
        cameras=("scene_right_0", "wrist_left_minus"),
        fields=fields,
        groups=groups,
        window=window,
        image_steps=(-1, 0),
        image=ImageConfig(size=(48, 48)),
        layout="sample",
    )
    assert metrics == {"episodes": 2, "windows": 28, "skipped": 0, "doubts": 0}
    found = json.loads((out / "stats.json").read_text())
    found = found.get("fields", found)
    for name in expected:
        for key in ("mean", "min", "max", "mean_per_timestep", "std_per_timestep"):
            np.testing.assert_allclose(found[name][key], expected[name][key], atol=1e-12)
