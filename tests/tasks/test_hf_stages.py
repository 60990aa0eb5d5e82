"""Checkpoints of transformers through the stages: imported, trained on, bent into a policy."""

import json

import numpy as np
import pytest
import torch
from test_train_stages import observation
from training_stages import CAPTIONS, HEAD, LANGUAGE, ROBOT, TEXT, Bench, curve

from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.models.io import load_model
from foundry_core.serving.policy import load_policy
from tests.hf_checkpoints import LANGUAGES, ROWS, make_llm, make_vlm

FAMILIES = ("qwen3_vl", "qwen2_5_vl", "smolvlm", "paligemma", "gemma3")
TRAINING = {"steps": 40, "schedule": {"warmup": 2}, "optimizer": {"lr": 1e-2}}
SHORT = {**TRAINING, "steps": 3}
LOG = {"log_every": 10}
OTHER_FAMILY = pytest.mark.slow("one family of models stands for all in everyday runs")


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    torch.set_num_threads(1)
    return Bench(tmp_path_factory.mktemp("stages"))


def imported(bench: Bench, family: str) -> dict:
    folder = bench.root / "checkpoints" / family
    if not folder.is_dir():
        make_vlm(folder, family)
    return bench.stage(f"{family}_base", "import_vlm", {"path": str(folder)}, {})[1]


def vlm(bench: Bench, family: str, training=TRAINING):
    recipe = {"data": {"captions": CAPTIONS}, "training": training}
    inputs = {"vlm": f"{family}_base", "captions": "captions"}
    return bench.stage(f"{family}_vlm", "train_vlm", recipe, inputs, resources=LOG)


def vla(bench: Bench, family: str, training=TRAINING, **changes):
    recipe = {
        "model": {"head": {**HEAD, "num_noise_samples": 16}},  # else chance decides in 40 steps
        "data": {"robot": ROBOT, "captions": {**CAPTIONS, "loss_weight": 0.1}},
        "training": training,
        **changes,
    }
    inputs = {"vlm": f"{family}_vlm", "robot": "robot", "stats": "stats", "captions": "captions"}
    return bench.stage(f"{family}_vla", "train_vla", recipe, inputs, resources=LOG)


def driven(folder, shade=0) -> np.ndarray:
    policy = load_policy(folder)
    policy.reset("a", 3)
    (answer,) = policy.infer([("a", observation(policy, shade))])
    return answer["robot__action__poses__right::panda__xyz"]


def falls(folder, name: str) -> bool:
    rows = [row[name] for row in curve(folder)]
    return rows[-1] < 0.95 * rows[0]


@pytest.mark.parametrize(
    "family",
    [f if f == "smolvlm" else pytest.param(f, marks=OTHER_FAMILY) for f in FAMILIES],
)
def test_from_a_checkpoint_to_a_policy(bench, family):
    metrics = imported(bench, family)
    assert metrics["parameters"] > 10_000
    folder, _ = vlm(bench, family)
    assert falls(folder, "captions_loss")
    policy, _ = vla(bench, family)
    assert falls(policy, "robot_loss")
    one, other = driven(policy), driven(policy, 255)
    assert one.shape == (8, 3)
    assert np.isfinite(one).all()
    assert np.abs(one - other).max() > 1e-5
    assert np.array_equal(one, driven(policy))
    names = {p.name for p in (policy / "processor").iterdir()}
    assert {"preprocessor_config.json", "tokenizer_config.json"} <= names


def test_the_observation_token_starts_as_the_mean_of_rows_in_use(bench):
    imported(bench, "qwen3_vl")
    vlm(bench, "qwen3_vl", {**SHORT, "steps": 0})
    folder, _ = vla(bench, "qwen3_vl", {**SHORT, "steps": 0})
    tokenizer = Tokenizer.load(folder)
    obs = tokenizer.token_id("<|obs|>")
    assert tokenizer.vocab_size == obs + 1 < ROWS
    model, _ = load_model(folder)
    before, _ = load_model(bench.root / "qwen3_vl_base")
    for now, was in (
        (model.backbone.model.get_input_embeddings(), before.model.get_input_embeddings()),
        (model.backbone.model.get_output_embeddings(), before.model.get_output_embeddings()),
    ):
        torch.testing.assert_close(now.weight[obs], was.weight[:obs].mean(0))
        assert (now.weight[obs] - was.weight.mean(0)).abs().max() > 1e-4
        assert len(now.weight) == ROWS


