"""Depth from readers through shards into batches: known numbers at known pixels."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from foundry_core.config.canonical import canonical
from foundry_core.data.config import DepthConfig, ImageConfig
from foundry_core.data.contract.statements import DepthContract, policy_contract
from foundry_core.data.convert.depth import depth_file, stored_depth
from foundry_core.data.images import decode_depth, encode_depth, is_depth
from foundry_core.data.inspection.preview import save_images
from foundry_core.data.inspection.validate import validate
from foundry_core.data.loading.config import RobotData
from foundry_core.data.loading.pixels import Room
from foundry_core.data.loading.robot import RobotDataset
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.mapping.apply import mapped
from foundry_core.data.mapping.config import RobotMapping
from foundry_core.data.robot.augment import View, apply_depth_view, apply_view, shift_image
from foundry_core.data.robot.episodes import Episode, UnusableEpisode
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.prompts import IMAGE, OBS
from foundry_core.data.robot.transform_config import RobotInputs
from foundry_core.data.robot.transforms import RobotTransform
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.sources.robot.lerobot import Lerobot
from foundry_core.data.sources.robot.spartan import Spartan
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.data.webdataset import decode_member
from foundry_core.errors import FoundryError
from tests.data.convert.test_robot import FIELDS, convert
from tests.real_data import ABSENT, FORMATS

DEPTH = np.array([[0.5, 1.0, 1.5], [2.0, 2.5, 3.0]], np.float32)


def test_counts_are_millimetres_and_zero_is_none():
    metres = np.array([[0.0005, 0.0006, 1.2345, 65.535, 65.5356, np.inf, np.nan, -1, 0]])
    assert stored_depth(metres, DepthContract()).tolist() == [[0, 1, 1234, 65535, 0, 0, 0, 0, 0]]
    tenths = DepthContract(metres=1e-4)
    assert stored_depth(np.array([[1.23456, 6.6]]), tenths).tolist() == [[12346, 0]]


def test_depth_is_turned_and_resized_without_mixing():
    turned = stored_depth(DEPTH, DepthContract(rotated=90))
    assert turned.tolist() == [[1500, 3000], [1000, 2500], [500, 2000]]
    for method in ("resize_no_crop", "center_crop", "resize_fit"):
        stored = ImageConfig(size=(8, 8), method=method)
        made = stored_depth(DEPTH, DepthContract(stored=stored))
        assert made.shape == (8, 8)
        assert set(made.ravel().tolist()) <= {0, 500, 1000, 1500, 2000, 2500, 3000}
        assert (0 in made) == (method == "resize_fit")


def test_files_are_png_of_16_bits():
    counts = np.array([[0, 1, 258], [65535, 256, 255]], np.uint16)
    data = encode_depth(counts)
    assert is_depth(data)
    assert np.array_equal(decode_depth(data, "x"), counts)
    assert np.array_equal(decode_member("front_000000.depth.png", data), counts)
    assert np.asarray(Image.open(io.BytesIO(data))).tolist() == counts.tolist()
    grey = io.BytesIO()
    Image.fromarray(counts.astype(np.uint8)).save(grey, "PNG")
    assert not is_depth(grey.getvalue())
    with pytest.raises(FoundryError, match="x is no PNG of one channel of 16 bits"):
        decode_depth(grey.getvalue(), "x")


def an_episode(depth):
    return Episode(
        id="e", task="t", hz=10, success=None, instructions={"original": ["go"]},
        lowdim={"x": np.zeros((2, 1))}, images={"raw": [b"", b""]}, depth=depth,
    )  # fmt: skip


def test_a_mapping_names_the_depth_of_a_camera():
    mapping = RobotMapping(
        cameras={"front": {"from": "raw", "depth": "raw_depth", "rotate": 180}},
        fields={"x": {"from": "x"}},
    )
    episode = mapped(an_episode({"raw_depth": [DEPTH, DEPTH]}), mapping)
    assert list(episode.depth) == ["front"]
    contract = mapping.contract(Spartan(path="/nowhere").contract())
    assert list(contract.depth) == ["front"]
    kept = contract.converted(
        ("front",), ("x",), ImageConfig(), mapping.rotate, DepthConfig(cameras=("front",))
    )
    assert kept.depth["front"] == DepthContract(rotated=180)
    with pytest.raises(UnusableEpisode, match="no depth 'raw_depth'"):
        mapped(an_episode({"rav_depth": [DEPTH, DEPTH]}), mapping)


def test_refusals():
    for depth, message in (
        ({}, "has no depth of camera 'front'"),
        ({"front": [DEPTH]}, "1 depth pictures of 'front' for 2 steps"),
    ):
        with pytest.raises(UnusableEpisode, match=message):
            depth_file(an_episode(depth), "front", DepthContract())
    made = depth_file(an_episode({"front": [DEPTH[0], DEPTH[0]]}), "front", DepthContract())
    with pytest.raises(UnusableEpisode, match=r"step 1 .* is float32 \[3\], not float \[H, W\]"):
        made(1)


def test_views_of_depth_are_those_of_the_picture():
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    colour, depth = np.repeat(image[..., None], 3, axis=2), image.astype(np.float32)
    for view in (
        View(box=(2, 1, 4, 6)),
        View(box=(0, 0, 8, 8), shift=(2, -3)),
        View(box=(3, 2, 4, 4), shift=(-1, 1)),
    ):
        seen = shift_image(apply_view(colour, view, None)[None], *view.shift)[0, ..., 0]
        if view.box[2:] == (8, 8):
            assert np.array_equal(apply_depth_view(depth, view, None), seen)
        top, left, height, width = map(int, view.box)
        inside = image[top : top + height, left : left + width]
        assert set(apply_depth_view(depth, view, None).ravel()) <= set(inside.ravel().astype(float))
    halved = apply_depth_view(depth, View(box=(0, 0, 8, 8)), (4, 4))
    assert halved.tolist() == image[1::2, 1::2].astype(float).tolist()


def test_asking_for_it_is_part_of_a_recipe_only_where_it_is_asked_for():
    plain = RobotInputs(cameras=("front",))
    assert "depth" not in canonical(plain)
    asked = RobotInputs(cameras=("front",), depth=True)
    assert canonical(asked)["depth"] is True
    data = Spartan(path="/nowhere").contract()
    with_colour = data.converted(("front",), asked.fields, ImageConfig(), {})
    with pytest.raises(FoundryError, match="'a' is converted without the depth of camera 'front'"):
        policy_contract(asked, 1, {"a": with_colour})


@pytest.mark.parametrize("layout", ["episode", "sample"])
def test_lbm_episodes_from_raw_to_batch(shared_data, tmp_path, layout):
    """Their depth is 500 mm at every pixel; letterboxed, what lies beside the picture is none."""
    source = Spartan(path=str(shared_data / "lbm_raw" / "tasks" / "PutMugOnSaucer"))
    image = ImageConfig(size=(48, 48), method="resize_fit")
    cameras, deep = ("scene_right_0", "wrist_left_minus"), DepthConfig(cameras=("scene_right_0",))
    out = tmp_path / "out"
    out.mkdir()
    contract = source.contract().converted(cameras, FIELDS, image, {}, deep)
    convert(source, out, contract=contract, cameras=cameras, layout=layout, groups=(), image=image)
    name = {"episode": "scene_right_0_000000", "sample": "scene_right_0_t0"}[layout]
    counts = decode_depth(ShardSet(out).member(0, f"{name}.depth.png"), name)
    assert counts.shape == (48, 48)
    assert (counts[6:42] == 500).all()
    assert not counts[:6].any() and not counts[42:].any()
    description = json.loads((out / "dataset.json").read_text())
    assert description["depth"] == {"scene_right_0": {"height": 48, "width": 48}}
    assert description["contract"]["depth"]["scene_right_0"]["metres"] == 0.001
    assert validate(out, samples=0)["findings"] == []

    inputs = RobotInputs(
        cameras=("scene_right_0",), depth=True, horizon=2, proprio_fields=FIELDS[:1],
        action_fields=FIELDS[3:4], image={"size": (24, 24)},
    )  # fmt: skip
    config = RobotData(inputs=inputs, normalization={"mode": "identity"})
    statistics = DatasetStatistics.load(out)
    normalizer = Normalizer.from_statistics(statistics, inputs.fields, config.normalization)
    tokenizer = Tokenizer.train(["some text"], 258)
    tokenizer.add_special(IMAGE)
    tokenizer.add_special(OBS)
    transform = RobotTransform(inputs, normalizer, tokenizer, 1)
    shards = CheckedShards(out)
    options = {"train": True, "room": Room(0), "window_bytes": 1 << 20}
    sample = RobotDataset(shards, config, transform, **options).read(3, 5)
    assert (sample["depth"].dtype, sample["depth"].shape) == (np.float32, (1, 24, 24))
    np.testing.assert_allclose(sample["depth"][0, 3:21], 0.5, rtol=1e-6)
    assert not sample["depth"][0, :3].any()
    batch = {"robot": {k: torch.from_numpy(sample[k][None].copy()) for k in ("images", "depth")}}
    sheets = save_images(batch, tmp_path / "sheets")
    assert [path.name for path in sheets] == ["robot.png", "robot_depth.png"]
    grey = np.asarray(Image.open(sheets[1]))
    assert (grey[3:21] == 255).all() and not grey[:3].any()
    if layout == "episode":
        wanting = config.model_copy(
            update={"inputs": inputs.model_copy(update={"cameras": ("wrist_left_minus",)})}
        )
        with pytest.raises(FoundryError, match="no depth of camera 'wrist_left_minus'"):
            RobotDataset(shards, wanting, transform, **options)


@pytest.mark.skipif(not FORMATS.is_dir(), reason=ABSENT)
def test_lerobots_depth_is_stored_to_the_millimetre():
    root = FORMATS / "lerobot_v30_depth_language"
    wanted = json.loads((root / "expected.json").read_text())["depth"]
    source = Lerobot(path=str(root / "data_root"))
    episode = source.read_episode(source.episodes()[0])
    raw = np.asarray(episode.depth[wanted["camera"]][3])
    made = depth_file(episode, wanted["camera"], DepthContract())(3)
    counts = decode_depth(made, "x")
    assert counts.min() > 0
    assert np.abs(counts / 1000 - raw).max() <= 0.0005 + 1e-6
