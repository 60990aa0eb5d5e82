"""How much arithmetic a step is, and how much a device could do: what MFU divides.

A language model's step: (6·N + 12·L·H·Q·T) per token, with N its parameters without the look-up of
embeddings (a head that is tied to it counts: it multiplies), L layers, H heads of width Q, T
positions of a row. Any other model's: what torch.utils.flop_counter counts in the forward and
backward pass of a batch on the meta device. Neither counts what is computed twice to save memory;
both count attention as if nothing were masked.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from foundry_core.data.loading.config import TEXT
from foundry_core.models.config import TransformerConfig
from foundry_core.models.interfaces import LanguageModel
from foundry_core.training.mixed_batch import MixedBatch, MixedLoss, Objective, StepKey

# Name of a device, the more special ones first → dense bf16 TFLOP/s that its maker states.
_PEAKS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H200": 989,
    "GH200": 989,
    "B200": 2250,
    "A100": 312,
    "A30": 165,
    "A40": 149.7,
    "A10": 125,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "MI300X": 1307,
}


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 FLOP/s of a device; None for a CPU and for devices that the table lacks."""
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def peak_of(name: str) -> float | None:
    """As peak_flops, by the device's name."""
    peak = by_device_name(_PEAKS, name)
    return None if peak is None else peak * 1e12


def by_device_name(table: Mapping[str, float], name: str) -> float | None:
    """The value of the first entry whose words are all in a device's name."""
    words = name.replace("-", " ").split()
    return next((v for known, v in table.items() if set(known.split()) <= set(words)), None)


def language_flops(model: nn.Module, positions: int) -> float | None:
    """FLOPs of one token's forward and backward pass in rows of so many positions; None for what is
    no language model of our own."""
    if not isinstance(model, LanguageModel) or not isinstance(model.config, TransformerConfig):
        return None
    config = model.config
    look_up = 0 if config.tie_embeddings else model.vocab_size * model.dim
    active = sum(p.numel() for p in model.parameters()) - look_up
    return 6 * active + 12 * config.n_layers * config.n_heads * config.key_dim * positions


def counted_flops(
    model: nn.Module,
    objectives: Mapping[str, Objective],
    batch: MixedBatch,
) -> FlopCounterMode:
    """The counter after a forward and backward pass of `batch` on meta copies: no arithmetic is
    done. Call it before the model is compiled or sharded. Raises Uncountable."""
    loss, inputs = meta_step(model, objectives, batch)
    with FlopCounterMode(display=False) as counter, needing_no_values():
        total, _ = loss(*inputs)
        total.backward()
    return counter


class Uncountable(Exception):
    """The model's way depends on values (many of transformers check their inputs so): nothing can
    be counted without them."""


@contextlib.contextmanager
def needing_no_values() -> Iterator[None]:
    """Turns what the meta device refuses into Uncountable."""
    try:
        yield
    except RuntimeError as error:  # NotImplementedError is one
        raise Uncountable(str(error).strip().partition("\n")[0]) from error


def meta_step(
    model: nn.Module, objectives: Mapping[str, Objective], batch: MixedBatch
) -> tuple[MixedLoss, tuple[MixedBatch, Mapping[str, Tensor], StepKey]]:
    """(the loss of a copy of the model, what its forward takes), without values."""
    loss = MixedLoss(on_meta(model), objectives, {})
    prepared = {
        m: {name: t.to("meta") for name, t in objectives[m].prepare(part).items()}
        for m, part in batch.items()
    }
    counts = {m: torch.ones((), device="meta") for m in batch}
    return loss, (prepared, counts, StepKey(seed=0, step=0))


def step_flops(
    model: nn.Module, objectives: Mapping[str, Objective], batch: MixedBatch
) -> tuple[float, str]:
    """(FLOPs of a batch's forward and backward pass, how they were found). Raises Uncountable."""
    text = batch.get(TEXT)
    if text is not None and len(batch) == 1:
        rows, positions = text["tokens"].shape[0], text["tokens"].shape[1] - 1
        per_token = language_flops(model, positions)
        if per_token is not None:
            return per_token * rows * positions, "6 N + 12 L H Q T per token"
    counter = counted_flops(model, objectives, batch)
    return float(counter.get_total_flops()), "counted on the first batch by torch's flop_counter"


def on_meta(model: nn.Module) -> nn.Module:
    """A copy with shapes and no values."""
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo)
