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
from foundry_core.models.products import product
from foundry_core.models.sizes import SLICE_ELEMENTS_DEVICE

_BLOCK_ELEMENTS = 1 << 18
"""Logits of the rows whose softmax is formed at once on a CPU: they stay in a core's cache."""
_SLICE_ELEMENTS = 1 << 20
"""Least logits per slice on a CPU."""
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
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, z) as float32 scalars: loss = Σ −log p(target) + z and z = z_loss · Σ logsumexp²; and
    the loss's parts float32 [n].

    hidden [n,D], weight [V,D], targets int64 [n]. Products in autocast's type where it is on;
    softmax in float32. Gradients flow through `loss` alone. soft_cap: cap·tanh(logits/cap).
    compiled: logits are read twice and their gradient written once, instead of a dozen passes.
    """
    on_cpu = hidden.device.type == "cpu"
    terms = _compiled_terms() if compiled else _terms_by_blocks if on_cpu else _terms
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
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = compute_type(hidden)
        h, w = hidden.to(dtype), weight.to(dtype)
        differentiate = any(ctx.needs_input_grad[:2])
        # Of no size where nobody asks for them.
        d_hidden = torch.empty_like(h if differentiate else h[:0])
        loss = torch.zeros((), dtype=torch.float32, device=h.device)
        z = torch.zeros_like(loss)
        parts = torch.empty(len(h), dtype=torch.float32, device=h.device)
        kind = h.device.type
        rows = _slice_rows(*w.shape, on_cpu=kind == "cpu")
        # The gradient of a single slice's logits is smaller than the weight's: that is formed, at
        # its final scale, when the backward pass asks for it.
        single = kind == "cpu" and 0 < len(h) <= min(rows, w.shape[1])
        d_weight = torch.empty_like(
            weight if differentiate and not single else weight[:0], dtype=torch.float32
        )
        gradient = None
        with torch.autocast("cpu" if kind == "meta" else kind, enabled=False):
            for start in range(0, h.shape[0], rows):
                part = slice(start, start + rows)
                nll, log_partition, gradient = terms(
                    product(h[part], w), targets[part, None], z_loss, soft_cap, differentiate
                )
                squares = z_loss * log_partition.square()
                loss += nll.sum() + squares.sum()
                z += squares.sum()
                parts[part] = (nll + squares)[:, 0]
                if gradient is not None:
                    d_hidden[part] = product(gradient, w.t())
                    if not single:
                        _accumulate(d_weight, gradient.t(), h[part], first=start == 0)
        if differentiate:
            if not len(h):
                d_weight.zero_()
            ctx.save_for_backward(d_hidden, *((gradient, h) if single else (d_weight,)))
        ctx.types = hidden.dtype, weight.dtype
        ctx.mark_non_differentiable(z, parts)
        return loss, z, parts

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor, _: Tensor, __: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, *rest = ctx.saved_tensors
        if len(rest) == 2:
            gradient, h = rest
            d_weight = gradient.t() @ (h * d_loss).to(h.dtype)
        else:
            d_weight = rest[0] * d_loss
        d_hidden = d_hidden.to(ctx.types[0]) * d_loss
        return d_hidden, d_weight.to(ctx.types[1]), None, None, None, None


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
    """(nll [n,1], logsumexp [n,1], d(Σ nll + z_loss·logsumexp²)/d(raw logits) [n,V], in the type of
    these)."""
    logits = raw.float()
    slope = None
    if soft_cap is not None:
        bounded = torch.tanh(logits / soft_cap)
        logits, slope = soft_cap * bounded, 1 - bounded.square()
    chosen = logits.gather(1, targets)
    log_p = logits.log_softmax(dim=1)
    log_chosen = log_p.gather(1, targets)
    log_partition = chosen - log_chosen
    if not gradient:
        return -log_chosen, log_partition, None
    p = log_p.exp_()
    if z_loss:
        p *= 1 + 2 * z_loss * log_partition
    if torch.compiler.is_compiling():  # where a scatter would need all of p in memory
        p = p - (torch.arange(p.shape[1], device=p.device) == targets).float()
    else:
        p.scatter_add_(1, targets, torch.full_like(log_partition, -1.0))
    if slope is not None:
        p *= slope
    return -log_chosen, log_partition, p.to(raw.dtype)


def _terms_by_blocks(
    raw: Tensor, targets: Tensor, z_loss: float, soft_cap: float | None, gradient: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`_terms` on a CPU, some rows at a time; the gradient takes the place of the raw logits."""
    log_partition = torch.empty(targets.shape, dtype=torch.float32)
    chosen = _capped(raw.gather(1, targets).float(), soft_cap)
    rows = max(1, _BLOCK_ELEMENTS // raw.shape[1])
    minus = torch.full((min(rows, len(raw)), 1), -1.0)
    for start in range(0, len(raw), rows):
        block = raw[start : start + rows]
        logits = _capped(block.float(), soft_cap)
        p = logits.softmax(dim=1)
        log_z = log_partition[start : start + rows]
        # At the largest of a row both are far from 0, and one logarithm gives the partition.
        torch.sub(logits.amax(1, keepdim=True), p.amax(1, keepdim=True).log_(), out=log_z)
        if not gradient:
            continue
        if z_loss:
            p *= 1 + 2 * z_loss * log_z
        p.scatter_add_(1, targets[start : start + rows], minus[: len(block)])
        if soft_cap is not None:
            p *= 1 - (logits / soft_cap).square_()
        block.copy_(p)
    return log_partition - chosen, log_partition, raw if gradient else None


def _capped(logits: Tensor, soft_cap: float | None) -> Tensor:
    return logits if soft_cap is None else soft_cap * torch.tanh(logits / soft_cap)
