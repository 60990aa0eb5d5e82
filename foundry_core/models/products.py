"""Linear maps. In float32 on a CPU torch leaves products to the BLAS it was built with, which on
some processors is a tenth slower than oneDNN, its own library of kernels for everything else."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

_LEAST_ROWS = 256
"""With fewer, what oneDNN asks before it begins costs more than it saves."""


class Linear(nn.Linear):
    """torch's; both products with the weight in a training step by the faster library."""

    def forward(self, x: Tensor) -> Tensor:
        if not _by_onednn(x, self.weight):
            return super().forward(x)
        y: Tensor = _Linear.apply(x, self.weight, self.bias)
        return y


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., K] by weight [N,K] of any strides → [..., N]. Without gradients."""
    if not _by_onednn(x, weight):
        return F.linear(x, weight, bias)
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() >= _LEAST_ROWS * x.shape[-1]
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and _has_onednn()
    )


@functools.cache
def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


if _has_onednn():

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _linear_flops(x: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
        """Of shapes; torch's counters know its other products."""
        return 2 * math.prod(x) * weight[0]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            product(gradient, weight.t()) if wants_x else None,
            rows.t() @ x.flatten(0, -2) if wants_weight else None,
            rows.sum(dim=0) if wants_bias else None,
        )
