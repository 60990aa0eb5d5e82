"""One sample of a folder of shards as JSON, with its pictures: `python -m flows.live.sample FOLDER
SAMPLE [TOKENIZER]`. A process of its own, with bounds: what shards hold comes from anybody."""

import base64
import io
import json
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from foundry_core.data.images import image_format, is_depth
from foundry_core.data.inspection.contents import contents
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.webdataset import decode_member
from foundry_core.errors import FoundryError

_MEMORY = 4 * 2**30
_PICTURES, _SIDE = 8, 320
_LOOK = "foundry data inspect FOLDER --sample N"
_TOKENS, _TEXT = 400, 4000
MOST_BYTES = 8 * 2**20
"""Of the JSON."""


def sample_of(folder: str, number: int, tokenizer: str = "") -> dict[str, Any]:
    """`contents` of the folder, with `pictures` {name, png} of the sample, at most eight, small;
    and `text`: of packed tokens, decoded. FoundryError where there is no such sample."""
    found = contents(folder, number)
    members = CheckedShards(folder).members(number)
    pictures: list[dict[str, str]] = []
    for name, data in sorted(members.items()):
        if len(pictures) < _PICTURES and image_format(data) and not is_depth(data):
            try:
                pictures.append({"name": name, "png": _small(decode_member(name, data))})
            except FoundryError:
                continue  # `holds` says so
    return found | {"pictures": pictures, "text": _text(members, tokenizer)}


def _small(pixels: Any) -> str:
    """Drawn anew: of the file's own bytes nothing reaches the browser."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _text(members: Mapping[str, memoryview], folder: str) -> str:
    if not folder or "tokens.npy" not in members:
        return ""
    from foundry_core.data.text.tokenizer import Tokenizer

    tokens = decode_member("tokens.npy", members["tokens.npy"]).reshape(-1)[:_TOKENS]
    return Tokenizer.load(Path(folder)).decode(tokens.tolist())[:_TEXT]


def main(folder: str, number: str, tokenizer: str = "") -> int:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    try:
        found = sample_of(folder, int(number), tokenizer)
    except FoundryError as error:
        found = {"error": error.message, "hint": error.hint}
    said = json.dumps(found, default=str)
    if len(said) > MOST_BYTES:  # who asks holds all of it in memory
        said = json.dumps({"error": "the sample says more than a page shows", "hint": _LOOK})
    print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
