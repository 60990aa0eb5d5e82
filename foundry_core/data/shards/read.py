"""Reading shards at random: an mmap per tar, members as views into it, nothing copied."""

import json
import mmap
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from foundry_core.config.suggest import nearest
from foundry_core.data.shards.index import ShardIndex, load_index, scan_tar, split_name
from foundry_core.data.shards.write import DATASET_MANIFEST, ShardInfo
from foundry_core.errors import FoundryError
from foundry_core.files import sha256_of

_OPEN_SHARDS = 128


class ShardSet:
    """The samples of a folder of shards, numbered through in manifest order.

    Reads our own shards (indexed) and foreign ones (indexed in memory on first touch; without a
    manifest the folder's *.tar in name order). Sizes stated by the manifest are checked when a
    shard is first opened; `verify` reads everything. Picklable: workers reopen their own maps.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.shards = read_manifest(self.folder)
        self._open: OrderedDict[int, tuple[ShardIndex, memoryview]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}

    @cached_property
    def _ends(self) -> list[int]:
        """Running sample counts. A manifest without digests is foreign: its tars are counted."""
        counts = [
            shard.num_sequences if shard.sha256 else len(self.index(number))
            for number, shard in enumerate(self.shards)
        ]
        return list(accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1] if self.shards else 0

    def locate(self, sample: int) -> tuple[int, int]:
        """(shard number, position in it) of a sample."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)} in {str(self.folder)!r}")
        number = bisect_right(self._ends, sample)
        return number, sample - (self._ends[number - 1] if number else 0)

    def key(self, sample: int) -> str:
        number, position = self.locate(sample)
        return self.index(number).keys[position]

    def members(self, sample: int) -> dict[str, memoryview]:
        """{extension: bytes} of a sample; the views stay valid as long as they are held."""
        number, position = self.locate(sample)
        index, data = self._shard(number)
        return {
            split_name(index.names[member])[1]: _view(index, data, member)
            for member in index.span(position)
        }

    def member(self, sample: int, extension: str) -> memoryview:
        """One member of a sample, without touching its hundreds of neighbours (episodes)."""
        return self.several(sample, (extension,))[0]

    def several(self, sample: int, extensions: Sequence[str]) -> list[memoryview]:
        """Some members of one sample, whose shard is looked after once."""
        number, position = self.locate(sample)
        return self._several(self._shard(number), position, extensions) if extensions else []

    def index(self, number: int) -> ShardIndex:
        """Of a shard, mapped from then on."""
        return self._shard(number)[0]

    def path(self, number: int) -> Path:
        """The tar of a shard."""
        return self.folder / f"{self.shards[number].shard}.tar"

    def forget(self, number: int) -> None:
        """Drops the map of a shard, so that the next read opens the file as it is then."""
        self._open.pop(number, None)

    def damage(self, number: int, *, digest: bool = True) -> str:
        """What is wrong with the file of a shard, by the manifest; "" if nothing is."""
        shard, path = self.shards[number], self.path(number)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return f"listed in {DATASET_MANIFEST} but missing"
        if shard.bytes is not None and size != shard.bytes:
            return f"{size} bytes where the manifest says {shard.bytes} (truncated?)"
        if digest and shard.sha256 is not None:
            actual = sha256_of(path)
            if actual != shard.sha256:
                return f"sha256 {actual[:12]}... where the manifest says {shard.sha256[:12]}..."
        return ""

    def verify(self, number: int) -> None:
        """Size, sha256 and count of a shard against the manifest, headers against the index.
        FoundryError says what is not what was written."""
        shard, path = self.shards[number], self.path(number)
        self._refuse(number, self.damage(number))
        scanned, stored = scan_tar(path), load_index(path)
        if len(scanned) != shard.num_sequences:
            raise FoundryError(
                f"shard {str(path)!r} holds {len(scanned)} samples, the manifest claims "
                f"{shard.num_sequences}",
                "write the true counts into manifest.jsonl",
            )
        if stored.names != scanned.names or (stored.offsets != scanned.offsets).any():
            raise FoundryError(
                f"the index of shard {str(path)!r} does not describe it",
                "delete the index: it is rebuilt in memory from the tar",
            )

    def _shard(self, number: int) -> tuple[ShardIndex, memoryview]:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        path = self.path(number)
        self._refuse(number, self.damage(number, digest=False))
        index = load_index(path)
        with path.open("rb") as stream:
            data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        self._open[number] = (index, data)
        if len(self._open) > _OPEN_SHARDS:
            self._open.popitem(last=False)  # unmapped once the last view into it is gone
        return index, data

    def _several(
        self, shard: tuple[ShardIndex, memoryview], position: int, extensions: Sequence[str]
    ) -> list[memoryview]:
        index, data = shard
        names = [f"{index.keys[position]}.{extension}" for extension in extensions]
        for name, extension in zip(names, extensions, strict=True):
            if name not in index.positions:
                present = [split_name(index.names[member])[1] for member in index.span(position)]
                raise FoundryError(
                    f"sample {index.keys[position]!r} in {str(self.folder)!r} has no member "
                    f"{extension!r}",
                    nearest(extension, present),
                )
        return [_view(index, data, index.positions[name]) for name in names]

    def _refuse(self, number: int, problem: str) -> None:
        if problem:
            raise FoundryError(
                f"shard {str(self.path(number))!r}: {problem}", "convert or fetch it again"
            )


def _view(index: ShardIndex, data: memoryview, member: int) -> memoryview:
    offset = int(index.offsets[member])
    return data[offset : offset + int(index.sizes[member])]


def read_manifest(folder: Path) -> list[ShardInfo]:
    """The manifest's lines, or one line per *.tar (counted) where there is no manifest."""
    path = folder / DATASET_MANIFEST
    if not path.exists():
        tars = sorted(folder.glob("*.tar"))
        if not tars:
            raise FoundryError(
                f"{str(folder)!r} holds neither {DATASET_MANIFEST} nor any .tar",
                "is it a shard folder?",
            )
        return [ShardInfo(shard=tar.stem, num_sequences=len(load_index(tar))) for tar in tars]
    shards = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            shards.append(
                ShardInfo(
                    shard=fields["shard"].removesuffix(".tar"),
                    num_sequences=int(fields["num_sequences"]),
                    bytes=fields.get("bytes"),
                    sha256=fields.get("sha256"),
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FoundryError(
                f"{path} line {number} is not a manifest line ({error!r}): {line[:80]!r}",
                'expected {"shard": name, "num_sequences": n}',
            ) from error
    return shards
