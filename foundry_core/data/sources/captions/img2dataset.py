"""Tars of images and captions, as the tool img2dataset writes them."""

import json
import tarfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from foundry_core.data.sources.base import (
    Broken,
    Captioned,
    CaptionFormat,
    PathSource,
    Reads,
    SourceRef,
)
from foundry_core.data.sources.captions.items import IMAGES, sample_id, samples
from foundry_core.data.sources.files import find_files, has_files, tar_files
from foundry_core.errors import FoundryError


class ImageCaptionTars(CaptionFormat, PathSource):
    """img2dataset tars: `<key>.jpg|png|webp` + `<key>.txt` + `<key>.json`, neighbours in the tar.
    Where there is no .txt, the `caption` of the .json is taken; a `status` there that is no success
    is one skip."""

    format: Literal["img2dataset"] = "img2dataset"

    @classmethod
    def matches(cls, path: Path) -> bool:
        return has_files(path, (".tar",)) and bool(_kinds(path) & {*IMAGES})

    def refs(self) -> list[SourceRef]:
        """One per tar."""
        files = find_files(self.path, (".tar",))
        return [SourceRef(name=file.name, files=(str(file),)) for file in files]

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def items(self, ref: SourceRef) -> Iterator[Captioned | Broken]:
        tar, last = self.inside(ref.path), ""
        try:
            for key, members in groupby(tar_files(ref.path), lambda member: _split(member[0])[0]):
                found = {_split(name)[1]: data for name, data in members}
                last = f" behind {key!r}"
                yield from _samples(tar, key, found)
        except (tarfile.TarError, OSError, EOFError, FoundryError) as error:
            reason = error.message if isinstance(error, FoundryError) else str(error)
            yield Broken(id=tar, reason=f"not a readable tar{last}: {reason}")


def _split(name: str) -> tuple[str, str]:
    """(key, extension): up to the first dot of the base name, as webdataset has it."""
    folder, slash, base = name.rpartition("/")
    key, _, extension = base.partition(".")
    return f"{folder}{slash}{key}", extension.lower()


def _kinds(path: Path) -> set[str]:
    """The extensions of the first members."""
    file = find_files(str(path), (".tar",))[0]
    try:
        with tarfile.open(file) as tar:
            return {_split(member.name)[1] for member, _ in zip(tar, range(10), strict=False)}
    except (tarfile.TarError, OSError, EOFError):
        return set()


def _samples(tar: str, key: str, members: Mapping[str, bytes]) -> Iterator[Captioned | Broken]:
    place = f"{tar}/{key}"
    try:
        metadata = _metadata(members.get("json"))
        caption = members["txt"].decode() if "txt" in members else metadata.get("caption")
    except (ValueError, RecursionError) as error:
        yield Broken(id=place, reason=f"its .txt or .json is damaged: {error}")
        return
    status = metadata.get("status", "success")
    images = [extension for extension in IMAGES if extension in members]
    if status != "success":
        why = metadata.get("error_message") or "no reason is given"
        yield Broken(id=place, reason=f"img2dataset says {status}: {why}")
    elif not images or ("txt" not in members and caption is None):
        yield Broken(id=place, reason=f"has {sorted(members)}, not an image and a .txt")
    else:
        image = {"image": members[images[0]]}
        yield from samples(
            sample_id(tar.removesuffix(".tar"), key), place, image, [caption], metadata
        )


def _metadata(data: bytes | None) -> dict[str, Any]:
    found = json.loads(data) if data is not None else {}
    if not isinstance(found, dict):
        raise ValueError("the .json holds no object")
    return found


FORMAT = ImageCaptionTars
