"""Every preset of a model plans in the stage it is for, named by `include`."""

import pytest
import yaml

from foundry_core.config.documents import load_document
from foundry_core.errors import FoundryError
from foundry_core.models.config import HFVLMConfig, TransformerConfig, VLAConfig, VLMConfig
from foundry_core.models.heads import HEADS
from foundry_core.models.presets import load_preset, preset_names
from foundry_core.pipeline.graph import Pipeline, build_pipeline
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import identify

STEPS = {"steps": 1}
PACKAGES = [{"format": "packages", "packages": ["packaging"]}]
SIDE = {"image": {"size": [224, 224]}, "images": ["workspace"]}
LANGUAGE = {"kind": "transformer", "dim": 16, "n_layers": 4, "n_heads": 2}
HEAD = {"kind": "flow", "dim": 16, "n_layers": 1, "n_heads": 2}


def planned(tmp_path, stages) -> Pipeline:
    """Of a pipeline that ends in `stages`; keys are made too."""
    common = {
        "tok": {"kind": "train_tokenizer", "recipe": {"sources": PACKAGES}},
        "text": {
            "kind": "convert_text",
            "inputs": {"tokenizer": "tok"},
            "recipe": {"source": PACKAGES[0]},
        },
        "scenes": {"kind": "collect_scenes"},
        "captions": {"kind": "convert_captions", "inputs": {"scenes": "scenes"}},
        "demos": {"kind": "collect_demos"},
        "robot": {"kind": "convert_robot", "inputs": {"demos": "demos"}},
        "stats": {"kind": "merge_stats", "inputs": {"datasets": "robot"}},
    }
    path = tmp_path / "presets.yaml"
    path.write_text(yaml.safe_dump({"name": "presets", "stages": {**common, **stages}}))
    pipeline = build_pipeline(load_document(path), kinds=stage_kind)
    identify(pipeline)
    return pipeline


def llm(model):
    recipe = {"model": model, "training": STEPS}
    return {"kind": "train_llm", "inputs": {"text": "text", "tokenizer": "tok"}, "recipe": recipe}


def vlm(model, side):
    data = {"captions": {**SIDE, "image": {"size": [side, side]}}}
    recipe = {"model": model, "data": data, "training": STEPS}
    inputs = {"captions": "captions", "tokenizer": "tok"}
    return {"kind": "train_vlm", "inputs": inputs, "recipe": recipe}


def vla(model, **inputs):
    robot = {"inputs": {"cameras": ["workspace"], "image": {"size": [224, 224]}}}
    recipe = {"model": model, "data": {"robot": robot}, "training": STEPS}
    inputs = {"robot": "robot", "stats": "stats", "tokenizer": "tok", **inputs}
    return {"kind": "train_vla", "inputs": inputs, "recipe": recipe}


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_plans_where_it_belongs(tmp_path, name):
    preset, included = load_preset(name), {"include": f"models/{name}"}
    if isinstance(preset, TransformerConfig):
        stages = {"last": llm(included)}
    elif isinstance(preset, VLMConfig):
        described = {} if preset.language else {"language": LANGUAGE}
        stages = {"last": vlm({**included, **described}, preset.image_size)}
    elif isinstance(preset, HFVLMConfig):
        stages = {"last": vlm(included, preset.image_size)}
    elif isinstance(preset, VLAConfig):
        backbone = {"kind": "vlm", "language": LANGUAGE, "vision": {"include": "models/vit_tiny"}}
        described = {"backbone": backbone}
        if preset.backbone is not None:  # weights of the hub count by their commit
            described = {"backbone": {"revision": "a" * 40}}
        stages = {"last": vla({**included, **described})}
    elif preset.kind in HEADS.names():
        backbone = {"kind": "vlm", "language": LANGUAGE, "vision": {"include": "models/vit_tiny"}}
        stages = {"last": vla({"head": included, "backbone": backbone})}
    else:
        stages = {"last": vlm({"language": LANGUAGE, "vision": included}, preset.image_size)}
    assert planned(tmp_path, stages).stages["last"]


