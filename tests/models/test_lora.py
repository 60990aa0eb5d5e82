import pytest
import torch
from model_zoo import awake, build, robot_batch, vla_config, vlm_config

from foundry_core.errors import FoundryError
from foundry_core.models.build import build_model
from foundry_core.models.config import LoRAConfig
from foundry_core.models.io import load_model, save_model
from foundry_core.models.vla import VLA

LORA = LoRAConfig(rank=2, alpha=4.0)


def condition(model, batch):
    return model.condition(batch["images"], batch["tokens"], batch["token_mask"])


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


def test_round_trip(tmp_path):
    model = awake(build_model(vla_config(lora=LORA), 0))
    batch = robot_batch([4, 2])
    before = condition(model, batch)
    save_model(tmp_path, model)
    loaded, _ = load_model(tmp_path)
    torch.testing.assert_close(condition(loaded, batch), before)
    assert not loaded.backbone.language.embedding.weight.requires_grad


def test_targets():
    lora = LoRAConfig(targets=("qkv",))
    model = build_model(vla_config(lora=lora), 0)
    assert sum("lora_" in n for n, _ in model.named_parameters()) == 4 * 2
    with pytest.raises(FoundryError, match=r"'q_proj'.*down, gate_up, out, qkv"):
        build_model(vla_config(lora=LoRAConfig(targets=("q_proj",))))
