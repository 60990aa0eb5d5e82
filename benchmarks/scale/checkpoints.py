"""The document that commits a checkpoint: which part of which tensor lies where."""

import json
from pathlib import Path

import torch
from measured import Clock, Part, Row

from foundry_core.models.tensor_files import Written
from foundry_core.training.checkpoint import read_state, state_bytes, state_document
from foundry_core.training.layout import Chunk, StoredTensor, layout_document

# Matrices of the 1.86B model's three towers.
SHAPES = [(2_048, 2_048)] * 7 * 24 + [(1_152, 1_152)] * 6 * 27 + [(1_024, 1_024)] * 8 * 24


def measure(folder: Path, ranks: int) -> Row:
    """Weights, moments and average, every matrix split among all ranks."""
    layout = {
        f"{part}/blocks.{number}.weight": _split(high, wide, ranks)
        for part in ("model", "exp_avg", "exp_avg_sq", "ema")
        for number, (high, wide) in enumerate(SHAPES)
    }
    shards = [Written(sha256="a" * 64, size=1)] * ranks
    document = layout_document(layout)  # once in a run
    clock = Clock()
    data = state_bytes(state_document(1, document, shards, {}))
    written, clock = clock.cpu, Clock()
    read_state(json.loads(data))
    return {
        "ranks": ranks,
        "tensors": len(layout),
        "MB": len(data) / 1e6,
        "CPU s to write": written,
        "CPU s to read": clock.cpu,
    }


def _split(high: int, wide: int, ranks: int) -> StoredTensor:
    cut = -(-high // ranks)
    chunks = tuple(
        Chunk(rank=r, offsets=(r * cut, 0), sizes=(min(cut, high - r * cut), wide))
        for r in range(ranks)
        if r * cut < high
    )
    return StoredTensor(dtype=torch.float32, shape=(high, wide), chunks=chunks)


PART = Part(sizes=(1, 8, 32, 128), measure=measure)
