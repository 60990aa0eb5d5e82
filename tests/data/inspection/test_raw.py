"""A look into raw robot data, before anything is converted."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from foundry_core.config.validation import validate
from foundry_core.data.images import encode_jpeg
from foundry_core.data.inspection.raw import (
    RawField,
    contact_sheet,
    detect,
    draft_mapping,
    raw_contents,
)
from foundry_core.data.mapping.apply import mapped
from foundry_core.data.mapping.config import RobotMapping
from foundry_core.data.robot.episodes import Episode, Frames, UnusableEpisode
from foundry_core.data.sources import files
from foundry_core.data.sources.base import SourceRef
from foundry_core.data.sources.robot.lerobot import Lerobot
from foundry_core.errors import FoundryError
from tests.lerobot_sets import make_old

PICTURE = encode_jpeg(np.full((6, 8, 3), 90, np.uint8), 95)


class Source:
    format = "toy"

    def __init__(self, broken=()):
        self.broken = broken

    def episodes(self):
        return [SourceRef(name=f"e{n}", files=("x",)) for n in range(7)]

    def read_episode(self, ref):
        if ref.name in self.broken:
            raise UnusableEpisode(f"{ref.name} is cut short")
        quarter = [0, 0, np.sqrt(0.5), np.sqrt(0.5)]
        lowdim = {
            "obs/eef_pos": np.zeros((4, 3)),
            "obs/eef_quat": np.tile(quarter, (4, 1)),
            "obs/gripper": np.array([[0.0], [0.08], [0.0], [0.0]]),
            "actions": np.arange(28.0).reshape(4, 7),
        }
        return Episode(
            id=ref.name, task="t", hz=20, success=None, instructions={"original": ["go"]},
            lowdim=lowdim, images={"obs/front": Frames(4, lambda step: PICTURE)},
        )  # fmt: skip


def test_what_is_there_what_it_spans_and_what_cannot_be_read():
    found, first = raw_contents(Source(broken=("e0", "e3")), "somewhere")
    assert (found.episodes, found.read, found.hz, first.id) == (7, 3, (20.0,), "e1")
    assert found.unusable == ("e0 is cut short", "e3 is cut short")
    assert found.fields["actions"] == RawField(dims=7, low=0, high=27, values=10)
    assert found.fields["obs/gripper"] == RawField(dims=1, low=0, high=0.08, values=2)
    assert found.cameras == {"obs/front": (6, 8)}
    assert found.instructions == ("go",)


def test_the_draft_is_a_mapping_that_works_as_it_is():
    found, first = raw_contents(Source(), "somewhere")
    made = validate(RobotMapping, yaml.safe_load(found.mapping), "draft")
    canonical = mapped(first, made).lowdim
    pose = "robot__actual__poses__obs_eef_pos"
    np.testing.assert_allclose(canonical[f"{pose}__rot_6d"][0], [0, -1, 0, 1, 0, 0], atol=1e-12)
    assert canonical["robot__actual__obs_gripper"][:, 0].tolist() == [0, 1, 0, 0]
    assert canonical["robot__action__actions"].shape == (4, 7)


def test_canonical_names_stay_in_a_draft():
    prefix = "robot__action__poses__right::panda"
    fields = {f"{prefix}__xyz": 3, f"{prefix}__rot_6d": 6, "robot__version": 1}
    rows = {n: RawField(dims=dims, low=0, high=1, values=2) for n, dims in fields.items()}
    document = yaml.safe_load(draft_mapping(rows, (), 10))
    assert list(document["poses"]) == [prefix]
    assert list(document["fields"]) == ["robot__version"]


def test_nothing_readable_is_one_error():
    with pytest.raises(FoundryError, match=r"none of the first 5 .*e0 is cut short"):
        raw_contents(Source(broken=[f"e{n}" for n in range(7)]), "somewhere")


def test_a_contact_sheet_has_a_row_per_camera(tmp_path):
    from PIL import Image

    _, first = raw_contents(Source(), "somewhere")
    contact_sheet(first, tmp_path / "deep" / "sheet.png")
    assert Image.open(tmp_path / "deep" / "sheet.png").size == (6 * 128, 128)


def test_a_format_is_recognised_by_its_files(tmp_path: Path):
    (tmp_path / "demos").mkdir()
    (tmp_path / "demos" / "demos.json").write_text("{}")
    assert detect(tmp_path / "demos").model_fields["format"].default == "demonstrations"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file.xyz").write_text("")
    with pytest.raises(FoundryError, match="is of no format that is known") as error:
        detect(tmp_path / "other" / "file.xyz")
    assert "spartan" in error.value.hint
    with pytest.raises(FoundryError, match=r"nothing does not exist"):
        detect(tmp_path / "nothing")


def test_a_folder_above_within_or_without_the_file_that_tells_is_no_table_of_texts(tmp_path: Path):
    """A LeRobot data set's tables are Parquet, as corpora are."""
    root = make_old(tmp_path / "shelf" / "recordings" / "set", video=False)
    assert detect(root) is Lerobot
    for above in (root.parent, root.parents[1]):
        with pytest.raises(FoundryError, match=f"a lerobot data set lies in {root}"):
            detect(above)
        with pytest.raises(FoundryError, match=r"holds no meta/info.json") as error:
            Lerobot(path=str(above)).contract()
        assert str(root) in error.value.hint
    for within in (root / "data", next((root / "data").rglob("*.parquet"))):
        with pytest.raises(FoundryError, match=f"is a part of the lerobot data set {root}"):
            detect(within)
    (root / "meta/info.json").unlink()
    with pytest.raises(FoundryError, match=r"looks like lerobot and holds no meta/info\.json"):
        detect(root)
    with pytest.raises(FoundryError, match="does not exist"):
        Lerobot(path=str(root / "no")).episodes()


