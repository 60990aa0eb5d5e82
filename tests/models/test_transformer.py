import math

import pytest
import torch
from model_zoo import build, language_config, plain_tokens

from foundry_core.errors import FoundryError
from foundry_core.models import layers, plain_attention
from foundry_core.models.interfaces import Tap
from foundry_core.models.layers import Visibility
from foundry_core.models.transformer import Transformer

SHAPES = {
    "layer": {},
    "rms": {"norm": "rms"},
    "grouped": {"n_kv_heads": 2, "norm": "rms", "qk_norm": True},
    "wide heads": {"head_dim": 16, "tie_embeddings": True},
    "embedding norm": {"norm_after_embedding": True},
    "soft cap": {"logit_soft_cap": 0.5},
}


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
def test_the_future_is_invisible(changes):
    model = build(language_config(**changes))
    tokens = plain_tokens(2, 12)
    changed = tokens.clone()
    changed[:, 7:] = plain_tokens(2, 5, seed=9)
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7], atol=1e-5, rtol=0)
    assert (before[:, 7:] - after[:, 7:]).abs().max() > 1e-3


def test_packed_documents_equal_separate_ones():
    model = build(language_config())
    first, second = plain_tokens(1, 5, seed=1), plain_tokens(1, 7, seed=2)
    packed = model(
        torch.cat((first, second), dim=1),
        Visibility(segments=torch.tensor([[0] * 5 + [1] * 7], dtype=torch.int32)),
    )
    separate = torch.cat((model(first), model(second)), dim=1)
    torch.testing.assert_close(packed, separate, atol=1e-5, rtol=0)
    unaware = model(torch.cat((first, second), dim=1))
    assert (unaware - separate)[:, 5:].abs().max() > 1e-3


@pytest.mark.parametrize("left", [0, 3])
def test_padding_changes_nothing(left):
    model = build(language_config())
    tokens = plain_tokens(1, 6)
    padded = torch.zeros(1, 11, dtype=torch.int64)
    mask = torch.zeros(1, 11, dtype=torch.bool)
    padded[:, left : left + 6], mask[:, left : left + 6] = tokens, True
    out = model(padded, Visibility(keys=mask))
    assert out.isfinite().all()
    torch.testing.assert_close(out[:, left : left + 6], model(tokens), atol=1e-5, rtol=0)


