"""One set of demonstrations by two roads, from our simulator and as LeRobot v3.0: a policy that is
trained on either gets the same batches, and becomes the same policy."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from foundry_core.config.validation import validate
from foundry_core.data.export.lerobot import export_lerobot
from foundry_core.data.inspection.raw import raw_contents
from foundry_core.data.loading.build import build_loader
from foundry_core.data.loading.config import DataConfig
from foundry_core.data.mapping.config import RobotMapping
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.prompts import IMAGE, OBS
from foundry_core.data.shards.description import read_robot
from foundry_core.data.sources.robot.lerobot import Lerobot
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.parallel import ray_session
from tasks.collect_demos import CollectDemos
from tasks.convert_robot import ConvertRobot
from tasks.merge_stats import MergeStats
from tasks.train_vla import TrainVla
from tests.tasks.training_stages import HEAD, LANGUAGE, VLM, run_stage

DEMOS = {
    "tasks": ["drawer-open-v3", "door-unlock-v3"],
    "episodes_per_task": 2,
    "render": {"size": 32, "supersample": 1},
}
ARM = "robot__{}__poses__right::panda"
GRIPPER = "robot__{}__grippers__right::panda_hand"


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demos")
    run_stage(CollectDemos, root / "out", root / "scratch", DEMOS, {})
    return root / "out"


@pytest.fixture(scope="module")
def ray():
    """One for all conversions of the module."""
    with ray_session(1):
        yield


# Without a size, JPEG files stay what they are; a PNG becomes JPEG again, so that with it both
# roads must decode: both bring the same pixels to the same size.
@pytest.mark.slow("records, converts and trains twice")
@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(("images", "size"), [("jpeg", None), ("png", [24, 24])])
def test_lerobot_and_our_own_format_train_the_same_policy(demos, tmp_path, images, size):
    shape = {"image": {"size": size}, "window": {"future": 7, "max_padding_right": 7}}
    ours = converted(tmp_path / "ours", {"source": {**DEMO_SOURCE, "path": str(demos)}, **shape})
    exported = tmp_path / "exported"
    export_lerobot(str(ours if size is None else as_recorded(demos, tmp_path)), exported,
                   images=images)  # fmt: skip
    kept = read_robot(ours)
    recipe = {
        "source": {"format": "lerobot", "path": str(exported)},
        "mapping": drafted(exported),
        "cameras": list(kept.cameras),
        "fields": list(kept.fields),
        **shape,
    }
    theirs = converted(tmp_path / "theirs", recipe)

    assert read_robot(theirs).lengths == kept.lengths
    assert read_robot(theirs).fields == kept.fields
    loaders = [loader(folder) for folder in (ours, theirs)]
    for step in (0, 1, 17):
        one, other = (made.batch(step)["robot"] for made in loaders)
        assert one.keys() == other.keys() >= {"images", "tokens", "actions", "action_mask"}
        for name in one:
            assert torch.equal(one[name], other[name]), name
    for folder in (ours, theirs):
        trained(folder)
    for name in ("model.safetensors", "normalizer.json"):
        assert (ours / "policy" / name).read_bytes() == (theirs / "policy" / name).read_bytes()


DEMO_SOURCE = {"format": "demonstrations"}


def converted(out: Path, recipe: dict[str, Any]) -> Path:
    checked = ConvertRobot.Recipe.model_validate(recipe)
    ConvertRobot.check(checked, {})
    run_stage(ConvertRobot, out, out.with_suffix(".scratch"), checked.model_dump(), {})
    return out


def as_recorded(demos: Path, root: Path) -> Path:
    """Shards that hold the pictures as they were recorded."""
    return converted(root / "whole", {"source": {**DEMO_SOURCE, "path": str(demos)}})


def drafted(exported: Path) -> RobotMapping:
    """The draft of `foundry data inspect`, as it is."""
    found, _ = raw_contents(Lerobot(path=str(exported)), str(exported))
    made: RobotMapping = validate(RobotMapping, yaml.safe_load(found.mapping), "draft")
    return made


def data_of(folder: Path) -> DataConfig:
    inputs = {
        "cameras": list(read_robot(folder).cameras),
        "image": {"size": [16, 16], "crop": 0.9},
        "proprio_fields": [f"{ARM.format('actual')}__xyz", GRIPPER.format("actual")],
        "action_fields": [
            f"{ARM.format('action')}__xyz_relative",
            f"{ARM.format('action')}__rot_6d_relative",
            GRIPPER.format("action"),
        ],
    }
    augment = {"crop": "random", "brightness": 0.2}
    robot = {"batch_size": 8, "inputs": inputs, "instruction": "original", "augment": augment}
    return DataConfig.model_validate({"robot": robot})


def loader(folder: Path) -> Any:
    data = data_of(folder)
    tokenizer = Tokenizer.train(["some text"], 258)
    for special in (IMAGE, OBS):
        tokenizer.add_special(special)
    normalizer = Normalizer.from_statistics(
        DatasetStatistics.load(folder), data.robot.inputs.fields, None
    )
    sources = {"robot": {"robot": folder}}
    return build_loader(data, sources, seed=3, tokenizer=tokenizer, normalizer=normalizer)


def trained(folder: Path) -> None:
    Tokenizer.train(["some text"], 258).save(folder / "tokenizer")
    scratch = folder / "scratch"
    run_stage(MergeStats, folder / "mix", scratch, {}, {"datasets": {"robot": folder}})
    recipe = {
        "model": {
            "backbone": {"kind": "vlm", **VLM, "language": {"kind": "transformer", **LANGUAGE}},
            "head": HEAD,
        },
        "data": data_of(folder),
        "training": {"steps": 2, "schedule": {"warmup": 1}},
    }
    places = {"robot": folder, "stats": folder / "mix", "tokenizer": folder / "tokenizer"}
    inputs = {slot: {slot: place} for slot, place in places.items()}
    run_stage(TrainVla, folder / "policy", folder / "train", recipe, inputs)
