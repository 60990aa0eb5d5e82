"""Tars of images and captions, as the tool img2dataset writes them."""

import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import Literal

from foundry_core.data.sources.base import (
    Broken,
    Captioned,
    CaptionFormat,
    PathSource,
    Reads,
    SourceRef,
)
from foundry_core.data.sources.files import find_files, tar_files

_IMAGES = ("jpg", "jpeg", "png", "webp")


class ImageCaptionTars(CaptionFormat, PathSource):
    """img2dataset tars: `<key>.jpg|png|webp` + `<key>.txt` + `<key>.json`."""

    format: Literal["img2dataset"] = "img2dataset"

    def refs(self) -> list[SourceRef]:
        """One per tar."""
        files = find_files(self.path, (".tar",))
        return [SourceRef(name=file.name, files=(str(file),)) for file in files]

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def items(self, ref: SourceRef) -> Iterator[Captioned | Broken]:
        stem = ref.path.stem
        samples: dict[str, dict[str, bytes]] = {}
        try:
            for name, data in tar_files(ref.path):
                key, _, extension = name.partition(".")
                samples.setdefault(key, {})[extension] = data
        except (tarfile.TarError, OSError, EOFError) as error:
            yield Broken(id=stem, reason=f"not a readable tar: {error}")
            return
        for key, members in samples.items():
            yield _item(f"{stem}-{key}".replace(".", "_").replace("/", "_"), members)


def _item(name: str, members: Mapping[str, bytes]) -> Captioned | Broken:
    images = [extension for extension in _IMAGES if extension in members]
    if not images or "txt" not in members:
        return Broken(id=name, reason=f"has {sorted(members)}, not an image and a .txt")
    try:
        metadata = json.loads(members.get("json", b"{}"))
        caption = members["txt"].decode().strip()
    except ValueError as error:
        return Broken(id=name, reason=repr(error))
    return Captioned(
        id=name, images={"image": members[images[0]]}, caption=caption, metadata=metadata
    )


FORMAT = ImageCaptionTars
