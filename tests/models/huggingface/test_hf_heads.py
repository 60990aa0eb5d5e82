"""Heads that read more than features of transformers' models: gradients reach these through the
cache, and padding changes nothing."""

import pytest
import torch

from foundry_core.models.config import HFVLMConfig, VLAConfig
from foundry_core.models.heads.bins import BinsHeadConfig
from foundry_core.models.heads.pi0 import Pi0HeadConfig
from foundry_core.models.huggingface.vlm import HFVLM
from foundry_core.models.noise import Key
from foundry_core.models.vla import VLA
from tests.hf_checkpoints import make_vlm

SIDES = {"paligemma": 16, "smolvlm": 32, "qwen3_vl": 32}
HEADS = {
    "pi0": Pi0HeadConfig(dim=16, n_layers=2, n_heads=4, ffn_dim=16),
    "bins": BinsHeadConfig(bins=8, token_ids=tuple(range(10, 18))),
}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", SIDES)
def test_it_learns_through_the_backbone_and_acts_alike_in_company(tmp_path, family, head, half):
    side = SIDES[family]
    backbone = HFVLM(HFVLMConfig(path=str(make_vlm(tmp_path, family)), image_size=side))
    obs = backbone.vocab_size
    backbone.resize_vocabulary(obs + 1, obs)
    config = VLAConfig(head=HEADS[head], horizon=3, action_dim=2, proprio_dim=0, obs_token_id=obs)
    model = VLA.from_vlm(config, backbone).eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    marks, image = backbone.marks, [backbone.image_token_id] * backbone.tokens_per_image
    before = [*marks.opening, *marks.image_before, *image, *marks.image_after]
    rows = [[*before, 20, 21, 22, obs], [*before, 23, obs]]
    tokens = torch.tensor([row + [0] * (len(rows[0]) - len(row)) for row in rows])
    mask = torch.arange(len(rows[0])) < torch.tensor([[len(row)] for row in rows])
    images = torch.randint(0, 256, (2, 1, 3, side, side), dtype=torch.uint8)
    known = torch.ones(2, 3, 2, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        total, count = model.training_loss_terms(
            images, tokens, mask, None, torch.randn(2, 3, 2), known, Key(0, 0, torch.arange(2))
        )
    (total.sum() / count).backward()
    for part in filter(None, backbone.parts.values()):
        gradients = [p.grad for module in part for p in module.parameters() if p.grad is not None]
        assert any(gradient.any() for gradient in gradients)
    said = model.act(images, tokens, mask, None, seeds=torch.tensor([1, 2]), steps=torch.zeros(2))
    end = len(rows[1])
    inputs = images[1:], tokens[1:, :end], mask[1:, :end], None
    alone = model.act(*inputs, seeds=torch.tensor([2]), steps=torch.zeros(1))
    torch.testing.assert_close(said[1], alone[0], atol=1e-5, rtol=0)
