"""The recipes that the field knows, as pipelines: planned, and trained for one step at a width a
CPU can do. What they learn is for bigger machines."""

import json
import math

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

import flows
from foundry_core.errors import FoundryError
from foundry_core.models.heads import HEADS
from foundry_core.pipeline.graph import load_pipeline
from foundry_core.pipeline.registry import stage_kind
from foundry_core.serving.policy import load_policy
from foundry_core.training.sizing.stages import cost_of
from tests.full_size import RECIPES, reduced, write_raw
from tests.hf_checkpoints import make_tokenizer, make_vlm

pytestmark = pytest.mark.usefixtures("known_code")

FAMILY = {"pi0-like": "paligemma", "smolvla-like": "smolvlm", "openvla-lora": "qwen2_5_vl"}
HEAD_OF = {
    "act": "act",
    "diffusion-policy": "diffusion",
    "octo-like": "diffusion",
    "openvla-lora": "bins",
    "pi0-like": "pi0",
    "smolvla-like": "pi0",
}


def loaded(name, overrides=None):
    return load_pipeline(name, tuple((overrides or {}).items()), kinds=stage_kind)


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_planned_without_data_and_warms_up_in_time(name):
    pipeline = loaded(name)
    assert (pipeline.name, pipeline.targets) == (name, ["vla"])
    recipe = pipeline.stages["vla"].recipe
    assert recipe.model.head.kind == HEAD_OF[name]
    assert set(HEAD_OF.values()) <= set(HEADS.names())
    steps = recipe.training.total_steps(samples_per_step=recipe.data.samples_per_step)
    assert recipe.training.schedule.warmup <= steps / 10


@pytest.mark.parametrize("name", ["octo-like", "act"])
def test_what_it_takes_is_told(name):
    """diffusion-policy's needs the hub's description of its CLIP."""
    assert 2**30 < cost_of(loaded(name), "vla").bytes_per_gpu < 72 * 2**30


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("act", {"vla.model.head": {"kind": "bins"}}, "'bins' needs a language model"),
        ("act", {"vla.model.lora": {"rank": 4}}, "lora adapts the layers of a language model"),
        ("octo-like", {"vla.model.head": {"kind": "pi0", "dim": 64, "n_layers": 13, "n_heads": 12}},
         "the backbone's, which has 12"),
        ("pi0-like", {"vla.resources.strategy": "fsdp"}, "reach the backbone's keys and values"),
        ("act", {"vla.data.robot.inputs.image.size": [96, 96]}, "which takes 224x224"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_when_it_is_planned(name, change, message):
    with pytest.raises(FoundryError, match=message):
        loaded(name, change)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("raw"))


def make_clip(folder):
    """A CLIP of a few thousand weights, with a tokenizer."""
    tokenizer = make_tokenizer(folder, {"eos_token": "<eos>", "bos_token": "<bos>"})
    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    tiny |= {"num_attention_heads": 2}
    ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    ids |= {"bos_token_id": tokenizer.bos_token_id}
    config = CLIPConfig(
        text_config=tiny | ids, vision_config=tiny | {"image_size": 32, "patch_size": 16}
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    return folder


def overrides_of(name, raw, folder):
    if name in FAMILY:
        found = reduced(name, raw, make_vlm(folder, FAMILY[name]))
        # What PaliGemma's tiny tower takes, which does not interpolate.
        return found | ({"vlm.image_size": 16} if name == "pi0-like" else {})
    found = reduced(name, raw)
    if name == "diffusion-policy":
        clip = str(make_clip(folder))
        vision = {"source": clip, "image_size": 32, "patch_size": 16, "width": 16}
        found |= {f"vla.model.backbone.vision.{key}": value for key, value in vision.items()}
        found["vla.model.backbone.text.source"] = clip
    return found | {"vla.data.robot.inputs.image.size": [32, 32]}


@pytest.mark.slow("trains every recipe for a step")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", RECIPES)
def test_it_trains_one_step_at_reduced_width_and_acts(shared_home, raw, tmp_path, name):
    overrides = overrides_of(name, raw, tmp_path / "checkpoint")
    result = flows.run(name, overrides, quiet=True)
    assert result["status"] == "succeeded", result
    made = {
        row["name"]: shared_home / "store" / row["kind"] / row["key"] for row in result["stages"]
    }
    (row,) = (made["vla"] / "records" / "metrics.jsonl").read_text().splitlines()
    metrics = json.loads(row)
    assert metrics["step"] == 1 and math.isfinite(metrics["loss"]) and metrics["grad_norm"] > 0
    policy = load_policy(made["vla"])
    assert policy.model.config.head.kind == HEAD_OF[name]
    policy.reset("a", 0)
    assert policy.execute_steps == loaded(name).stages["vla"].recipe.execute_steps
