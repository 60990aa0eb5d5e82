"""Tars of images and captions, as the tool img2dataset writes them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from foundry_core.data.sources.base import Broken, Captioned, CaptionFormat, PathSource, SourceRef
from foundry_core.data.sources.files import find_files, tar_files
from foundry_core.errors import FoundryError

_IMAGES = ("jpg", "jpeg", "png", "webp")


class ImageCaptionTars(CaptionFormat, PathSource):
    """img2dataset tars: `<key>.jpg|png|webp` + `<key>.txt` + `<key>.json`."""

    format: Literal["img2dataset"] = "img2dataset"

    def refs(self) -> list[SourceRef]:
        """One per tar."""
        files = find_files(self.path, (".tar",), odd=True)
        above = self.root.parent if self.root.is_file() else self.root
        return [
            SourceRef(name=file.relative_to(above).as_posix(), files=(str(file),)) for file in files
        ]

    def items(self, ref: SourceRef) -> Iterator[Captioned | Broken]:
        """In the order of the tar. One that is damaged gives what is whole, then says so."""
        tar = _Tar()
        if ref.path.is_file():
            tar.read(ref.path)
        else:
            tar.damage = "is no file" if ref.path.exists() else "is not there"
        stem = ref.name.removesuffix(".tar").replace(".", "_")
        for key, members in tar.samples.items():
            item = _item(f"{stem}-{key}", members, tar.twice.get(key, ""))
            if not (isinstance(item, Broken) and tar.damage and key == tar.last):
                yield item
        if tar.damage:
            yield Broken(id=ref.name, reason=tar.damage)


class _Tar:
    """samples: {key: {extension: bytes}}. last: the key that was read last. twice: of a key, the
    member that came again. damage: why no more could be read."""

    def __init__(self) -> None:
        self.samples: dict[str, dict[str, bytes]] = {}
        self.twice: dict[str, str] = {}
        self.last = self.damage = ""

    def read(self, path: Path) -> None:
        from foundry_core.data.shards.index import split_name

        try:
            for name, data in tar_files(path):
                self.last, extension = split_name(name.removeprefix("./"))
                members = self.samples.setdefault(self.last, {})
                if extension.lower() in members:
                    self.twice[self.last] = name
                members[extension.lower()] = data
        except FoundryError as error:
            self.damage = error.message
        except OSError as error:
            self.damage = f"not readable: {error}"


def _item(name: str, members: Mapping[str, bytes], twice: str) -> Captioned | Broken:
    images = [extension for extension in _IMAGES if extension in members]
    if twice:
        return Broken(id=name, reason=f"its member {twice!r} is there twice")
    if not images or "txt" not in members:
        return Broken(id=name, reason=f"has {sorted(members)}, not an image and a .txt")
    try:
        metadata = json.loads(members.get("json", b"{}"))
        caption = members["txt"].decode().strip()
    except (ValueError, RecursionError) as error:
        return Broken(id=name, reason=f"its .txt or .json is not readable: {error!r}")
    return Captioned(
        id=name, images={"image": members[images[0]]}, caption=caption, metadata=metadata
    )


FORMAT = ImageCaptionTars
