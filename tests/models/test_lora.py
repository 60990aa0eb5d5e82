import pytest
import torch
from model_zoo import awake, build, robot_batch, vla_config, vlm_config

from foundry_core.errors import FoundryError
from foundry_core.models.build import build_model
from foundry_core.models.config import LoRAConfig
from foundry_core.models.io import load_model, save_model
from foundry_core.models.lora import LoRALinear, merge_lora, places
from foundry_core.models.vla import VLA

LORA = LoRAConfig(rank=2, alpha=4.0)


def condition(model, batch):
    return model.condition(batch["images"], batch["tokens"], batch["token_mask"])


def adapted(**lora):
    model = build_model(vla_config(lora=LoRAConfig(rank=2, **lora)), 0)
    return {place.name for place, _ in places(model.backbone, LoRALinear)}


def test_adapters_start_as_nothing_and_alone_are_trained():
    vlm, batch = build(vlm_config()), robot_batch([4, 2])
    plain = VLA.from_vlm(vla_config(backbone=None), vlm)
    before = condition(plain, batch)
    model = VLA.from_vlm(vla_config(backbone=None, lora=LORA), vlm)
    torch.testing.assert_close(condition(model, batch), before)
    trained = {n for n, p in model.backbone.named_parameters() if p.requires_grad}
    assert len(trained) == 4 * 4 * 2  # layers × linears × (down, up)
    assert all("lora_" in name for name in trained)
    assert all(p.requires_grad for p in model.head.parameters())
    condition(model, batch).sum().backward()
    assert model.backbone.language.blocks[0].attention.qkv.lora_up.grad.any()


def test_the_same_seed_gives_the_same_adapters():
    """Places are found as sets, whose order is another in each model."""
    first, *others = (build_model(vla_config(lora=LORA), 0).state_dict() for _ in range(4))
    for other in others:
        for name, value in first.items():
            assert torch.equal(other[name], value), name


@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_round_trip(tmp_path, targets):
    lora = LoRAConfig(rank=2, alpha=4.0, targets=targets)
    model = awake(build_model(vla_config(lora=lora), 0))
    batch = robot_batch([4, 2])
    before = condition(model, batch)
    save_model(tmp_path, model)
    loaded, _ = load_model(tmp_path)
    torch.testing.assert_close(condition(loaded, batch), before)
    assert not loaded.backbone.language.embedding.weight.requires_grad
    merge_lora(loaded.backbone)
    assert not list(places(loaded.backbone, LoRALinear))
    torch.testing.assert_close(condition(loaded, batch), before, atol=1e-5, rtol=1e-5)


def test_targets():
    text = {f"language.blocks.{i}" for i in range(4)}
    assert adapted(targets=("qkv",)) == {f"{block}.attention.qkv" for block in text}
    assert adapted(targets=("ffn.*",)) == {
        *(f"{block}.ffn.{name}" for block in text for name in ("gate_up", "down")),
        "vision.blocks.0.ffn.up",
        "vision.blocks.0.ffn.down",
    }
    assert adapted(targets=("vision.blocks.0.attention.qkv",)) == {"vision.blocks.0.attention.qkv"}
    every = adapted(targets="all-linear")
    assert adapted() < every
    assert {"vision.blocks.0.attention.qkv", "projector.layers.0"} <= every
    assert "language.head" not in every  # the output layer stays


@pytest.mark.parametrize(
    ("target", "known"),
    [("q_proj", "down, gate_up, out, qkv"), ("*.q_proj", "language.blocks.0.attention.out")],
)
def test_a_target_that_is_nothing_is_one_error(target, known):
    with pytest.raises(FoundryError, match=target.replace("*", r"\*")) as caught:
        build_model(vla_config(lora=LoRAConfig(targets=(target,))))
    assert known in caught.value.hint


def test_parts_that_are_trained_in_full():
    lora = LoRAConfig(rank=2, targets="all-linear", whole=("vision",))
    model = build_model(vla_config(lora=lora), 0)
    for name, parameter in model.backbone.named_parameters():
        assert parameter.requires_grad == (name.startswith("vision.") or "lora_" in name), name
    assert not any(place.name.startswith("vision.") for place, _ in places(model, LoRALinear))
    with pytest.raises(FoundryError, match=r"lora.whole names 'eyes'"):
        build_model(vla_config(lora=LoRAConfig(whole=("eyes",))))


def test_dropout_is_of_the_adapters_input_and_of_training_alone():
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 3)
    layer = awake(LoRALinear(linear, LoRAConfig(rank=2, alpha=2, dropout=0.5)))
    x = torch.ones(2000, 64)
    whole = layer.eval()(x)
    dropped = layer.train()(x)
    plain = torch.nn.functional.linear(x, layer.weight, layer.bias)
    assert not torch.allclose(dropped, whole)
    # Inverted dropout: the adapter's part is the same on average; the frozen part never varies.
    torch.testing.assert_close((dropped - plain).mean(0), (whole - plain)[0], atol=5e-3, rtol=5e-2)
    assert LoRALinear(linear, LORA).dropout is None
