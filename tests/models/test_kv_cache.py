import pytest
import torch
from decoding import assert_cached_is_full, assert_row_alone
from model_zoo import IMAGE, build, language_config, vlm_config
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from foundry_core.errors import FoundryError
from foundry_core.models import kv_cache
from foundry_core.models.interfaces import Prompts
from foundry_core.models.layers import Visibility, apply_rope, attend, rope_table

SHAPES = {
    "layer": {},
    "rms": {"norm": "rms"},
    "grouped": {"n_kv_heads": 2, "norm": "rms", "qk_norm": True},
    "one key head": {"n_kv_heads": 1, "qkv_bias": True, "norm": "rms"},
    "tied, wide heads": {"head_dim": 16, "tie_embeddings": True},
    "embedding norm": {"norm_after_embedding": True},
    "soft cap": {"logit_soft_cap": 0.5},
}
ROWS = [[1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12, 13]]


def pictures(rows: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, 2, 3, 32, 32), generator=generator).to(torch.uint8)


def seeing() -> Prompts:
    first = [IMAGE] * 8 + [1, 2, 3, 4, 5]
    second = [7] + [IMAGE] * 4 + [9] + [IMAGE] * 4  # ends with an image
    return Prompts.of([first, second], images=pictures())


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
def test_reading_on_is_reading_all_again(changes):
    model = build(language_config(**changes))
    cache = assert_cached_is_full(model, Prompts.of(ROWS))
    assert cache.lengths.tolist() == [7 + 6, 2 + 6, 4 + 6]


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_reading_on_after_images(attention):
    model = build(vlm_config(image_attention=attention))
    assert_cached_is_full(model, seeing(), avoid=IMAGE)
    assert_cached_is_full(model, Prompts.of(ROWS), avoid=IMAGE)


def test_images_count():
    model = build(vlm_config()).eval()
    prompts = seeing()
    with torch.no_grad():
        hidden, cache = model.prefill(prompts, 1)
        dark = Prompts.of(
            [prompts.tokens[b, :n].tolist() for b, n in enumerate(prompts.lengths.tolist())],
            images=255 - pictures(),
        )
        other, unlike = model.prefill(dark, 1)
        assert (hidden - other).abs().max() > 1e-3
        on = torch.tensor([1, 1])
        assert (model.step(on, cache) - model.step(on, unlike)).abs().max() > 1e-3


@pytest.mark.parametrize("row", range(3))
def test_a_row_alone_is_the_row_in_a_batch(row):
    assert_row_alone(build(language_config(n_kv_heads=2)), Prompts.of(ROWS), row)


@pytest.mark.parametrize("row", range(2))
def test_a_row_with_images_alone(row):
    assert_row_alone(build(vlm_config(image_attention="bidirectional")), seeing(), row)


def test_what_pads_the_prompt_never_shows():
    model = build(language_config()).eval()
    with torch.no_grad():
        outcomes = []
        for pad in (0, 33):
            hidden, cache = model.prefill(Prompts.of(ROWS, pad_id=pad), 3)
            later = [model.step(torch.tensor([1, 2, 3]), cache) for _ in range(3)]
            outcomes.append(torch.stack([hidden, *later]))
    assert torch.equal(*outcomes)


def test_the_buffers_never_grow_and_cost_what_they_should():
    model = build(language_config(n_kv_heads=2)).eval()
    with torch.no_grad():
        _, cache = model.prefill(Prompts.of(ROWS), 5)
        # 2 buffers, 4 layers, 3 rows, 2 heads of 8, 7 + 5 slots, 4 bytes
        assert cache.nbytes == 2 * 4 * 3 * 2 * 8 * 12 * 4 == 18_432
        at = [cache.layer(n).keys.data_ptr() for n in range(4)]
        for _ in range(5):
            model.step(torch.tensor([1, 2, 3]), cache)
        assert [cache.layer(n).keys.data_ptr() for n in range(4)] == at
        assert (cache.nbytes, cache.room) == (18_432, 0)
        with pytest.raises(FoundryError, match="cache is full"):
            model.step(torch.tensor([1, 2, 3]), cache)


