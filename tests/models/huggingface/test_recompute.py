"""Activation checkpointing: the same gradients from fewer kept activations."""

import pytest
import torch
from model_zoo import build, robot_batch, vla_config
from test_hf_vlm import hf_vlm

from foundry_core.models.noise import Key
from foundry_core.training.parts import recompute


def gradients(model, batch):
    """(gradients by name, bytes kept for the backward pass)."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    inputs = [batch[k] for k in ("images", "tokens", "token_mask", "proprio", "actions")]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total, _ = model.training_loss_terms(
            *inputs, batch["action_mask"], Key(0, 0, batch["draw_ids"])
        )
    total.sum().backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found, sum(kept.values())


@pytest.mark.parametrize("backbone", ["native", "qwen3_vl", "smolvlm", "paligemma", "gemma3"])
def test_gradients_are_the_same_and_less_is_kept(backbone):
    described = {} if backbone == "native" else {"backbone": hf_vlm(backbone)}
    model = build(vla_config(**described)).train()
    size = 16 if backbone == "paligemma" else 32
    batch = robot_batch([20, 12], size=size)
    plain, much = gradients(model, batch)
    names = set(model.state_dict())
    recompute(model, ["language"])
    again, little = gradients(model, batch)
    assert set(model.state_dict()) == names
    assert set(plain) == set(again)
    for name, value in plain.items():
        assert torch.equal(value, again[name]), name
    assert little < 0.8 * much
