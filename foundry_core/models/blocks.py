"""The repeated blocks of a model: what is sharded, compiled and recomputed one by one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from foundry_core.models.interfaces import Decoder


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The entries of every nn.ModuleList that have parameters, inner lists first."""
    entries = [b for m in module.modules() if isinstance(m, nn.ModuleList) for b in m]
    return [block for block in reversed(entries) if any(True for _ in block.parameters())]


def compile_blocks(module: nn.Module) -> None:
    """In place, before the model is sharded: blocks of one shape share one compiled graph, and the
    terms of the next-token loss get one. Blocks by their `forward` alone, so that hooks (FSDP2's
    gathering of weights) stay outside."""
    for block in blocks_of(module):
        block.forward = torch.compile(block.forward, dynamic=False)
    for part in module.modules():
        if isinstance(part, Decoder):
            part.compiled_loss = True


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """Inside, what `compile_blocks` did is undone: operators can be seen, and graphs traced."""
    with ExitStack() as undo:
        for block in blocks_of(module):
            written = getattr(block.forward, "_torchdynamo_orig_callable", None)
            if written is not None:
                undo.callback(setattr, block, "forward", block.forward)
                block.forward = written
        for part in module.modules():
            if isinstance(part, Decoder) and part.compiled_loss:
                undo.callback(setattr, part, "compiled_loss", True)
                part.compiled_loss = False
        yield