def test_keys_and_values_of_a_prompt_by_layer():
    model = build(language_config(n_kv_heads=2, norm="rms", qk_norm=True)).eval()
    prompts = Prompts.of(ROWS)
    _, cache = model.prefill(prompts, 2)
    attention = model.blocks[0].attention
    x = model.blocks[0].attention_norm(model.embed(prompts.tokens))
    weight = attention.qkv.weight.split((4 * 8, 2 * 8, 2 * 8))
    k, v = (F.linear(x, weight[part]).view(3, 7, 2, 8) for part in (1, 2))
    table = rope_table(7, 8, 10000.0, torch.device("cpu"))
    found = cache.layer(0)
    torch.testing.assert_close(found.values[:, :, :7], v.transpose(1, 2))
    turned = apply_rope(attention.k_norm(k), table).transpose(1, 2)
    torch.testing.assert_close(found.keys[:, :, :7], turned)
    assert found.filled.sum(dim=1).tolist() == [7, 2, 4]
    assert found.filled.shape == (3, 9)
    model.step(torch.tensor([1, 2, 3]), cache)
    assert cache.layer(0).filled.sum(dim=1).tolist() == [8, 3, 5]


def test_keys_of_a_prompt_carry_gradients_where_nothing_follows():
    model = build(language_config())
    _, cache = model.prefill(Prompts.of(ROWS), 0)
    for layer in range(3):  # the last layer's keys come from the third's output
        cache.layer(layer + 1).keys.sum().backward(retain_graph=True)
        assert model.blocks[layer].ffn.down.weight.grad.abs().max() > 0


class Waits(TorchDispatchMode):
    """Counts what would wait for a device."""

    found = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        name = str(function)
        self.found += "_local_scalar_dense" in name or "nonzero" in name
        return function(*arguments, **(named or {}))


def test_a_step_waits_for_nothing():
    model = build(vlm_config()).eval()
    with torch.no_grad():
        hidden, cache = model.prefill(seeing(), 2)
        with Waits() as waits:
            model.step(hidden.argmax(dim=-1).clamp(max=40), cache)
    assert waits.found == 0


class Operations(TorchDispatchMode):
    """What is called, on which shapes."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        shapes = [tuple(x.shape) for x in arguments if isinstance(x, torch.Tensor)]
        self.found.append((str(function), shapes))
        return function(*arguments, **(named or {}))


@torch.no_grad()
def test_on_a_device_all_steps_are_one_graph():
    """The same operations on the same shapes, whatever was read before."""
    model = build(vlm_config()).eval().to("meta")
    _, cache = model.prefill(seeing().to("meta"), 4)
    tokens = torch.zeros(2, dtype=torch.int64, device="meta")
    model.step(tokens, cache)  # makes the rotary table
    steps = []
    for _ in range(2):
        with Operations() as operations:
            model.step(tokens, cache)
        steps.append(operations.found)
    assert steps[0] == steps[1]
    assert any("scaled_dot_product" in name or "softmax" in name for name, _ in steps[0])
    assert not any("_local_scalar_dense" in name or "nonzero" in name for name, _ in steps[0])


@pytest.mark.parametrize("device", ["cpu", "elsewhere"])
def test_one_query_over_many_keys_is_attention(monkeypatch, device):
    """Both kernels, over heads in groups: the last row of attention over all."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 6, 5, 8, generator=generator)
    k, v = torch.randn(2, 2, 2, 5, 8, generator=generator)
    expected = attend(q, k, v, None, causal=True)[:, :, 4:]
    mask = Visibility(keys=torch.ones(2, 5, dtype=torch.bool)).mask(5, q.device)
    last = kv_cache.AttentionMask(mask.allowed[:, :, 4:], causal=False)
    if device == "elsewhere":
        monkeypatch.setattr(kv_cache, "_plain", lambda q: False)
    y = kv_cache.attend_one(q[:, :, 4:], k, v, last)
    torch.testing.assert_close(y, expected)


def test_a_language_model_sees_no_images():
    model = build(language_config())
    with pytest.raises(FoundryError, match="sees no images"):
        model.prefill(Prompts.of([[1, 2]], images=pictures(1)), 0)


@pytest.mark.parametrize("rows", [[], [[1, 2], []]])
def test_empty_prompts_are_refused(rows):
    with pytest.raises(FoundryError, match="a prompt has no tokens"):
        Prompts.of(rows)


@torch.no_grad()
def test_half_precision_keeps_half_precision():
    model = build(language_config(n_kv_heads=2, norm="rms", qk_norm=True)).eval()
    with torch.autocast("cpu", torch.bfloat16):
        hidden, cache = model.prefill(Prompts.of(ROWS), 2)
        assert cache.nbytes == 2 * 4 * 3 * 2 * 8 * 9 * 2
        for token in (3, 4):
            hidden = model.step(torch.full((3,), token), cache)
        full = model.hidden_of(Prompts.of([[*row, 3, 4] for row in ROWS]), torch.tensor([7, 2, 4]))
    last = torch.stack([full[b, n] for b, n in enumerate((8, 3, 5))])
    torch.testing.assert_close(hidden.float(), last.float(), atol=0.05, rtol=0.05)
