"""Operators between the products, forward and backward written out: autograd's own chains of them
go through memory two or three times as often. A compiler fuses plain chains itself."""

from typing import Any

import torch
from torch import Tensor


class Rotate(torch.autograd.Function):
    """x [b,t,h,d] turned by angles whose cos and sin are [t, d/2], or [b, t, d/2] where rows stand
    at other positions: one rotation each way, in place on one copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotate(gradient, cos, -sin), None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    half = cos.shape[-1]
    first, second = x.float().chunk(2, dim=-1)
    y = torch.cat((first, second), dim=-1).mul_(torch.cat((cos, cos), dim=-1))
    y[..., :half].addcmul_(second, sin, value=-1)
    y[..., half:].addcmul_(first, sin)
    return y.to(x.dtype)


class RootMeanSquare(torch.autograd.Function):
    """x / sqrt(mean(x²) + eps) · weight over the last dimension, in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x32 = x.float()
        norm = torch.linalg.vector_norm(x32, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (x32 * inverse).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        x32, g = x.float(), gradient.float()
        both = g * x32
        d_weight = inverse.reshape(1, -1) @ both.flatten(0, -2)
        # How much of the gradient lies along x, which a change of length would not change.
        along = (both @ weight.float()[:, None]).mul_(inverse).mul_(inverse).div_(-x.shape[-1])
        dx = torch.mul(x32, along, out=both).addcmul_(g, weight).mul_(inverse)
        return dx.to(x.dtype), d_weight[0].to(weight.dtype), None


class GatedUnit(torch.autograd.Function):
    """silu(gate) · up of [..., gate and up side by side]; their gradients are written side by side,
    too."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        opened = torch.nn.functional.silu(gate)
        ctx.save_for_backward(gate_up, opened)
        return opened * up

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gate_up, opened = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        both = torch.empty_like(gate_up)
        d_gate, d_up = both.chunk(2, dim=-1)
        torch.mul(gradient, opened, out=d_up)
        torch.ops.aten.silu_backward.grad_input(gradient * up, gate, grad_input=d_gate)
        return both
