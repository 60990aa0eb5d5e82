"""Tars of images and captions, as the tool img2dataset writes them."""

import json
from collections.abc import Iterator, Mapping
from itertools import groupby, islice
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
from foundry_core.data.sources.captions.items import IMAGES, samples
from foundry_core.data.sources.files import find_files, has_files, tar_files
from foundry_core.errors import FoundryError

# Tars of img2dataset hold 10,000 samples. Walking the headers of all of them before the first is
# read would take longer than it saves: only what is much larger is split.
_LARGE, _PIECE = 1 << 30, 1 << 28


class ImageCaptionTars(CaptionFormat, PathSource):
    """img2dataset tars: `<key>.jpg|png|webp` + `<key>.txt` + `<key>.json`, neighbours in the tar.
    Where there is no .txt, the `caption` of the .json is taken; a `status` there that is no success
    is one skip."""

    format: Literal["img2dataset"] = "img2dataset"

    @classmethod
    def matches(cls, path: Path) -> bool:
        return has_files(path, (".tar",)) and bool(_kinds(path) & {*IMAGES})

    def refs(self) -> list[SourceRef]:
        """One per tar; of a large one, whose headers are walked for it, several."""
        refs = []
        for file in find_files(self.path, (".tar",), odd=True):
            name, starts = self.inside(file), _starts(file)
            for start, stop in zip(starts, [*starts[1:], -1], strict=True):
                piece = f"{name}[{start}]" if len(starts) > 1 else name
                refs.append(SourceRef(name=piece, files=(str(file),), start=start, stop=stop))
        return refs

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def items(self, ref: SourceRef) -> Iterator[Captioned | Broken]:
        """In the order of the tar. One that is damaged gives what is whole, then says so."""
        if not ref.path.is_file():
            what = "is no file" if ref.path.exists() else "is not there"
            yield Broken(id=ref.name, reason=what)
            return
        tar, last, seen = self.inside(ref.path), "", set[str]()
        found: dict[str, bytes] = {}
        try:
            files = tar_files(ref.path, ref.start, ref.stop)
            for last, members in groupby(files, lambda member: _split(member[0])[0]):
                found, twice = {}, last in seen
                for name, data in members:
                    twice = twice or _split(name)[1] in found
                    found[_split(name)[1]] = data
                seen.add(last)
                if twice:
                    yield Broken(id=f"{tar}/{last}", reason="its members are there twice")
                else:
                    yield from _samples(tar, last, found)
        except (OSError, FoundryError) as error:
            # The sample that the damage is in may have been whole before it.
            if last and last not in seen:
                made = _samples(tar, last, found)
                yield from (one for one in made if isinstance(one, Captioned))
            reason = error.message if isinstance(error, FoundryError) else str(error)
            where = f" behind {last!r}" if last else ""
            yield Broken(id=ref.name, reason=f"not a readable tar{where}: {reason}")


def _starts(tar: Path) -> list[int]:
    """Where its pieces begin, at the border of two samples. What is damaged lies in the last."""
    from foundry_core.data.shards.walk import walk_tar

    starts = [0]
    if not tar.is_file() or tar.stat().st_size < _LARGE:
        return starts
    end, last = 0, ""
    try:
        for member in walk_tar(tar):
            key = _split(member.name)[0]
            if key != last and end - starts[-1] >= _PIECE:
                starts.append(end)
            end, last = member.end, key
    except (OSError, FoundryError):
        pass  # reading says so
    return starts


def _split(name: str) -> tuple[str, str]:
    """(key, extension): up to the first dot of the base name, as webdataset has it."""
    from foundry_core.data.shards.index import split_name

    key, extension = split_name(name.removeprefix("./"))
    return key, extension.lower()


def _kinds(path: Path) -> set[str]:
    """The extensions of the first members."""
    file = find_files(str(path), (".tar",))[0]
    try:
        return {_split(name)[1] for name, _ in islice(tar_files(file), 10)}
    except (OSError, FoundryError):
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
        # Folders stay in the key: a/b and a_b are two samples.
        name = f"{tar.removesuffix('.tar').replace('.', '_')}-{key}"
        yield from samples(name, place, {"image": members[images[0]]}, [caption], metadata)


def _metadata(data: bytes | None) -> dict[str, Any]:
    found = json.loads(data) if data is not None else {}
    if not isinstance(found, dict):
        raise ValueError("the .json holds no object")
    return found


FORMAT = ImageCaptionTars
