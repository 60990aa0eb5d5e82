"""The written-out attention against its formula, whose gradients autograd forms."""

import math

import pytest
import torch
from torch import Tensor

from foundry_core.models import plain_attention as module
from foundry_core.models.layers import Visibility, attend
from foundry_core.models.plain_attention import plain_attention

_LENGTH = 150
"""Two whole blocks of queries and a part of one."""


def formula(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if bias is not None:
        scores = scores + bias[:, None]
    return scores.softmax(dim=-1) @ v


def random_qkv(batch: int, length: int, dtype: torch.dtype) -> list[Tensor]:
    """As the fused projection hands them over: views, heads after positions."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(batch, length, 9, 8, generator=generator, dtype=dtype)
    return [x.transpose(1, 2) for x in qkv.split(3, dim=2)]


def biases(batch: int, length: int) -> dict[str, Tensor | None]:
    """float64. Rows of `documents` differ, those of `causal` do not."""
    causal = torch.ones(length, length, dtype=torch.bool).tril()[None]
    segments = torch.arange(length) // torch.tensor([[length // 3], [20], [length]])[:batch]
    documents = causal & (segments[:, :, None] == segments[:, None])
    both_ways = causal | (torch.arange(length) < 20)

    def bias(allowed: Tensor) -> Tensor:
        zeros = torch.zeros(allowed.shape, dtype=torch.float64)
        return zeros.masked_fill_(~allowed, float("-inf"))

    return {
        "none": None,
        "causal": bias(causal),
        "documents": bias(documents),
        "both ways": bias(both_ways),
    }


@pytest.mark.parametrize("chunk", [1, 1 << 30])
@pytest.mark.parametrize("kind", ["none", "causal", "documents", "both ways"])
def test_values_and_gradients_are_those_of_the_formula(kind, chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_BYTES", chunk)
    q, k, v = random_qkv(3, _LENGTH, torch.float64)
    bias = biases(3, _LENGTH)[kind]
    weight = torch.randn(q.shape, generator=torch.Generator().manual_seed(1), dtype=q.dtype)

    def gradients(attention):
        inputs = [x.detach().requires_grad_() for x in (q, k, v)]
        y = attention(*inputs)
        return [y, *torch.autograd.grad((y * weight).sum(), inputs)]

    causal = kind in ("causal", "documents")
    found = gradients(lambda *inputs: plain_attention(*inputs, bias, causal))
    for ours, theirs in zip(found, gradients(lambda *i: formula(*i, bias)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_queries_may_look_at_another_sequence(masked):
    """Of which each row may hide keys from all of its queries alike."""
    hidden = torch.arange(33) >= torch.tensor([[33], [20]])
    bias = torch.zeros(2, 1, 33, dtype=torch.float64).masked_fill_(hidden[:, None], -math.inf)
    bias = bias if masked else None
    q = random_qkv(2, 70, torch.float64)[0]
    _, k, v = random_qkv(2, 33, torch.float64)
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    found = plain_attention(*inputs, bias, False)
    gradients = torch.autograd.grad(found.square().sum(), inputs)
    expected = formula(*inputs, bias)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        gradients, torch.autograd.grad(expected.square().sum(), inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_equal_keys_give_the_mean_of_the_values():
    """Known value: with q = 0 each query averages what it may see."""
    values = torch.arange(100.0).view(1, 1, 100, 1)
    zeros = torch.zeros_like(values)
    y = attend(zeros, zeros, values, None, causal=True)
    assert torch.allclose(y.flatten(), torch.arange(100.0) / 2)
    assert torch.allclose(attend(zeros, zeros, values, None, causal=False), torch.tensor(49.5))


def test_types_meet_under_autocast():
    """bfloat16 products, whatever type came in."""
    q, k, v = random_qkv(2, 70, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attend(q, k, v.bfloat16(), None, causal=True)
    assert mixed.dtype == torch.bfloat16
    expected = attend(q, k, v, None, causal=True)
    assert (mixed - expected).abs().max() < 0.03


def test_what_inference_has_cached_trains():
    """The causal mask is made once, perhaps where nothing records gradients."""
    q, k, v = random_qkv(1, 71, torch.float32)
    with torch.inference_mode():
        attend(q, k, v, None, causal=True)
    q = q.detach().requires_grad_()
    attend(q, k, v, None, causal=True).sum().backward()
    assert q.grad is not None and torch.isfinite(q.grad).all()


def test_grouped_heads_read_their_own_keys():
    q, k, v = random_qkv(2, 70, torch.float64)
    y = attend(q, k[:, :1], v[:, :1], None, causal=True)
    mask = Visibility(segments=torch.zeros(2, 70, dtype=torch.int64)).mask(70, q.device)
    spread = (x[:, :1].expand(-1, 3, -1, -1) for x in (k, v))
    torch.testing.assert_close(y, formula(q, *spread, mask.bias(q.dtype)[:, 0]))