def test_a_backbone_may_be_described_in_the_policy(bench):
    """Weights in a folder bring their tokenizer; without weights one is connected."""
    imported(bench, "smolvlm")
    base = {"data": {"robot": ROBOT}, "training": SHORT}
    inputs = {"robot": "robot", "stats": "stats"}
    backbone = {"kind": "hf_vlm", "path": str(bench.root / "checkpoints" / "smolvlm")}
    recipe = {**base, "model": {"head": HEAD, "backbone": backbone}}
    folder, _ = bench.stage("vla_described", "train_vla", recipe, inputs)
    assert np.isfinite(driven(folder)).all()
    assert str(bench.root) not in (folder / "config.json").read_text()
    settings = json.loads((bench.root / "checkpoints/smolvlm/config.json").read_text())
    for name in ("image_token_id", "architectures", "dtype", "transformers_version"):
        settings.pop(name, None)
    random = {"kind": "hf_vlm", "image_size": 32, "config": settings}
    recipe = {**base, "model": {"head": HEAD, "backbone": random}}
    folder, _ = bench.stage("vla_random", "train_vla", recipe, {**inputs, "tokenizer": "tokenizer"})
    model, _ = load_model(folder)
    tokenizer = Tokenizer.load(folder)
    assert model.backbone.image_token_id == tokenizer.token_id("<|image|>")
    assert np.isfinite(driven(folder)).all()


@pytest.mark.parametrize(
    "name", ["llama", *(pytest.param(n, marks=OTHER_FAMILY) for n in ("qwen2", "gemma2"))]
)
def test_a_language_model_is_continued_and_built_on(bench, name):
    folder = make_llm(bench.root / "checkpoints" / name, name)
    base = f"{name}_base"
    bench.stage(base, "import_llm", {"path": str(folder)}, {})
    config = json.loads((bench.root / base / "config.json").read_text())["model"]
    assert config["kind"] == ("hf_causal_lm" if name == "gemma2" else "transformer")
    source = {"format": "packages", "packages": ["iniconfig"]}
    bench.stage(
        f"{name}_words", "convert_text", {"source": source, "context": 15}, {"tokenizer": base}
    )
    recipe = {"data": {"text": TEXT}, "training": TRAINING}
    inputs = {"text": f"{name}_words", "llm": base}
    trained, metrics = bench.stage(f"{name}_llm", "train_llm", recipe, inputs, resources=LOG)
    assert falls(trained, "loss")
    assert metrics["tokens"] == 40 * 8 * 15
    vision = {"kind": "conv_vit", "image_size": 16, "dim": 8, "n_layers": 1, "n_heads": 2}
    seeing = {"vision": {**vision, "stem_dims": [8, 8], "stem_groups": 4}}
    recipe = {"model": seeing, "data": {"captions": CAPTIONS}, "training": SHORT}
    inputs = {"llm": f"{name}_llm", "captions": "captions"}
    built, _ = bench.stage(f"{name}_seeing", "train_vlm", recipe, inputs)
    model, _ = load_model(built)
    tokenizer = Tokenizer.load(built)
    assert model.image_token_id == tokenizer.token_id("<|image|>") == tokenizer.vocab_size - 1
    assert model.vocab_size == ROWS


def test_a_padded_vocabulary_is_completed(bench):
    recipe = {
        "model": {**LANGUAGE, "vocab_size": 300},
        "data": {"text": TEXT},
        "training": SHORT,
    }
    inputs = {"text": "text", "tokenizer": "tokenizer"}
    folder, _ = bench.stage("llm_padded", "train_llm", recipe, inputs)
    model, _ = load_model(folder)
    assert (model.vocab_size, Tokenizer.load(folder).vocab_size) == (300, 258)
    recipe["model"]["vocab_size"] = 100
    with pytest.raises(FoundryError, match="vocab_size = 100 is less than the 258 tokens"):
        bench.stage("llm_short", "train_llm", recipe, inputs)


def test_every_language_model_of_transformers_may_stay_one(bench):
    folder = make_llm(bench.root / "checkpoints" / "kept", "llama")
    bench.stage("kept", "import_llm", {"path": str(folder), "native": False}, {})
    config = json.loads((bench.root / "kept" / "config.json").read_text())["model"]
    assert config["kind"] == "hf_causal_lm"
    folder = make_llm(bench.root / "checkpoints" / "never", "gemma2")
    with pytest.raises(FoundryError, match="has model_type gemma2, which the native model lacks"):
        bench.stage("never", "import_llm", {"path": str(folder), "native": True}, {})
    assert set(LANGUAGES) == {"llama", "qwen2", "qwen3", "gemma2"}


def test_a_transformers_model_says_its_mfu(bench):
    """It cannot be counted on the meta device, as other models are: it looks at values."""
    imported(bench, "qwen3_vl")
    recipe = {"data": {"captions": CAPTIONS}, "training": SHORT}
    inputs = {"vlm": "qwen3_vl_base", "captions": "captions"}
    speed = {"log_every": 1, "peak_tflops": 1e-3}
    folder, _ = bench.stage("qwen3_vl_mfu", "train_vlm", recipe, inputs, resources=speed)
    timings = json.loads((folder / "records" / "timings.json").read_text())
    assert timings["flops"] == "products of its shapes"
    assert timings["mfu"] > 0
