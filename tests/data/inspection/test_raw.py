"""A look into raw robot data, before anything is converted."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from foundry_core.config.validation import validate
from foundry_core.data.images import encode_jpeg
from foundry_core.data.inspection.dimensions import Dimension, RawField, field_table, spanned
from foundry_core.data.inspection.draft import draft_mapping
from foundry_core.data.inspection.raw import contact_sheet, detect, raw_contents, render_raw
from foundry_core.data.mapping.apply import mapped
from foundry_core.data.mapping.config import RobotMapping
from foundry_core.data.robot.episodes import Episode, Frames, UnusableEpisode
from foundry_core.data.sources import files
from foundry_core.data.sources.base import SourceRef
from foundry_core.data.sources.robot.lerobot import Lerobot
from foundry_core.errors import FoundryError
from tests.lerobot_sets import make_old
from tests.real_data import ABSENT, FORMATS

PICTURE = encode_jpeg(np.full((6, 8, 3), 90, np.uint8), 95)


class Source:
    format = "toy"
    bookkeeping = {"dones": "marks the end"}

    def holds(self):
        return None

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
    actions, gripper = found.fields["actions"], found.fields["obs/gripper"]
    assert (actions.dims, actions.low, actions.high, actions.values) == (7, 0, 27, 10)
    assert actions.dimensions[6] == Dimension(name="", low=6, high=27, values=4)
    assert (gripper.dims, gripper.low, gripper.high, gripper.values) == (1, 0, 0.08, 2)
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


def test_a_look_says_what_each_dimension_spans_by_its_name():
    """Known values over two episodes; names count only where there is one for each."""
    parts = [np.array([[0.0, 1], [2, np.nan]]), np.array([[-1.0, 1]])]
    found = spanned("state", parts, ("x", "grip"))
    assert found.dimensions == (
        Dimension(name="x", low=-1, high=2, values=3),
        Dimension(name="grip", low=1, high=1, values=1),
    )
    assert (found.dims, found.low, found.high, found.values) == (2, -1, 2, 4)
    assert [one.name for one in spanned("state", parts, ("x",)).dimensions] == ["", ""]
    with pytest.raises(FoundryError, match=r"\[1, 2\] values in different"):
        spanned("state", [*parts, np.zeros((1, 1))])


def shown(fields) -> list[str]:
    console = Console(width=80, file=io.StringIO())
    console.print(field_table(fields))
    return console.file.getvalue().splitlines()


def test_a_table_of_dimensions_fits_80_columns_and_folds_long_vectors():
    """But not the dimensions of few values, which may be grippers."""
    values = np.arange(40 * 20.0).reshape(20, 40)
    values[:, 20] = np.arange(20) % 2
    names = [f"a_long_name_of_a_joint_{n}" for n in range(40)]
    lines = shown({"robot__actual__" + "long_" * 12: spanned("v", [values], names)})
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert " 11 a_long" in text and " 12 to 19 " in text and " 21 to 35 " in text
    assert " 36 a_long" in text and " 39 a_long" in text and " 12 a_long" not in text
    (gripper,) = [line for line in lines if " 20 a_long" in line]
    assert [c.strip() for c in gripper.split("│")[2:5]] == ["0", "1", "2"]
    (folded,) = [line for line in lines if " 12 to 19 " in line]
    assert [c.strip() for c in folded.split("│")[2:5]] == ["12", "779", "10+"]
    few = "\n".join(shown({"v": spanned("v", [values[:, :17]])}))
    assert " to " not in few and " 16 " in few


def test_a_draft_names_dimensions_and_leaves_bookkeeping_out():
    values = np.stack([np.arange(20) / 8, np.arange(20) % 2], axis=1)
    fields = {
        "action": spanned("action", [values], ("x", "gripper")),
        "timestamp": spanned("timestamp", [values[:, :1]]),
    }
    text = draft_mapping(fields, (), 10, bookkeeping={"timestamp": "seconds since the start"})
    assert "  # dims: 0 x, 1 gripper\n" in text
    assert "  # dim 1 has 2 values from 0 to 1: a gripper?\n" in text
    left = "  # robot__actual__timestamp: {from: timestamp}  # seconds since the start\n"
    assert left in text
    assert yaml.safe_load(text)["fields"] == {"robot__action__action": {"from": "action"}}
    alone = draft_mapping(
        {"timestamp": fields["timestamp"]}, (), 10, bookkeeping={"timestamp": "t"}
    )
    assert validate(RobotMapping, yaml.safe_load(alone), "draft").fields == {}
    assert yaml.safe_load(alone.replace("# fields", "fields").replace("  # r", "  r"))["fields"]


def test_depth_is_drafted_at_its_camera():
    """By names, or where both are the only ones; else it is the reader's to say."""
    cameras = ("observation.images.front", "observation.images.wrist")
    deep = ("observation.images.wrist_depth", "elsewhere_depth")
    text = draft_mapping({}, cameras, 10, depth=deep)
    assert yaml.safe_load(text)["cameras"] == {
        "front": {"from": cameras[0]},
        "wrist": {"from": cameras[1], "depth": deep[0]},
    }
    assert "# depth elsewhere_depth: name it at its camera" in text
    only = yaml.safe_load(draft_mapping({}, cameras[:1], 10, depth=("depth",)))
    assert only["cameras"] == {"front": {"from": cameras[0], "depth": "depth"}}


