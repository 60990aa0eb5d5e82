"""A folder of our shards as a webdataset pipeline, for training code that has one already."""

import gzip
import json
import os
import zlib
from pathlib import Path
from typing import Any

from foundry_core.data.images import decode_depth, decode_image, image_format, is_depth
from foundry_core.data.npy import read_npy, read_npz
from foundry_core.data.shards.read import read_manifest
from foundry_core.errors import FoundryError


def webdataset(folder: str | os.PathLike[str], **options: Any) -> Any:
    """A `webdataset.WebDataset` over the folder's shards in manifest order, every member decoded.

    Samples are {"__key__": key, "__url__": shard, <extension>: value} with the values of
    `decode_member`: text has "tokens.npy", captions images, "txt" and "json", robot data images,
    "lowdim.npz", "metadata.json" and "language_instructions.json".

    options go to WebDataset: `shardshuffle=100`, `nodesplitter=webdataset.split_by_node`. Its order
    is its own: neither the mix nor the resume of our loader. Bytes are not checked against the
    manifest's digests (`foundry data validate` does).
    """
    from webdataset import WebDataset

    tars = [os.path.abspath(Path(folder, f"{s.shard}.tar")) for s in read_manifest(Path(folder))]
    return WebDataset(tars, **{"shardshuffle": False, "empty_check": False} | options).map(_decoded)


def _decoded(sample: dict[str, Any]) -> dict[str, Any]:
    return {n: v if n.startswith("__") else decode_member(n, v) for n, v in sample.items()}


def decode_member(extension: str, data: bytes | memoryview) -> Any:
    """Images → uint8 [H, W, 3], depth (of 16 bits) → uint16 [H, W]; .npy → array; .npz → {name:
    array}; .json, .json.gz → the value; .txt → text; anything else stays bytes. FoundryError names
    a member that does not decode."""
    ending = extension.rpartition(".")[2]
    try:
        if is_depth(data):
            return decode_depth(data, extension)
        if image_format(data):
            return decode_image(data, extension)
        if ending == "npz":
            return read_npz(data)
        if ending == "npy":
            return read_npy(data)
        if extension.endswith("json.gz"):
            return json.loads(gzip.decompress(data))
        if ending == "json":
            return json.loads(bytes(data))
        if ending == "txt":
            return bytes(data).decode()
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise FoundryError(f"member {extension!r} does not decode: {error}") from error
    return bytes(data)