def test_a_look_is_bounded_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A mark beyond the levels or the names that a look takes is not found; others are."""
    deep = tmp_path / "tasks" / "Lift" / "episode_0" / "processed"
    deep.mkdir(parents=True)
    (deep / "observations.npz").write_bytes(b"")
    assert detect(tmp_path).model_fields["format"].default == "spartan"
    for number in range(30):
        (tmp_path / "tasks" / f"A{number:02d}").mkdir()
    monkeypatch.setattr(files, "LOOK_ENTRIES", 30)
    with pytest.raises(FoundryError, match="no format that is known") as error:
        detect(tmp_path)
    assert "12 folders deep" in error.value.hint
    assert detect(deep.parent).model_fields["format"].default == "spartan"
    monkeypatch.setattr(files, "LOOK_ENTRIES", 10**6)
    below = deep.joinpath(*["x"] * 11)
    below.mkdir(parents=True)
    (below / "late.bag").write_bytes(b"")
    names = {path.name for path in files.look(tmp_path)}
    assert names == {"observations.npz"}


def test_a_look_ends_in_loops_of_links_and_skips_what_is_hidden(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "again").symlink_to(tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "features.json").write_text("{}")
    assert list(files.look(tmp_path)) == []
    with pytest.raises(FoundryError, match="no format that is known"):
        detect(tmp_path)


def test_a_draft_asks_for_words_where_an_episode_has_none_and_shortens_lerobots_cameras():
    fields = {"action": RawField(dims=2, low=0, high=1, values=9)}
    cameras = ("observation.images.top", "observation.images.wrist_1")
    drafted = draft_mapping(fields, cameras, 10, words=False)
    assert "add a line `instruction: what is done`" in drafted
    assert "instruction" not in draft_mapping(fields, cameras, 10)
    assert list(yaml.safe_load(drafted)["cameras"]) == ["top", "wrist_1"]
    alike = yaml.safe_load(draft_mapping(fields, ("observation.images.top", "top"), 10))
    assert list(alike["cameras"]) == ["observation_images_top", "top"]


def test_a_draft_does_not_turn_canonical_grippers_into_shares():
    name = "robot__actual__grippers__right::panda_hand"
    rows = {name: RawField(dims=1, low=0, high=0.08, values=9)}
    assert yaml.safe_load(draft_mapping(rows, (), 10))["fields"] == {name: {"from": name}}
