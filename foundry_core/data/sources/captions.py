"""Images with captions by format: references that workers read in groups."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from foundry_core.data.sources.config import CaptionSource, SceneFolder
from foundry_core.data.sources.files import find_files
from foundry_core.data.sources.text import Broken
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import source_file

_IMAGES = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """images: {name: file bytes}; "image" where the source names no camera."""

    id: str
    images: dict[str, bytes]
    caption: str
    metadata: dict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CaptionRef:
    """What one worker reads at once: lines [start, stop) of an index, or a whole tar (stop 0)."""

    path: str
    start: int = 0
    stop: int = 0


def caption_refs(source: CaptionSource, lines: int = 200) -> list[CaptionRef]:
    if not isinstance(source, SceneFolder):
        return [CaptionRef(path=str(p)) for p in find_files(source.path, (".tar",))]
    index = source_file(Path(source.path), source.index)
    if not index.is_file():
        raise FoundryError(f"{source.path!r} holds no {source.index}", "check path and index")
    total = len(index.read_bytes().splitlines())
    return [
        CaptionRef(path=source.path, start=start, stop=min(start + lines, total))
        for start in range(0, total, lines)
    ]


def read_captions(source: CaptionSource, ref: CaptionRef) -> Iterator[Captioned | Broken]:
    if isinstance(source, SceneFolder):
        yield from _read_scenes(source, ref)
    else:
        yield from _read_tar(ref)


def _read_scenes(source: SceneFolder, ref: CaptionRef) -> Iterator[Captioned | Broken]:
    root = Path(source.path)
    lines = (root / source.index).read_text().splitlines()[ref.start : ref.stop]
    for number, line in enumerate(lines, start=ref.start):
        name = f"{number:08d}"
        try:
            row = json.loads(line)
            files = [row["image"]] if isinstance(row["image"], str) else row["image"]
            cameras = row.get("cameras") or (
                ["image"] if len(files) == 1 else [f"image{i}" for i in range(len(files))]
            )
            pairs = zip(cameras, files, strict=True)
            images = {camera: source_file(root, file).read_bytes() for camera, file in pairs}
            rest = {k: v for k, v in row.items() if k not in ("image", "caption", "cameras")}
            yield Captioned(id=name, images=images, caption=row["caption"], metadata=rest)
        except FoundryError as error:
            yield Broken(id=f"{source.index}:{number + 1}", reason=str(error))
        except (ValueError, KeyError, TypeError, OSError) as error:
            yield Broken(id=f"{source.index}:{number + 1}", reason=repr(error))


def _read_tar(ref: CaptionRef) -> Iterator[Captioned | Broken]:
    stem = Path(ref.path).stem
    groups: dict[str, dict[str, bytes]] = {}
    try:
        with tarfile.open(ref.path) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                if stream:
                    key, _, extension = member.name.partition(".")
                    groups.setdefault(key, {})[extension] = stream.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        yield Broken(id=stem, reason=f"not a readable tar: {error}")
        return
    for key, members in groups.items():
        name = f"{stem}-{key}".replace(".", "_").replace("/", "_")
        found = [extension for extension in _IMAGES if extension in members]
        if not found or "txt" not in members:
            yield Broken(id=name, reason=f"has {sorted(members)}, not an image and a .txt")
            continue
        try:
            metadata = json.loads(members.get("json", b"{}"))
            caption = members["txt"].decode().strip()
        except ValueError as error:
            yield Broken(id=name, reason=repr(error))
            continue
        images = {"image": members[found[0]]}
        yield Captioned(id=name, images=images, caption=caption, metadata=metadata)
