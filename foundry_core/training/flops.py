"""How much arithmetic a step is, and how much a device could do: what MFU divides.

A language model's step: (6·N + 12·L·H·Q·T) per token, with N its parameters without the look-up of
embeddings (a head that is tied to it counts: it multiplies), L layers, H heads of width Q, T
positions of a row. A transformers VLM's, and a policy's on one: the products of its shapes
(sizing/), for it looks at values, which the meta device has not. Any other model's: what
torch.utils.flop_counter counts in the forward and backward pass of a batch on the meta device. None
counts what is computed twice to save memory; all count attention as if nothing were masked.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from foundry_core.data.loading.config import ROBOT, TEXT
from foundry_core.errors import FoundryError
from foundry_core.models.config import HFVLMConfig, TransformerConfig
from foundry_core.models.interfaces import Backbone, LanguageModel
from foundry_core.models.vla import VLA
from foundry_core.training.mixed_batch import Batch, MixedBatch, MixedLoss, Objective, StepKey
from foundry_core.training.parts import parameters_of
from foundry_core.training.peaks import peak_of
from foundry_core.training.sizing import cost
from foundry_core.training.sizing.models import with_head
from foundry_core.training.sizing.workload import Rows


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 FLOP/s of a device; None for a CPU and for devices that the table lacks."""
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


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
    done. Call it before the model is compiled or sharded."""
    loss, inputs = meta_step(model, objectives, batch)
    with FlopCounterMode(display=False) as counter:
        total, _ = loss(*inputs)
        total.backward()
    return counter


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
) -> tuple[float | None, str]:
    """(FLOPs of a batch's forward and backward pass, how they were found); (None, why) for a model
    whose products nobody can count."""
    text = batch.get(TEXT)
    if text is not None and len(batch) == 1:
        rows, positions = text["tokens"].shape[0], text["tokens"].shape[1] - 1
        per_token = language_flops(model, positions)
        if per_token is not None:
            return per_token * rows * positions, "6 N + 12 L H Q T per token"
    try:
        by_shapes = transformers_flops(model, objectives, batch)
        if by_shapes is not None:
            return by_shapes, "products of its shapes"
        counter = counted_flops(model, objectives, batch)
    # A head whose shapes are not known, a module of others' that needs values.
    except (FoundryError, RuntimeError, NotImplementedError) as error:
        return None, f"no MFU: its products cannot be counted ({str(error).splitlines()[0]})"
    return float(counter.get_total_flops()), "counted on one batch by torch's flop_counter"


def transformers_flops(
    model: nn.Module, objectives: Mapping[str, Objective], batch: MixedBatch
) -> float | None:
    """FLOPs of a batch's forward and backward pass through a model on a transformers VLM; None for
    any other model."""
    backbone = model.backbone if isinstance(model, VLA) else model
    if not isinstance(backbone, Backbone) or not isinstance(backbone.config, HFVLMConfig):
        return None
    from foundry_core.models.huggingface.vlm import HFVLM
    from foundry_core.training.sizing.huggingface import module_parts

    assert isinstance(backbone, HFVLM)
    parts = module_parts(backbone)
    modules = dict(backbone.parts)
    if isinstance(model, VLA):
        parts = with_head(model.config, parts)
        modules["head"] = [model.head]
    trained = {
        name: sum(p.numel() for p in parameters_of(some) if p.requires_grad)
        for name, some in modules.items()
    }
    rows = [_rows(m, part, float(objectives[m].elements(part).sum())) for m, part in batch.items()]
    if isinstance(model, VLA) and not model.config.use_images:
        rows = [_blind(row, backbone.tokens_per_image) for row in rows]
    return cost.step_flops(parts, rows, trained)


def _rows(modality: str, part: Batch, valid: float) -> Rows:
    """Of a batch as the loader made it. valid: what its objective counts."""
    samples, length = part["tokens"].shape
    robot = modality == ROBOT
    return Rows(
        modality=modality,
        samples=samples,
        positions=length if robot else length - 1,
        targets=0 if robot else valid / samples,
        images=part["images"].shape[1] if "images" in part else 0,
    )


def _blind(row: Rows, tokens_per_image: int) -> Rows:
    """As a policy without images sees it; captions keep theirs."""
    if row.modality != ROBOT:
        return row
    return replace(row, positions=row.positions - row.images * tokens_per_image, images=0)


def on_meta(model: nn.Module) -> nn.Module:
    """A copy with shapes and no values."""
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo)
