"""A folder of images with an index of captions."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from foundry_core.data.sources.base import Broken, Captioned, CaptionFormat, PathSource, SourceRef
from foundry_core.data.sources.captions.items import read_image
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import source_file

_LINES = 200


class SceneFolder(CaptionFormat, PathSource):
    """A folder with `scenes.jsonl` (or another name): {"image": path | [paths], "caption": ...}."""

    format: Literal["scenes"] = "scenes"
    index: str = "scenes.jsonl"

    @classmethod
    def matches(cls, path: Path) -> bool:
        return (path / "scenes.jsonl").is_file()

    def refs(self) -> list[SourceRef]:
        """Runs of lines of the index."""
        index = source_file(self.root, self.index)
        if not index.is_file():
            raise FoundryError(f"{self.path!r} holds no {self.index}", "check path and index")
        total = len(index.read_bytes().splitlines())
        return [
            SourceRef(
                name=f"{self.index}[{start}]",
                files=(str(index),),
                start=start,
                stop=min(start + _LINES, total),
            )
            for start in range(0, total, _LINES)
        ]

    def items(self, ref: SourceRef) -> Iterator[Captioned | Broken]:
        lines = ref.path.read_bytes().splitlines()[ref.start : ref.stop]
        for number, line in enumerate(lines, start=ref.start):
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


FORMAT = SceneFolder
