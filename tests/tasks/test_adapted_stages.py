"""Language and vision-language models trained by fresh low-rank adapters: what moves, what a stage
leaves, what the next one and transformers make of it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_stages import CAPTIONS, LANGUAGE, TEXT, TRAINING, VLM, Bench, curve

from foundry_core.errors import FoundryError
from foundry_core.models.huggingface.export import export_hf
from foundry_core.models.huggingface.parity import text_distance
from foundry_core.models.io import load_model
from foundry_core.models.lora import LoRALinear, places
from tests.hf_checkpoints import make_llm, make_vlm

LORA = {"rank": 2, "alpha": 6.0, "dropout": 0.1}
STEPS = {"steps": 20, "schedule": {"warmup": 2}, "optimizer": {"lr": 5e-2}}
LOG = {"log_every": 5}
NATIVE = {**LANGUAGE, "norm": "rms", "n_kv_heads": 1}
VIT = {"kind": "vit", "image_size": 16, "patch_size": 8, "dim": 8, "n_layers": 1, "n_heads": 2}


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    torch.set_num_threads(1)
    bench = Bench(tmp_path_factory.mktemp("stages"))
    recipe = {"model": NATIVE, "data": {"text": TEXT}, "training": TRAINING}
    bench.stage("llm", "train_llm", recipe, {"text": "text", "tokenizer": "tokenizer"})
    recipe = {
        "model": {"vision": VIT, "projector": {"pixel_shuffle": 2}},
        "data": {"captions": CAPTIONS},
        "training": TRAINING,
    }
    bench.stage("vlm", "train_vlm", recipe, {"captions": "captions", "llm": "llm"})
    return bench


def llm(bench: Bench, name: str, base: str = "llm", text: str = "text", **changes):
    recipe = {"data": {"text": TEXT}, "training": STEPS, "lora": LORA} | changes
    resources = {**LOG, **recipe.pop("resources", {})}
    inputs = {"text": text, "llm": base}
    return bench.stage(name, "train_llm", recipe, inputs, resources=resources)[0]


def vlm(bench: Bench, name: str, base: str = "vlm", **changes):
    recipe = {"data": {"captions": CAPTIONS}, "training": STEPS, "lora": LORA} | changes
    inputs = {"captions": "captions", "vlm": base}
    return bench.stage(name, "train_vlm", recipe, inputs, resources=LOG)[0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def moved(before: Path, after: Path) -> set[str]:
    """Names of the old weights that are others now."""
    old, new = weights(before), weights(after)
    return {name for name in old if not torch.equal(old[name], new[name])}


def falls(folder: Path, name: str = "loss") -> bool:
    rows = [row[name] for row in curve(folder)]
    return rows[-1] < 0.98 * rows[0]


def by_hand(folder: Path, into: Path) -> tuple[float, set[str]]:
    """Of what lies apart: the largest difference between W + alpha/rank · B·A and the weight that
    the merged export has; and the names of the adapted linears."""
    export_hf(folder, into / "apart", adapters="apart")
    export_hf(folder, into / "merged")
    base, merged = (load_file(into / name / "model.safetensors") for name in ("apart", "merged"))
    adapters = load_file(into / "apart" / "adapter" / "adapter_model.safetensors")
    settings = json.loads((into / "apart" / "adapter" / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", 2, 6.0)
    names = set(settings["target_modules"])
    for name in names:
        down = adapters.pop(f"base_model.model.{name}.lora_A.weight")
        up = adapters.pop(f"base_model.model.{name}.lora_B.weight")
        assert up.any()
        base[f"{name}.weight"] += 3.0 * up @ down
    assert not adapters
    return max(float((base[name] - merged[name]).abs().max()) for name in merged), names


def test_a_language_model_of_ours(bench, tmp_path):
    folder = llm(bench, "adapted")
    assert falls(folder)
    assert moved(bench.root / "llm", folder) == set()
    added = set(weights(folder)) - set(weights(bench.root / "llm"))
    assert len(added) == 4 * 4 * 2  # layers, linears, down and up
    assert all(".lora_" in name for name in added)
    apart, names = by_hand(folder, tmp_path)
    assert apart < 1e-6
    assert "model.layers.3.self_attn.q_proj" in names and not any("lm_head" in n for n in names)
    assert text_distance(folder, tmp_path / "merged") < 1e-5
    untouched = text_distance(bench.root / "llm", tmp_path / "apart")
    assert untouched < 1e-5 < 1e-3 < text_distance(folder, tmp_path / "apart")


def test_the_next_stage_takes_the_sum_and_trains_all_of_it(bench):
    folder = llm(bench, "taken")
    loaded, _ = load_model(folder)
    layer = loaded.blocks[0].attention.qkv
    assert isinstance(layer, LoRALinear) and layer.lora_up.any()
    recipe = {"model": VLM, "data": {"captions": CAPTIONS}, "training": {"steps": 0}}
    inputs = {"captions": "captions", "llm": "taken"}
    before, _ = bench.stage("on_it_0", "train_vlm", recipe, inputs)
    name = "language.blocks.0.attention.qkv.weight"
    expected = layer.weight + 3.0 * layer.lora_up @ layer.lora_down
    torch.testing.assert_close(weights(before)[name], expected.detach())
    assert not any("lora" in name for name in weights(before))
    assert "lora" not in json.loads((before / "config.json").read_text())
    recipe["training"] = {"steps": 2}
    after, _ = bench.stage("on_it_2", "train_vlm", recipe, inputs)
    assert moved(before, after) == set(weights(before))
    # Adapters on the sum: its weights are what they freeze.
    again = llm(bench, "adapted_again", "taken", training={"steps": 0})
    torch.testing.assert_close(weights(again)["blocks.0.attention.qkv.weight"], expected.detach())


def test_a_vision_language_model_of_ours(bench, tmp_path):
    lora = {**LORA, "targets": "all-linear", "whole": ["projector"]}
    folder = vlm(bench, "seeing", lora=lora)
    assert falls(folder, "captions_loss")
    assert moved(bench.root / "vlm", folder) == {"projector.layers.0.weight"}
    apart, names = by_hand(folder, tmp_path)
    assert apart < 1e-6
    assert any("vision_model" in name for name in names)
    assert text_distance(folder, tmp_path / "merged") < 1e-5


def test_models_of_transformers(bench, tmp_path):
    checkpoint = make_llm(bench.root / "checkpoints" / "llama", "llama")
    bench.stage("llama", "import_llm", {"path": str(checkpoint), "native": False}, {})
    source = {"format": "packages", "packages": ["iniconfig"]}
    words = {"source": source, "context": 15}
    bench.stage("words", "convert_text", words, {"tokenizer": "llama"})
    folder = llm(bench, "llama_adapted", "llama", "words")
    assert falls(folder) and moved(bench.root / "llama", folder) == set()
    apart, names = by_hand(folder, tmp_path / "llama")
    assert apart < 1e-6 and "model.layers.0.mlp.up_proj" in names
    checkpoint = make_vlm(bench.root / "checkpoints" / "smolvlm", "smolvlm")
    bench.stage("smolvlm", "import_vlm", {"path": str(checkpoint)}, {})
    lora = {**LORA, "targets": ["self_attn.*_proj"]}
    folder = vlm(bench, "smolvlm_adapted", "smolvlm", lora=lora)
    assert falls(folder, "captions_loss") and moved(bench.root / "smolvlm", folder) == set()
    apart, names = by_hand(folder, tmp_path / "smolvlm")
    assert apart < 1e-6 and all("self_attn" in name for name in names)


@pytest.mark.parametrize("stage", ["llm", "vlm"])
def test_peft_reads_them(bench, tmp_path, stage):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    folder = llm(bench, "for_peft") if stage == "llm" else vlm(bench, "for_peft_vlm")
    by_hand(folder, tmp_path)
    family = AutoModelForCausalLM if stage == "llm" else AutoModelForImageTextToText
    base = family.from_pretrained(tmp_path / "apart")
    adapted = peft.PeftModel.from_pretrained(base, str(tmp_path / "apart" / "adapter")).eval()
    merged = family.from_pretrained(tmp_path / "merged").eval()
    tokens = torch.randint(0, 250, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs, ours = adapted(input_ids=tokens).logits, merged(input_ids=tokens).logits
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)


@pytest.mark.parametrize("stage", ["llm", "vlm"])
def test_resuming_is_bit_exact_with_dropout_in_the_adapters(bench, stage):
    from foundry_core.data.loading.loader import Loader

    run = llm if stage == "llm" else vlm
    straight = run(bench, f"{stage}_straight", training={**STEPS, "steps": 6})
    original = Loader.batches

    def short(self, first_step=0, rank=0, world=1):
        for step, batch in enumerate(original(self, first_step, rank, world), start=first_step):
            if step == 4:
                raise KeyboardInterrupt
            yield batch

    every = {"checkpoint_every_steps": 2}
    recipe = {"data": {"text": TEXT}, "training": {**STEPS, "steps": 6}, "lora": LORA}
    inputs = {"text": "text", "llm": "llm"}
    if stage == "vlm":
        recipe["data"], inputs = {"captions": CAPTIONS}, {"captions": "captions", "vlm": "vlm"}
    cut = (f"{stage}_cut", f"train_{stage}", recipe, inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "batches", short)
        with pytest.raises(KeyboardInterrupt):
            bench.stage(*cut, resources=every)
    folder, metrics = bench.stage(*cut, resources=every)
    assert metrics["resumed_from_step"] == 4
    assert (folder / "model.safetensors").read_bytes() == (
        straight / "model.safetensors"
    ).read_bytes()


def test_rates_and_frozen_parts_of_a_language_model(bench):
    folder = llm(
        bench,
        "parts",
        lora=None,
        training=TRAINING,
        frozen=["blocks.0", "embedding"],
        lr_scale={"blocks.1": 0.0, "blocks.2": 0.1},
    )
    names = set(weights(folder))
    still = {n for n in names if n.startswith(("blocks.0.", "blocks.1.", "embedding"))}
    assert moved(bench.root / "llm", folder) == names - still
    old, new = weights(bench.root / "llm"), weights(folder)
    name = "blocks.{}.attention.qkv.weight"
    slow, fast = (float((new[name.format(i)] - old[name.format(i)]).abs().mean()) for i in (2, 3))
    assert slow == pytest.approx(0.1 * fast, rel=0.2)
    with pytest.raises(FoundryError, match="lr_scale pattern 'layers' matches no parameter"):
        llm(bench, "none", lr_scale={"layers": 2.0})
    adapted = llm(bench, "rates_of_adapters", lr_scale={"blocks.3": 0.0})
    model, _ = load_model(adapted)
    still = {place.name for place, one in places(model, LoRALinear) if not one.lora_up.any()}
    assert {name.rpartition(".")[0] for name in still} == {"blocks.3.attention", "blocks.3.ffn"}
    assert len(still) == 4
