"""Activation checkpointing: blocks are computed again in the backward pass instead of kept."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from foundry_core.models.interfaces import Decoder
from foundry_core.models.vla import VLA


def recompute_blocks(model: nn.Module) -> None:
    """Of the language part of a model, native or transformers', in place: between its blocks only
    their inputs are kept. The results are the same, bit for bit."""
    decoder = model.backbone if isinstance(model, VLA) else model
    assert isinstance(decoder, Decoder)
    for block in decoder.text_layers:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
