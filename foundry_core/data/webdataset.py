"""A folder of our shards as a webdataset pipeline, for training code that has one already."""

import os
from pathlib import Path
from typing import Any

from foundry_core.data.shards.members import decode_member
from foundry_core.data.shards.read import read_manifest


def webdataset(folder: str | os.PathLike[str], **options: Any) -> Any:
    """A `webdataset.WebDataset` over the folder's shards in manifest order, every member decoded.

    Samples are {"__key__": key, "__url__": shard, <extension>: value} with the values of
    `decode_member`: text has "tokens.npy", captions images, "txt" and "json", robot data images,
    "lowdim.npz", "metadata.json" and "language_instructions.json". `shuffle`, `batched`, `map` and
    the rest follow as on any pipeline.

    options go to WebDataset: `shardshuffle=100`, `nodesplitter=webdataset.split_by_node`. Its order
    is its own: neither the mix nor the resume of our loader. Bytes are not checked against the
    manifest's digests (`foundry data validate` does).
    """
    from webdataset import WebDataset

    tars = [os.path.abspath(Path(folder, f"{s.shard}.tar")) for s in read_manifest(Path(folder))]
    return WebDataset(tars, **{"shardshuffle": False, "empty_check": False} | options).map(_decoded)


def _decoded(sample: dict[str, Any]) -> dict[str, Any]:
    """A raw sample of a webdataset pipeline with its members decoded; `__...__` stay."""
    return {
        name: value if name.startswith("__") else decode_member(name, value)
        for name, value in sample.items()
    }
