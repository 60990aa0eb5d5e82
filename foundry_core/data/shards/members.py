"""What a member of a shard decodes to, by its name and first bytes."""

import gzip
import json
import zlib
from typing import Any

from foundry_core.data.images import decode_image, image_format
from foundry_core.data.npy import read_npy, read_npz
from foundry_core.errors import FoundryError


def decode_member(extension: str, data: bytes | memoryview) -> Any:
    """Images → uint8 [H, W, 3]; .npy → array; .npz → {name: array}; .json, .json.gz → the value;
    .txt → text; anything else stays bytes. FoundryError names a member that does not decode."""
    ending = extension.rpartition(".")[2]
    try:
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
