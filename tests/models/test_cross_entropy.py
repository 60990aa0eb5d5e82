import pytest
import torch
from torch.nn import functional as F

from foundry_core.models import cross_entropy
from foundry_core.models.cross_entropy import linear_cross_entropy


def reference(hidden, weight, targets, z_loss, soft_cap):
    logits = hidden @ weight.t()
    if soft_cap is not None:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    z = z_loss * logits.logsumexp(1).square().sum()
    return F.cross_entropy(logits, targets, reduction="sum") + z, z


@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.slow("compiles"))]
)
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize("width", [5, 9])
def test_equals_the_plain_computation(monkeypatch, z_loss, soft_cap, compiled, width):
    """8 rows of 5 in slices of 3; of 9 in one, whose weight's gradient waits to be asked for. In
    both some rows at a time."""
    if width == 5:
        monkeypatch.setattr(cross_entropy, "_ROWS_PER_WIDTH", 0)
        monkeypatch.setattr(cross_entropy, "_SLICE_ELEMENTS", 3 * 11)
    monkeypatch.setattr(cross_entropy, "_BLOCK_ELEMENTS", 2 * 11)
    torch.manual_seed(0)
    hidden, weight = torch.randn(8, width).double(), torch.randn(11, width).double()
    targets = torch.randint(0, 11, (8,))
    results = []
    for function in (linear_cross_entropy, reference):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        if function is reference:
            loss, z = reference(h, w, targets, z_loss, soft_cap)
        else:
            how = {"z_loss": z_loss, "soft_cap": soft_cap, "compiled": compiled}
            loss, z, rows = function(h, w, targets, **how)
            one_by_one = [reference(h[i : i + 1], w, targets[i : i + 1], z_loss, soft_cap)[0]
                          for i in range(8)]  # fmt: skip
            torch.testing.assert_close(rows.double(), torch.stack(one_by_one), atol=2e-5, rtol=1e-5)
            assert not rows.requires_grad
        (3.0 * loss).backward()
        results.append([loss.detach(), z.detach(), h.grad, w.grad])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=2e-5, rtol=1e-5)


def test_needs_no_gradient():
    with torch.no_grad():
        loss, *_ = linear_cross_entropy(torch.zeros(4, 3), torch.zeros(7, 3), torch.zeros(4).long())
    assert loss.item() == pytest.approx(4 * torch.tensor(7.0).log().item())


def test_no_rows_is_no_loss():
    hidden = torch.zeros(0, 3, requires_grad=True)
    weight = torch.ones(7, 3, requires_grad=True)
    loss, *_ = linear_cross_entropy(hidden, weight, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert weight.grad.abs().max() == 0


def test_autocast_computes_in_bfloat16_and_returns_float32():
    torch.manual_seed(0)
    hidden = torch.randn(6, 8, requires_grad=True)
    weight = torch.randn(9, 8, requires_grad=True)
    targets = torch.randint(0, 9, (6,))
    with torch.autocast("cpu", torch.bfloat16):
        loss, *_ = linear_cross_entropy(hidden, weight, targets)
    loss.backward()
    assert loss.dtype == hidden.grad.dtype == weight.grad.dtype == torch.float32
    exact, _ = reference(hidden, weight, targets, 0.0, None)
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)
