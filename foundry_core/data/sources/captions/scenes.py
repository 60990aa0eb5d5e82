"""A folder of images with an index of captions."""

import json
from array import array
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from foundry_core.data.sources.base import (
    Broken,
    Captioned,
    CaptionFormat,
    PathSource,
    Reads,
    SourceRef,
)
from foundry_core.data.sources.captions.items import read_image
from foundry_core.errors import FoundryError
from foundry_core.files import Signature, sha256_hex, signature
from foundry_core.identity.sources import source_file

_LINES = 200


class SceneFolder(CaptionFormat, PathSource):
    """A folder with `scenes.jsonl` (or another name): {"image": path | [paths], "caption": ...}."""

    format: Literal["scenes"] = "scenes"
    index: str = Field("scenes.jsonl", description="name of the file of lines")

    @classmethod
    def matches(cls, path: Path) -> bool:
        return (path / "scenes.jsonl").is_file()

    def refs(self) -> list[SourceRef]:
        """Runs of lines of the index."""
        index = source_file(self.root, self.index)
        if not index.is_file():
            raise FoundryError(f"{self.path!r} holds no {self.index}", "check path and index")
        total = len(_starts(str(index), signature(index.stat()))) - 1
        return [
            SourceRef(
                name=f"{self.index}[{start}]",
                files=(str(index),),
                start=start,
                stop=min(start + _LINES, total),
            )
            for start in range(0, total, _LINES)
        ]

    def reads(self, ref: SourceRef) -> Reads:
        """Its lines, and the images that they name."""
        lines = _lines(ref)
        files: list[str] = []
        for line in lines:
            # What is wrong with a line, `items` says.
            with suppress(FoundryError, ValueError, KeyError, TypeError, RecursionError):
                named = json.loads(line)["image"]
                names = [named] if isinstance(named, str) else named
                files += [str(source_file(self.root, name)) for name in names]
        return Reads(tuple(files), sha256_hex(b"\n".join(lines)))

    def items(self, ref: SourceRef) -> Iterator[Captioned | Broken]:
        for number, line in enumerate(_lines(ref), start=ref.start):
            name = f"{self.index}:{number + 1}"
            try:
                yield self._item(f"{number:08d}", json.loads(line))
            except FoundryError as error:
                yield Broken(id=name, reason=str(error))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                yield Broken(id=name, reason=repr(error))

    def _item(self, name: str, row: dict[str, Any]) -> Captioned:
        files = [row["image"]] if isinstance(row["image"], str) else row["image"]
        cameras = row.get("cameras") or (
            ["image"] if len(files) == 1 else [f"image{i}" for i in range(len(files))]
        )
        images = {
            camera: read_image(source_file(self.root, file))
            for camera, file in zip(cameras, files, strict=True)
        }
        rest = {k: v for k, v in row.items() if k not in ("image", "caption", "cameras")}
        return Captioned(id=name, images=images, caption=row["caption"], metadata=rest)


def _lines(ref: SourceRef) -> list[bytes]:
    """Of a piece; the rest of the index is passed over."""
    starts = _starts(ref.files[0], signature(ref.path.stat()))
    with ref.path.open("rb") as stream:
        stream.seek(starts[ref.start])
        return stream.read(starts[ref.stop] - starts[ref.start]).splitlines()


@lru_cache(maxsize=2)
def _starts(index: str, _: Signature) -> "array[int]":
    """Where each line begins, and where the last one ends."""
    starts = array("Q", [0])
    with open(index, "rb") as stream:
        for line in stream:
            starts.append(starts[-1] + len(line))
    return starts


FORMAT = SceneFolder