@pytest.mark.skipif(not FORMATS.is_dir(), reason=ABSENT)
def test_a_lerobot_set_with_names_depth_and_counters(tmp_path):
    root = FORMATS / "lerobot_v30_depth_language" / "data_root"
    source = Lerobot(path=str(root))
    found, first = raw_contents(source, str(root))
    assert found.depth == {"observation.images.depth": (64, 64)}
    gripper = found.fields["action"].dimensions[6]
    assert (gripper.name, gripper.low, gripper.high, gripper.values) == ("gripper", 0, 1, 2)
    assert {"timestamp", "index", "next.done"} <= found.left_out.keys()
    mapping = validate(RobotMapping, yaml.safe_load(found.mapping), "draft")
    assert mapping.fields.keys() == {
        "robot__actual__observation_state", "robot__action__action", "robot__actual__phase",
    }  # fmt: skip
    assert mapping.cameras["front"].depth == "observation.images.depth"
    assert mapped(first, mapping).depth["front"][0].shape == (64, 64)


def test_a_pose_laid_flat_is_drafted_as_one():
    flat = np.tile(np.eye(4).ravel(), (3, 1))
    flat[:, 3] = [0, 1, 2]
    fields = {"observation.pose": spanned("p", [flat]), "other": spanned("o", [flat + 1])}
    made = validate(RobotMapping, yaml.safe_load(draft_mapping(fields, (), 10)), "draft")
    (name,) = made.poses
    assert name == "robot__actual__poses__observation_pose"
    assert made.poses[name].xyz.form == made.poses[name].rotation.form == "pose_4x4"
    assert list(made.fields) == ["robot__actual__other"]


def test_speeds_and_forces_of_a_gripper_are_no_opening_and_ends_are_said_to_be_a_guess():
    names = (
        "gripper_velocity",
        "gripper/effort",
        "gripper_motor_current",
        "obs/gripper",
        "gripper_level",
    )
    rows = {name: RawField(dims=1, low=0, high=3, values=9) for name in names}
    text = draft_mapping(rows, (), 10)
    drafted = yaml.safe_load(text)["fields"].values()
    assert [one["from"] for one in drafted if "quantity" in one] == ["obs/gripper", "gripper_level"]
    guess = "  # closed and open are the range that was seen; they may be the other way round\n"
    assert text.count(guess) == 2
    assert f"{guess}  robot__actual__obs_gripper:" in text


class Libero(Source):
    """With what the shipped mapping reads, but for what is left out of it."""

    left_out = ""

    def read_episode(self, ref):
        one = super().read_episode(ref)
        dims = {"obs/ee_states": 6, "obs/gripper_states": 2, "actions": 7}
        lowdim = {name: np.ones((4, n)) for name, n in dims.items() if name != self.left_out}
        cameras = [n for n in ("agentview_rgb", "eye_in_hand_rgb") if n != self.left_out]
        images = dict.fromkeys(cameras, one.images["obs/front"])
        hz = 10 if self.left_out == "rate" else 20
        return replace(one, hz=hz, lowdim=lowdim, images=images)


def test_a_look_says_which_shipped_mapping_fits():
    source = Libero()
    found, _ = raw_contents(source, "somewhere")
    assert found.ready == ("libero",)
    console = Console(width=120, file=io.StringIO())
    console.print(render_raw(found))
    assert "the mapping libero that ships fits: --check libero" in console.file.getvalue()
    for source.left_out in ("obs/gripper_states", "eye_in_hand_rgb", "rate"):
        assert raw_contents(source, "somewhere")[0].ready == ()
