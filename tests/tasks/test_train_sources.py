"""Keys of the training stages: pretrained weights count by what they are, not by where they lie."""

import json
from pathlib import Path

import pytest
import torch
from training_stages import CAPTIONS, HEAD, LANGUAGE, ROBOT, Bench
from transformers import SiglipVisionConfig, SiglipVisionModel

import tasks
from foundry_core.config.validation import models_in
from foundry_core.errors import FoundryError
from foundry_core.models.config import Pretrained
from foundry_core.models.io import load_model
from foundry_core.pipeline.graph import build_pipeline
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import identify
from foundry_core.training.recipes import TrainStage

pytestmark = pytest.mark.usefixtures("known_code")

TOWER = {"kind": "hf", "image_size": 16, "patch_size": 4, "width": 8}
UNTRAINED = {"steps": 0}
SMALL = {"render": {"size": 16}}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))


def save_tower(folder, seed=0):
    torch.manual_seed(seed)
    settings = SiglipVisionConfig(
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
    )
    SiglipVisionModel(settings).save_pretrained(folder)


def vlm_model(**weights):
    language = {"kind": "transformer", **LANGUAGE}
    return {
        "language": language,
        "vision": {**TOWER, **weights},
        "projector": {"pixel_shuffle": 2},
    }


def specs(**weights):
    """Of a train_vlm stage on such a tower, and of a train_vla stage with it in its backbone."""
    sources = [{"format": "packages", "packages": ["packaging"]}]
    names = ("workspace", "wrist")
    captions = {**CAPTIONS, "images": names}
    inputs = {**ROBOT["inputs"], "cameras": names}
    trained = {"data": {"captions": captions}, "training": UNTRAINED}
    robot = {"robot": "robot", "stats": "stats", "tokenizer": "tok"}
    backbone = {"backbone": {"kind": "vlm", **vlm_model(**weights)}, "head": HEAD}
    policy = {
        "data": {"robot": {**ROBOT, "inputs": inputs}},
        "training": UNTRAINED,
        "model": backbone,
    }
    stages = {
        "tok": {"kind": "train_tokenizer", "recipe": {"sources": sources}},
        "scenes": {"kind": "collect_scenes", "recipe": SMALL},
        "captions": {"kind": "convert_captions", "inputs": {"scenes": "scenes"}},
        "demos": {"kind": "collect_demos", "recipe": SMALL},
        "robot": {"kind": "convert_robot", "inputs": {"demos": "demos"}},
        "stats": {"kind": "merge_stats", "inputs": {"datasets": "robot"}},
        "vlm": {
            "kind": "train_vlm",
            "inputs": {"captions": "captions", "tokenizer": "tok"},
            "recipe": {**trained, "model": vlm_model(**weights)},
        },
        "vla": {"kind": "train_vla", "inputs": robot, "recipe": policy},
    }
    pipeline = build_pipeline({"name": "p", "stages": stages}, kinds=stage_kind)
    found = identify(pipeline)
    return {name: found[name] for name in ("vlm", "vla")}


def keys(found):
    return {name: spec.key for name, spec in found.items()}


def test_other_weights_in_the_same_folder_make_other_keys(tmp_path):
    before, after = [], []
    for seed, found in ((0, before), (1, after)):
        save_tower(tmp_path / "tower", seed)
        found += keys(specs(path=str(tmp_path / "tower"))).values()
    assert not set(before) & set(after)


def test_the_same_weights_elsewhere_keep_the_keys(tmp_path):
    save_tower(tmp_path / "tower")
    before = specs(source=str(tmp_path / "tower"))
    (tmp_path / "tower").rename(tmp_path / "moved")
    after = specs(path=str(tmp_path / "moved"))
    assert keys(before) == keys(after)
    assert set(before["vlm"].sources) == {"model.vision"}
    assert set(before["vla"].sources) == {"model.backbone.vision"}
    assert str(tmp_path) not in json.dumps([spec.recipe_json for spec in before.values()])


def test_hub_weights_need_a_commit_and_count_by_it():
    with pytest.raises(FoundryError, match=r"model\.vision\.source = 'some/tower'"):
        specs(source="some/tower")
    one, other = (keys(specs(source="some/tower", revision=digit * 40)) for digit in "ab")
    assert one["vlm"] != other["vlm"]
    assert one["vla"] != other["vla"]


def test_every_kind_whose_recipe_can_name_weights_declares_them():
    def within(config):
        inner = [m for f in config.model_fields.values() for m in models_in(f.annotation)]
        return {config, *(found for model in inner for found in within(model))}

    files = Path(tasks.__file__).parent.glob("*.py")
    kinds = [stage_kind(f.stem) for f in files if "\nSTAGE = " in f.read_text()]
    can = [k for k in kinds if any(issubclass(c, Pretrained) for c in within(k.Recipe))]
    importing = {"import_llm", "import_vlm"}
    assert {k.kind for k in can} == {"train_llm", "train_vlm", "train_vla", *importing}
    assert all(issubclass(k, TrainStage) for k in can if k.kind not in importing)


def test_a_trained_model_needs_its_weights_folder_no_more_and_does_not_name_it(tmp_path):
    """What is trained on equal weights in two folders is equal to the byte."""
    bench, trained = Bench(tmp_path / "bench"), []
    for place in ("here", "there"):
        save_tower(tmp_path / place)
        recipe = {
            "data": {"captions": CAPTIONS},
            "training": UNTRAINED,
            "model": vlm_model(path=str(tmp_path / place)),
        }
        inputs = {"captions": "captions", "tokenizer": "tokenizer"}
        folder, _ = bench.stage(f"vlm_{place}", "train_vlm", recipe, inputs)
        (tmp_path / place).rename(tmp_path / f"{place}_gone")
        trained.append([(folder / n).read_bytes() for n in ("config.json", "model.safetensors")])
        load_model(folder)
    assert trained[0] == trained[1]
