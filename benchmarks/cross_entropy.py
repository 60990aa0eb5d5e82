"""CPU time of the loss from hidden states, beside F.cross_entropy of the logits.

    OMP_NUM_THREADS=1 python benchmarks/cross_entropy.py [--rounds 8]

Forward and backward, bf16 by autocast; both in turn in one process, and of each the least, for what
else the machine does only adds. Below 1 ours is the faster.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

import torch
from rows import Row, add_rows_argument, write_rows
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from foundry_core.models.cross_entropy import linear_cross_entropy

# vocabulary, width, rows
SHAPES = (
    (2048, 128, 2048),
    (8192, 256, 1024),
    (50432, 96, 512),
    (50432, 256, 384),
    (50432, 768, 384),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    add_rows_argument(parser)
    options = parser.parse_args()
    rounds, rows = options.rounds, []
    print("| vocabulary x width, rows | fp32 | bf16 |\n|---|---|---|")
    for vocabulary, width, count in SHAPES:
        ratios = [ratio(vocabulary, width, count, autocast, rounds) for autocast in (False, True)]
        cells = " | ".join(f"{one:.2f}" for one in ratios)
        print(f"| {vocabulary:,} x {width}, {count:,} | {cells} |", flush=True)
        for precision, one in zip(("fp32", "bf16"), ratios, strict=True):
            row = Row(
                what=f"loss of {vocabulary:,} words, width {width}, {precision}",
                unit="share of its CPU s",
                ours=one,
                beside="F.cross_entropy",
                theirs=1.0,
            )
            rows.append(row)
    write_rows(options.rows, rows)


def ratio(vocabulary: int, width: int, rows: int, autocast: bool, rounds: int) -> float:
    """Least CPU time of ours over the least of torch's."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator, requires_grad=True)
    weight = (0.02 * torch.randn(vocabulary, width, generator=generator)).requires_grad_()
    targets = torch.randint(vocabulary, (rows,), generator=generator)

    def ours() -> Tensor:
        return linear_cross_entropy(hidden, weight, targets)[0]

    def theirs() -> Tensor:
        return F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum")

    values = [_step(loss, hidden, weight, autocast)[1] for loss in (ours, theirs)]
    torch.testing.assert_close(*values, rtol=2e-2 if autocast else 1e-4, atol=1e-2)
    least = [float("inf"), float("inf")]
    for _ in range(rounds):
        for number, loss in enumerate((ours, theirs)):
            least[number] = min(least[number], _step(loss, hidden, weight, autocast)[0])
    return least[0] / least[1]


def _step(
    loss: Callable[[], Tensor], hidden: Tensor, weight: Tensor, autocast: bool
) -> tuple[float, Tensor]:
    """(CPU seconds, value)."""
    hidden.grad = weight.grad = None
    begun = process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = loss()
    value.backward()
    return process_time() - begun, value.detach()


if __name__ == "__main__":
    main()
