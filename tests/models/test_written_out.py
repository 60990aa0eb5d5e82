"""Operators and products with backward passes of their own, against autograd's chains."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from foundry_core.models import products
from foundry_core.models.elementwise import GatedUnit, RootMeanSquare
from foundry_core.models.layers import make_norm
from foundry_core.models.products import Linear, product


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


def gradients(function, *inputs: Tensor) -> list[Tensor]:
    """The value, and the gradients of its product with a fixed random tensor."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    y = function(*leaves)
    return [y, *torch.autograd.grad((y * random(*y.shape, seed=9).to(y.dtype)).sum(), leaves)]


def assert_same(found: list[Tensor], expected: list[Tensor], **tolerance: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_root_mean_square(dtype):
    x, weight = random(5, 7, 16, dtype=dtype), 1 + random(16, seed=1)
    found = gradients(lambda *i: RootMeanSquare.apply(*i, 1e-5), x, weight)
    expected = gradients(lambda x, w: F.rms_norm(x.float(), (16,), w, 1e-5).to(dtype), x, weight)
    assert found[0].dtype == found[1].dtype == dtype and found[2].dtype == torch.float32
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert_same(found, expected, rtol=tolerance, atol=tolerance)


def test_root_mean_square_of_a_known_row():
    """3, 4: the mean square is 12.5."""
    norm = make_norm("rms", 2, 0.0)
    y = norm(torch.tensor([[3.0, 4.0]]))
    assert torch.allclose(y, torch.tensor([[3.0, 4.0]]) / 12.5**0.5)


def test_gated_unit():
    def chain(gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up

    gate_up = random(3, 5, 12, dtype=torch.float64)
    assert_same(gradients(GatedUnit.apply, gate_up), gradients(chain, gate_up))


@pytest.mark.parametrize("bias", [True, False])
def test_linear_maps_of_many_rows(bias):
    """Those that another library computes."""
    assert products._has_onednn(), "torch's builds for this processor have it"
    linear = Linear(12, 20, bias=bias)
    plain = nn.Linear(12, 20, bias=bias)
    plain.load_state_dict(linear.state_dict())
    x = random(2, 200, 12)

    def run(module: nn.Module) -> list[Tensor]:
        found = gradients(module, x)
        module(x).square().sum().backward()
        return [*found, *(p.grad for p in module.parameters() if p.grad is not None)]

    assert len(run(linear)) == 3 + bias
    linear.zero_grad()
    plain.zero_grad()
    assert_same(run(linear), run(plain), rtol=1e-4, atol=1e-4)


def test_frozen_weights_get_no_gradient():
    linear = Linear(12, 20)
    linear.weight.requires_grad_(False)
    linear(random(2, 200, 12).requires_grad_()).sum().backward()
    assert linear.weight.grad is None and linear.bias.grad is not None


def test_products_of_few_rows_and_other_types_are_torchs():
    weight = random(20, 12)
    few = random(3, 12)
    assert torch.equal(product(few, weight), F.linear(few, weight))
    half = random(300, 12).bfloat16()
    assert torch.equal(product(half, weight.bfloat16()), F.linear(half, weight.bfloat16()))
    turned = random(12, 20).t()
    many = random(300, 12)
    torch.testing.assert_close(product(many, turned), many @ turned.t())


def test_flops_of_every_library_are_counted():
    linear, x = Linear(12, 20, bias=False), random(300, 12).requires_grad_()
    with FlopCounterMode(display=False) as counter:
        linear(x).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 300 * 12 * 20