def test_spans_see_both_ways_and_only_their_own():
    allowed = (
        Visibility(spans=torch.tensor([[1, 1, 2, 2, 0]])).mask(5, torch.device("cpu")).allowed[0, 0]
    )
    expected = torch.tensor(
        [
            [1, 1, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [1, 1, 1, 1, 0],
            [1, 1, 1, 1, 0],
            [1, 1, 1, 1, 1],
        ],
        dtype=torch.bool,
    )
    assert torch.equal(allowed, expected)


def test_attention_in_blocks_of_queries(monkeypatch):
    model = build(language_config())
    tokens = plain_tokens(2, 20)
    segments = (torch.arange(20) > 6).int().expand(2, -1)
    packed = Visibility(segments=segments)
    whole = model(tokens), model(tokens, packed)
    monkeypatch.setattr(plain_attention, "_QUERY_BLOCK", 8)
    torch.testing.assert_close(model(tokens), whole[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(model(tokens, packed), whole[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_plain_and_fused_attention_agree(monkeypatch, kv_heads):
    torch.manual_seed(0)
    q = torch.randn(2, 4, 9, 8)
    k, v = torch.randn(2, 2, kv_heads, 9, 8)
    mask = Visibility(segments=torch.tensor([[0] * 4 + [1] * 5, [0] * 9])).mask(9, q.device)
    for given in (mask, None):
        plain = layers.attend(q, k, v, given, causal=True)
        monkeypatch.setattr(layers, "PLAIN_ATTENTION_LIMIT", 0)
        fused = layers.attend(q, k, v, given, causal=True)
        monkeypatch.undo()
        torch.testing.assert_close(plain, fused, atol=1e-6, rtol=0)


def test_rope_rotates_halves_by_the_position():
    x = torch.zeros(1, 4, 1, 4)
    x[..., 0] = 1.0
    y = layers.apply_rope(x, layers.rope_table(4, 4, 10000.0, x.device))
    for position in range(4):
        expected = [math.cos(position), 0.0, math.sin(position), 0.0]
        torch.testing.assert_close(y[0, position, 0], torch.tensor(expected))


def test_rope_s_gradient():
    x = torch.randn(2, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    table = layers.rope_table(3, 4, 10000.0, x.device)
    weight = torch.randn(2, 3, 2, 4, dtype=torch.float64)
    (layers.apply_rope(x, table) * weight).sum().backward()
    eye = torch.eye(4).view(4, 1, 1, 4).expand(4, 3, 2, 4)
    columns = layers.apply_rope(eye, table).double()  # the linear map, column by column
    expected = torch.einsum("kthd,bthd->bthk", columns, weight)
    torch.testing.assert_close(x.grad, expected, atol=1e-6, rtol=0)


def test_rope_is_computed_in_float32():
    x = torch.randn(1, 300, 1, 16)
    table = layers.rope_table(300, 16, 10000.0, x.device)
    half = layers.apply_rope(x.bfloat16(), table)
    full = layers.apply_rope(x.bfloat16().float(), table)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, full.bfloat16(), atol=0, rtol=0)


def test_rms_norm_known_value():
    norm = layers.RMSNorm(2, 0.0)
    out = norm(torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(out, torch.tensor([3.0, 4.0]) / math.sqrt(12.5))


def test_initial_spread():
    torch.manual_seed(0)
    model = Transformer(language_config(dim=64, vocab_size=500, ffn_dim=256))
    sigma = 64**-0.5
    # A normal cut at 3σ keeps 98.7 % of its spread.
    for tensor in (model.embedding.weight, model.head.weight, model.blocks[0].ffn.gate_up.weight):
        assert tensor.std().item() == pytest.approx(0.987 * sigma, rel=0.03)
        assert tensor.abs().max() <= 3 * sigma
    for layer, block in enumerate(model.blocks):
        expected = 0.987 * sigma / math.sqrt(2 * (layer + 1))
        assert block.ffn.down.weight.std().item() == pytest.approx(expected, rel=0.05)
        assert block.attention.out.weight.std().item() == pytest.approx(expected, rel=0.05)


def test_new_vocabulary_rows_are_the_mean():
    model = build(language_config())
    old, head = model.embedding.weight.clone(), model.head.weight.clone()
    before = model(plain_tokens(1, 4))
    model.resize_vocabulary(53, 50)
    assert model.config.vocab_size == 53
    torch.testing.assert_close(model.embedding.weight[:50], old)
    for row in (50, 51, 52):
        torch.testing.assert_close(model.embedding.weight[row], old.mean(0))
        torch.testing.assert_close(model.head.weight[row], head.mean(0))
    torch.testing.assert_close(model(plain_tokens(1, 4))[..., :50], before)
    model.resize_vocabulary(10, 9)
    assert model.vocab_size == 53


def test_padding_of_the_table_counts_in_no_mean():
    model = build(language_config())
    embedding, head = model.embedding.weight.clone(), model.head.weight.clone()
    model.resize_vocabulary(41, 40)
    for weight, old in ((model.embedding.weight, embedding), (model.head.weight, head)):
        torch.testing.assert_close(weight[40], old[:40].mean(0))
        assert (weight[40] - old.mean(0)).abs().max() > 1e-3
        torch.testing.assert_close(weight[:40], old[:40])
        torch.testing.assert_close(weight[41:], old[41:])


def test_tap_concatenates_the_last_layers():
    model = build(language_config())
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda _m, _i, output: seen.append(output))
    tokens, positions = plain_tokens(2, 6), torch.tensor([2, 5])
    last = model.hidden(model.embed(tokens))[[0, 1], positions]
    embeddings = model.embed(tokens)
    raw = model.tap(embeddings, Tap(positions=positions, layers=3, norm="none"))
    expected = torch.stack([h[[0, 1], positions] for h in seen[1:4]], dim=1)
    torch.testing.assert_close(raw, expected.flatten(1)[:, None])
    normed = model.tap(embeddings, Tap(positions=positions, layers=3, norm="final"))
    torch.testing.assert_close(normed, model.norm(expected).flatten(1)[:, None])
    torch.testing.assert_close(normed[:, 0, -32:], last)


def test_tap_deeper_than_the_model_is_refused():
    with pytest.raises(FoundryError, match=r"tap_layers is 5.*4 layers"):
        build(language_config()).tap(
            torch.zeros(1, 2, 32),
            Tap(positions=torch.zeros(1, dtype=torch.int64), layers=5, norm="none"),
        )


def test_bfloat16_autocast_stays_close():
    model = build(language_config(norm="rms", qk_norm=True))
    tokens = plain_tokens(2, 10)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(tokens).float()
    assert (half - model(tokens)).abs().max() < 0.1
