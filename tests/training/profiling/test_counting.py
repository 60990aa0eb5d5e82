"""FLOPs, bytes and host reads of single operators; bounds by hand."""

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from foundry_core.training.peaks import bandwidth_of
from foundry_core.training.profiling.ceiling import Peaks, ceiling_of, peaks_of
from foundry_core.training.profiling.counting import StepCounter, Work, host_reads
from foundry_core.training.profiling.ledger import Ledger


def counted(call, phase="forward"):
    ledger = Ledger(lambda: None)
    with ledger.phase(phase), StepCounter(ledger) as counter:
        call()
    return counter


A, B = torch.ones(4, 8), torch.ones(8, 16)
X, Y = torch.ones(3, 5), torch.ones(3, 5)
ROWS = torch.tensor([1, 1])


@pytest.mark.parametrize(
    ("call", "flops", "values"),
    [
        (lambda: A @ B, 2 * 4 * 8 * 16, 4 * 8 + 8 * 16 + 4 * 16),
        (lambda: torch.relu(X), 0, 15 + 15),
        (lambda: X.add_(1), 0, 15 + 15),
        (lambda: X.t(), 0, 0),
        (lambda: torch.empty(100), 0, 0),
        (lambda: X[0, :1].expand(3, 5).relu(), 0, 15 + 15),
        (lambda: nn.functional.embedding(ROWS, B), 0, 2 * 2 * 16),
        (lambda: torch._foreach_lerp_([X], [Y], 0.5), 0, 3 * 15),
    ],
)
def test_what_an_operator_computes_and_moves(call, flops, values):
    work = counted(call).work
    assert sum(one.flops for one in work) == flops
    assert sum(one.bytes for one in work) == 4 * values


def test_a_cpus_attention_has_flops():
    """Two products of [T,D] and [T,D] per head forward; five backward, of which one is the scores'
    again, which MFU does not count."""
    q = torch.randn(2, 3, 16, 8, requires_grad=True)
    product = 2 * 2 * 3 * 16 * 16 * 8
    counter = counted(
        lambda: scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()
    )
    assert [one.flops for one in counter.work if one.is_product] == [2 * product, 5 * product]
    assert counter.flops == (2 + 4) * product


def test_host_reads_are_counted_with_their_line():
    x = torch.arange(4.0)

    def step():
        if x.sum() > 3:
            x.nonzero()
        x[x > 2]
        return x.sum().item(), x.max().item()

    found = host_reads(counted(step).reads)
    assert sum(read.count for read in found) == 5
    first = step.__code__.co_firstlineno
    lines = {read.what: read.where for read in found}
    assert lines["aten::nonzero"] == f"profiling/test_counting.py:{first + 2}"
    assert lines["aten::index.Tensor"] == f"profiling/test_counting.py:{first + 3}"
    twice = [read for read in found if read.count == 2]
    assert [read.where for read in twice] == [f"profiling/test_counting.py:{first + 4}"]


@pytest.mark.parametrize("phase", ["data", "prepare"])
def test_work_on_batches_of_the_host_is_not_the_devices(phase):
    counter = counted(lambda: torch.ones(3).sum().item(), phase)
    assert (counter.work, counter.reads) == ([], {})


def test_ceilings_by_hand():
    """P 10 FLOP/s, B 5 bytes/s. One product of 100 FLOPs and 10 bytes: 10 s; one of 20 FLOPs that
    moves 40 bytes: 8 s; 60 bytes without arithmetic: 12 s. F = 90 takes 9 s at the peak."""
    work = [Work(flops=100, bytes=10), Work(flops=20, bytes=40), Work(flops=0, bytes=60)]
    peaks = Peaks(flops=10.0, bandwidth=5.0, known=True, how="")
    found = ceiling_of(work, 90.0, 27.0, peaks)
    assert found.eager == pytest.approx(9 / 30)
    assert found.products == pytest.approx(9 / 18)
    assert found.now == pytest.approx(9 / 36)


@pytest.mark.parametrize(
    ("name", "terabytes"),
    [
        ("NVIDIA H100 80GB HBM3", 3.35),
        ("NVIDIA H100 PCIe", 2.0),
        ("NVIDIA A100-SXM4-80GB", 2.04),
        ("NVIDIA A100-SXM4-40GB", 1.56),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_bandwidths_by_name(name, terabytes):
    assert bandwidth_of(name) == (terabytes and terabytes * 1e12)


def test_peaks_that_nobody_states_are_measured():
    device = torch.device("cpu")
    measured = peaks_of(device, torch.float32, None)
    assert not measured.known
    assert measured.flops > 1e8 and measured.bandwidth > 1e7
    assert "float32 products measured here" in measured.how
    stated = peaks_of(device, torch.float32, 3e12)
    assert stated.known and stated.flops == 3e12
