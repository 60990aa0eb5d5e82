"""Attention on a CPU by plain products, forward and backward written out.

torch's fused attention reads bfloat16 slowly there, and autograd's chain of operators goes through
the [T,T] scores a dozen times, in memory. Here a few rows at a time stay in cache, and under
causality a block of queries leaves out the keys after it.

Legend: b batch, h heads, t queries, s keys, d head dim; c rows of a chunk, n = c·h.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

_QUERY_BLOCK = 64
"""Queries of a block: with four of them at 256 positions, 5/8 of the scores are computed."""
_CHUNK_BYTES = 1 << 20
"""Of a chunk's scores: about one core's share of cache."""


def plain_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool) -> Tensor:
    """softmax(q·kᵀ/√d + bias)·v for q [b,h,t,d], k and v [b,h,s,d], of one type on the CPU.

    bias: [b or 1, t or 1, s] of q's type, 0 where a query may look and -inf elsewhere; None:
    everywhere.
    causal: the bias allows nothing after the query, and s is t.
    """
    if bias is not None:
        bias = bias.expand(-1, q.shape[2], k.shape[2])
    out: Tensor = _PlainAttention.apply(q, k, v, bias, causal)
    return out


class _PlainAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool
    ) -> Tensor:
        batch, heads, length, dim = q.shape
        # Laid out as the projection behind it reads it.
        out = q.new_empty(batch, length, heads, dim).transpose(1, 2)
        spans = list(_spans(length, k.shape[2], causal))
        weights: list[Tensor] = []
        for rows in _chunks(q, spans):
            qc, kc, vc = _flat(q[rows]), _flat(k[rows]), _flat(v[rows])
            for start, end, seen in spans:
                scores = _scores(qc[:, start:end], kc[:, :seen], bias, rows, start)
                weights.append(scores.softmax(dim=-1))
                values = torch.bmm(weights[-1], vc[:, :seen])
                out[rows, :, start:end] = values.view(-1, heads, end - start, dim)
        ctx.save_for_backward(q, k, v, *weights)
        ctx.spans = spans
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *weights = ctx.saved_tensors
        keys, scale = k.shape[2], 1.0 / math.sqrt(q.shape[3])
        dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
        kept = iter(weights)
        for rows in _chunks(q, ctx.spans):
            qc, kc, vc, gc = (_flat(x[rows]) for x in (q, k, v, gradient))
            dqc, dkc, dvc = (x[rows].view(-1, *x.shape[2:]) for x in (dq, dk, dv))
            blocks = [(*span, next(kept)) for span in ctx.spans]
            for start, end, seen, p in reversed(blocks):
                # The last block reaches all keys: it writes, the others add.
                new = 0 if seen == keys else 1
                g = gc[:, start:end]
                dp = torch.bmm(g, vc[:, :seen].transpose(1, 2))
                ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
                _add_product(dqc[:, start:end], ds, kc[:, :seen], 0, scale)
                _add_product(dkc[:, :seen], ds.transpose(1, 2), qc[:, start:end], new, scale)
                _add_product(dvc[:, :seen], p.transpose(1, 2), g, new, 1.0)
        return dq, dk, dv, None, None


Span = tuple[int, int, int]
"""(first query of a block, its end, keys that the block may see)."""


def _spans(length: int, keys: int, causal: bool) -> Iterator[Span]:
    block = _QUERY_BLOCK if causal else length
    for start in range(0, length, block):
        end = min(start + block, length)
        yield start, end, end if causal else keys


def _chunks(q: Tensor, spans: Sequence[Span]) -> Iterator[slice]:
    """Of the batch, so that the scores of a block of queries fit into a core's cache."""
    batch, heads = q.shape[:2]
    scores = max(((end - start) * seen for start, end, seen in spans), default=1)
    count = max(1, _CHUNK_BYTES // (heads * scores * q.element_size()))
    return (slice(start, start + count) for start in range(0, batch, count))


def _flat(x: Tensor) -> Tensor:
    """[c,h,t,d] → [n,t,d], contiguous: products read it several times."""
    return x.reshape(-1, *x.shape[2:])


def _scores(q: Tensor, k: Tensor, bias: Tensor | None, rows: slice, start: int) -> Tensor:
    """[n,t,s] of a block of queries; the product is added to the bias."""
    scale = 1.0 / math.sqrt(q.shape[-1])
    if bias is None:
        return torch.bmm(q * scale, k.transpose(1, 2))
    part = bias if len(bias) == 1 else bias[rows]
    part = part[:, None, start : start + q.shape[1], : k.shape[1]]
    scores = q.new_empty(len(q), *part.shape[2:])
    scores.view(len(part), -1, *part.shape[2:]).copy_(part)
    _add_product(scores, q, k.transpose(1, 2), 1, scale)
    return scores


def _add_product(total: Tensor, a: Tensor, b: Tensor, beta: int, alpha: float) -> None:
    """total = beta·total + alpha·a·b."""
    torch.baddbmm(total, a, b, beta=beta, alpha=alpha, out=total)