def test_a_stated_vocabulary_must_hold_the_tokenizer_s(tmp_path):
    planned(tmp_path, {"llm": llm({"include": "models/llm_1b"})})
    short = {"include": "models/llm_1b", "vocab_size": 2047}
    with pytest.raises(FoundryError, match=r"vocab_size = 2047 is less than the 2048 tokens of 't"):
        planned(tmp_path, {"llm": llm(short)})


def test_a_stated_vocabulary_holds_what_the_stage_adds(tmp_path):
    """Of a model from scratch: a stage that grows an upstream one takes rows as it needs them."""
    seeing = {
        "language": {**LANGUAGE, "vocab_size": 2049},
        "vision": {"include": "models/vit_tiny"},
    }
    planned(tmp_path, {"vlm": vlm(seeing, 224)})
    short = {**seeing, "language": {**LANGUAGE, "vocab_size": 2048}}
    with pytest.raises(FoundryError, match=r"2048 is less than the 2048 tokens of 'tok' and <\|im"):
        planned(tmp_path, {"vlm": vlm(short, 224)})
    acting = {"head": HEAD, "backbone": {"kind": "vlm", **seeing}}
    with pytest.raises(FoundryError, match=r"2049 is less .* and <\|image\|>, <\|obs\|>"):
        planned(tmp_path, {"vla": vla(acting)})
    on_it = {**vlm({"vision": {"include": "models/vit_tiny"}}, 224)}
    on_it["inputs"] = {"captions": "captions", "llm": "llm"}
    full = {**LANGUAGE, "vocab_size": 2048}
    grown = planned(tmp_path, {"llm": llm(full), "vlm": on_it}).views["vlm"].states
    assert (grown.tokens, grown.model.language.vocab_size) == (2049, 2049)
    padded = planned(tmp_path, {"llm": llm({**full, "vocab_size": 3000}), "vlm": on_it})
    assert padded.views["vlm"].states.model.language.vocab_size == 3000


def imported(**changes):
    weights = {"source": "some/model", "revision": "a" * 40, **changes}
    return {"kind": "import_llm", "recipe": weights}


def test_an_imported_model_brings_its_tokenizer(tmp_path):
    continued = {
        "kind": "train_llm",
        "inputs": {"llm": "base", "text": "words"},
        "recipe": {"training": STEPS},
    }
    words = {
        "kind": "convert_text",
        "inputs": {"tokenizer": "base"},
        "recipe": {"source": PACKAGES[0]},
    }
    stages = {"base": imported(), "words": words, "llm": continued}
    planned(tmp_path, stages)
    other = {**continued, "inputs": {"llm": "base", "text": "text"}}
    with pytest.raises(
        FoundryError, match=r"encoded with tokenizer 'tok', .* vocabulary of 'base'"
    ):
        planned(tmp_path, {**stages, "llm": other})


def test_an_imported_model_is_a_commit(tmp_path):
    with pytest.raises(FoundryError, match=r"recipe\.source = 'some/model' has revision main"):
        planned(tmp_path, {"base": imported(revision="main")})
    with pytest.raises(FoundryError, match="give either source"):
        planned(tmp_path, {"base": imported(source=None, revision=None)})


def test_what_a_stage_starts_from_is_one_thing(tmp_path):
    vision = {"vision": {"include": "models/vit_tiny"}}
    nothing = {"kind": "train_vlm", "inputs": {"captions": "captions"}}
    recipe = {"data": {"captions": SIDE}, "training": STEPS}
    with pytest.raises(FoundryError, match="no vlm is connected and the recipe does not describe"):
        planned(tmp_path, {"vlm": {**nothing, "recipe": recipe}})
    both = {"captions": "captions", "llm": "base", "vlm": "seeing"}
    seeing = {"kind": "import_vlm", "recipe": {"source": "some/vlm", "revision": "a" * 40}}
    last = {"kind": "train_vlm", "inputs": both, "recipe": {**recipe, "model": vision}}
    with pytest.raises(FoundryError, match="the input 'llm' is the language part"):
        planned(tmp_path, {"base": imported(), "seeing": seeing, "vlm": last})
