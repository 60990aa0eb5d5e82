"""Next-token loss straight from hidden states, a slice of rows at a time.

The logits of a batch are its largest tensor (8192 positions × 50k words × 4 bytes = 1.6 GB), and
softmax and its gradient read it five times. Here each slice stays in cache: its gradient is formed
while its logits are at hand, and only d(hidden) and d(weight) are kept. Twice as fast on a CPU at
the demo's size.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foundry_core.models.layers import compute_type
from foundry_core.models.sizes import SLICE_ELEMENTS_DEVICE

_SLICE_ELEMENTS = 1 << 20
"""Logits per slice on a CPU: 4 MB in float32, about one core's share of cache."""
_ROWS_PER_WIDTH = 4
"""A slice reads and writes the weight and its gradient, 4·V·D values, beside some 8·V values per
row: with 4·D rows that is an eighth of the work. With the 20 rows of a cache's share at V = 50k it
was three quarters."""
_LARGEST_SLICE = 1 << 26


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    z_loss: float = 0.0,
    soft_cap: float | None = None,
    compiled: bool = False,
) -> tuple[Tensor, Tensor]:
    """(loss, z) as float32 scalars: loss = Σ −log p(target) + z and z = z_loss · Σ logsumexp².

    hidden [n,D], weight [V,D], targets int64 [n]. Products in autocast's type where it is on;
    softmax in float32. Gradients flow through `loss` alone. soft_cap: cap·tanh(logits/cap).
    compiled: logits are read twice and their gradient written once, instead of a dozen passes.
    """
    terms = _compiled_terms() if compiled else _terms
    return _LinearCrossEntropy.apply(hidden, weight, targets, z_loss, soft_cap, terms)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        z_loss: float,
        soft_cap: float | None,
        terms: Callable[..., Any],
    ) -> tuple[Tensor, Tensor]:
        dtype = compute_type(hidden)
        h, w = hidden.to(dtype), weight.to(dtype)
        differentiate = any(ctx.needs_input_grad[:2])
        # Of no size where nobody asks for them.
        d_hidden = torch.empty_like(h if differentiate else h[:0])
        d_weight = torch.empty_like(weight if differentiate else weight[:0], dtype=torch.float32)
        loss = torch.zeros((), dtype=torch.float32, device=h.device)
        z = torch.zeros_like(loss)
        rows = _slice_rows(*w.shape, on_cpu=h.device.type == "cpu")
        kind = h.device.type
        with torch.autocast("cpu" if kind == "meta" else kind, enabled=False):
            for start in range(0, h.shape[0], rows):
                part = slice(start, start + rows)
                nll, squares, gradient = terms(
                    h[part] @ w.t(), targets[part, None], z_loss, soft_cap, differentiate
                )
                loss += nll + squares
                z += squares
                if gradient is not None:
                    torch.mm(gradient, w, out=d_hidden[part])
                    _accumulate(d_weight, gradient.t(), h[part], first=start == 0)
        if differentiate:
            if not len(h):
                d_weight.zero_()
            ctx.save_for_backward(d_hidden, d_weight)
        ctx.types = hidden.dtype, weight.dtype
        ctx.mark_non_differentiable(z)
        return loss, z

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        d_hidden = d_hidden.to(ctx.types[0]) * d_loss
        return d_hidden, (d_weight * d_loss).to(ctx.types[1]), None, None, None, None


def _slice_rows(vocabulary: int, width: int, *, on_cpu: bool) -> int:
    if not on_cpu:
        return max(1, SLICE_ELEMENTS_DEVICE // vocabulary)
    wanted = max(_SLICE_ELEMENTS // vocabulary, _ROWS_PER_WIDTH * width)
    return max(1, min(wanted, _LARGEST_SLICE // vocabulary))


def _accumulate(total: Tensor, a: Tensor, b: Tensor, *, first: bool) -> None:
    """total (+)= a @ b; total is float32, the factors may be half as wide."""
    if a.dtype == total.dtype:
        torch.addmm(total, a, b, beta=0 if first else 1, out=total)
    elif first:
        total.copy_(a @ b)
    else:
        total += a @ b


@functools.cache
def _compiled_terms() -> Callable[..., Any]:
    return torch.compile(_terms)


def _terms(
    raw: Tensor, targets: Tensor, z_loss: float, soft_cap: float | None, gradient: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(Σ nll, z_loss·Σ logsumexp², d(sum of both)/d(raw logits) [n,V] in their type)."""
    logits = raw.float()
    slope = None
    if soft_cap is not None:
        bounded = torch.tanh(logits / soft_cap)
        logits, slope = soft_cap * bounded, 1 - bounded.square()
    chosen = logits.gather(1, targets)
    log_p = logits.log_softmax(dim=1)
    log_chosen = log_p.gather(1, targets)
    log_partition = chosen - log_chosen
    nll, squares = -log_chosen.sum(), z_loss * log_partition.square().sum()
    if not gradient:
        return nll, squares, None
    p = log_p.exp_()
    if z_loss:
        p *= 1 + 2 * z_loss * log_partition
    if torch.compiler.is_compiling():  # where a scatter would need all of p in memory
        p = p - (torch.arange(p.shape[1], device=p.device) == targets).float()
    else:
        p.scatter_add_(1, targets, torch.full_like(log_partition, -1.0))
    if slope is not None:
        p *= slope
    return nll, squares, p.to(raw.dtype)
