"""Packed documents through the kernel for sequences of many lengths, which runs on GPUs alone: what
it is called with, and that a kernel that keeps its promises gives what the mask gives."""

import pytest
import torch
from model_zoo import build, language_config, plain_tokens, robot_batch, vla_config
from torch.nn import attention
from torch.nn import functional as F

from foundry_core.models import layers
from foundry_core.models.layers import Documents, Visibility, document_offsets
from foundry_core.models.noise import Key
from foundry_core.training.flops import on_meta

SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 2], [0, 0, 0, 0, 0, 0]])


def test_where_documents_begin():
    offsets = document_offsets(SEGMENTS)
    assert offsets.dtype == torch.int32
    assert offsets[:5].tolist() == [0, 3, 5, 6, 12]
    assert len(offsets) == 64
    assert set(offsets[4:].tolist()) == {12}  # the rest are empty
    many = document_offsets(torch.arange(128)[None])
    assert len(many) == 192
    assert many[:129].tolist() == list(range(129))


def test_the_kernel_is_asked_for_causality_inside_documents():
    """On the meta device it has shapes and no values."""
    shape = (2, 4, 6, 16)
    q, k, v = (torch.randn(shape, device="meta", dtype=torch.bfloat16) for _ in range(3))
    documents = Documents(offsets=document_offsets(SEGMENTS).to("meta"), segments=SEGMENTS)
    assert layers.has_varlen(q)
    assert layers.attend(q, k[:, :2], v[:, :2], documents, causal=True).shape == shape
    assert not layers.has_varlen(q.float())  # it takes halves only
    assert not layers.has_varlen(torch.zeros(shape, dtype=torch.bfloat16))  # and no CPU


def reference(q, k, v, starts, ends, longest, longest_key, *, window_size, enable_gqa=False):
    """What varlen_attn promises, document by document."""
    assert torch.equal(starts, ends)
    assert window_size == (-1, 0)
    lengths = starts.diff().tolist()
    assert longest == longest_key >= max(lengths)
    parts = []
    for one in zip(*(x.split(lengths) for x in (q, k, v)), strict=True):
        if len(one[0]):
            rows = (x.transpose(0, 1)[None] for x in one)
            y = F.scaled_dot_product_attention(*rows, is_causal=True, enable_gqa=enable_gqa)
            parts.append(y[0].transpose(0, 1))
    return torch.cat(parts)


def without_groups(q, k, v, starts, ends, longest, longest_key, *, window_size=(-1, -1)):
    """The kernel of torch 2.11: a key and a value for each query head."""
    assert q.shape == k.shape == v.shape
    return reference(q, k, v, starts, ends, longest, longest_key, window_size=window_size)


@pytest.mark.parametrize("kernel", [reference, without_groups])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_documents_and_mask_are_one(monkeypatch, kv_heads, kernel):
    model = build(language_config(n_kv_heads=kv_heads))
    tokens = plain_tokens(2, 6)
    masked = model(tokens, Visibility(segments=SEGMENTS))
    visible = Visibility(segments=SEGMENTS, offsets=document_offsets(SEGMENTS))
    assert isinstance(visible.look(6, tokens.device), Documents)
    torch.testing.assert_close(model(tokens, visible), masked)  # by the mask, on a CPU
    monkeypatch.setattr(layers, "has_varlen", lambda q: True)
    monkeypatch.setattr(attention.varlen, "varlen_attn", kernel)
    torch.testing.assert_close(model(tokens, visible), masked, rtol=1e-5, atol=1e-5)


def test_what_else_is_hidden_needs_the_mask():
    offsets = document_offsets(SEGMENTS)
    keys = torch.ones(2, 6, dtype=torch.bool)
    for more in ({"keys": keys}, {"spans": torch.zeros(2, 6, dtype=torch.int64)}):
        looked = Visibility(segments=SEGMENTS, offsets=offsets, **more).look(6, keys.device)
        assert isinstance(looked, layers.AttentionMask)


@pytest.mark.parametrize("kind", ["captions", "robot"])
def test_rows_without_a_mask_leave_flash_attention_on(monkeypatch, kind):
    """On a device: no mask reaches the fused kernel, only causality, in whatever the language
    part attends to; the tower and the head look both ways."""
    asked = []

    def attend(q, k, v, attn_mask=None, is_causal=False, enable_gqa=False):
        asked.append((attn_mask, is_causal))
        return torch.empty_like(q)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    model = on_meta(build(vla_config()))
    batch = {n: t.to("meta") for n, t in robot_batch([4, 2]).items()}
    if kind == "captions":
        model.backbone.hidden(batch["images"], batch["tokens"])
    else:
        key = Key(0, 0, batch["draw_ids"])
        robot = (batch["proprio"], batch["actions"], batch["action_mask"], key)
        model.training_loss_terms(batch["images"], batch["tokens"], None, *robot)
    assert all(mask is None for mask, _ in asked)
    language = len(model.backbone.text_layers)
    assert [causal for _, causal in asked].count(True) == language
    assert len(asked) == 1 + language + (2 if kind == "robot" else 0)
