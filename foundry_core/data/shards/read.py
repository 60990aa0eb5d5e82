"""Reading shards at random: one index for all of them, few of them open at a time."""

import json
import os
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from foundry_core.config.suggest import nearest
from foundry_core.data.shards.derived import derived_index, shard_index
from foundry_core.data.shards.files import OPEN_FILES, OpenFile
from foundry_core.data.shards.index import ShardIndex, scan_tar
from foundry_core.data.shards.packed import (
    DATASET_INDEX,
    IndexFile,
    Packed,
    Section,
    Span,
    index_bytes,
)
from foundry_core.data.shards.tar import is_header_of, lead_bytes
from foundry_core.data.shards.write import DATASET_MANIFEST, ShardInfo
from foundry_core.errors import FoundryError
from foundry_core.files import sha256_of

_SECTIONS_IN_MEMORY = 64


class ShardSet:
    """The samples of a folder of shards, numbered through in manifest order.

    Reads our own shards and foreign ones (without a manifest the folder's *.tar in name order;
    their index is made when it is first needed, and kept in the home's cache). Sizes stated by the
    manifest are checked when a shard is opened; `verify` reads everything. Picklable: workers open
    their own files.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.shards = read_manifest(self.folder)
        self._paths = [os.fspath(self.path(n)) for n in range(len(self.shards))]
        self._sections: list[Section | None] = [None] * len(self.shards)
        self._in_memory: OrderedDict[int, Section] = OrderedDict()
        self._scanned: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        sections = [None] * len(self.shards)
        fresh = {"_sections": sections, "_in_memory": OrderedDict(), "_scanned": set()}
        state = self.__dict__ | fresh
        state.pop("_index", None)
        return state

    @cached_property
    def _ends(self) -> array:
        """Running sample counts, whole in a cache of the processor (of a list, each number lies
        somewhere else). A manifest without digests is foreign: its tars are counted."""
        if all(shard.sha256 for shard in self.shards):
            return array("q", accumulate(shard.num_sequences for shard in self.shards))
        index = self._index
        assert index is not None
        return array("q", accumulate(index.row(n).samples for n in range(len(index))))

    @cached_property
    def _index(self) -> IndexFile | None:
        """The dataset's own, or one derived from its tars; None (in folders that hold only some of
        the shards): each shard's is looked for when it is there."""
        return self._own_index() or derived_index(
            [self.path(number) for number in range(len(self.shards))],
            [shard.num_sequences if shard.sha256 else None for shard in self.shards],
        )

    def _own_index(self) -> IndexFile | None:
        """The one that lies beside the manifest; None without a file."""
        try:
            return IndexFile.open(self.folder / DATASET_INDEX)
        except FileNotFoundError:
            return None

    def _contradiction(self, index: IndexFile, number: int) -> str:
        """How an index contradicts the manifest on a shard; "" where it does not."""
        if number >= len(index):
            return f"it is of {len(index)} shards"
        row, shard = index.row(number), self.shards[number]
        if not row.length:
            return ""
        if shard.index is not None and row.digest.hex() != shard.index:
            return f"its digest is {row.digest.hex()[:12]}..., not {shard.index[:12]}..."
        if shard.bytes not in (None, row.tar_bytes):
            return f"it is of {row.tar_bytes} bytes, not {shard.bytes}"
        if shard.sha256 is not None and row.samples != shard.num_sequences:
            return f"it has {row.samples} samples, not {shard.num_sequences}"
        return ""

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
        return self._section(number).key(position)

    def members(self, sample: int) -> dict[str, memoryview]:
        """{extension: bytes} of a sample, in the order of the tar."""
        number, position = self.locate(sample)
        file = self._file(number)
        found = self._section(number).members(position)
        return {extension: self._read(number, file, span) for extension, span in found}

    def member(self, sample: int, extension: str) -> memoryview:
        """One member of a sample, without touching its hundreds of neighbours (episodes)."""
        return self.several(sample, (extension,))[0]

    def several(self, sample: int, extensions: Sequence[str]) -> list[memoryview]:
        """Some members of one sample, whose shard is looked after once."""
        if not extensions:
            return []
        number, position = self.locate(sample)
        return self._several(number, self._file(number), position, extensions)

    def index(self, number: int) -> ShardIndex:
        """Of a shard, as Python objects: for tools."""
        return self._section(number).unpacked()

    def path(self, number: int) -> Path:
        """The tar of a shard."""
        return self.folder / f"{self.shards[number].shard}.tar"

    def forget(self, number: int) -> None:
        """Closes a shard, so that the next read opens the file as it is then."""
        OPEN_FILES.drop(self._paths[number])
        self._in_memory.pop(number, None)
        self._scanned.discard(number)

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
        scanned = scan_tar(path)
        if len(scanned) != shard.num_sequences:
            raise FoundryError(
                f"shard {str(path)!r} holds {len(scanned)} samples, the manifest claims "
                f"{shard.num_sequences}",
                "write the true counts into manifest.jsonl",
            )
        self._compare(number, scanned)

    def _compare(self, number: int, scanned: ShardIndex) -> None:
        if Packed.of(scanned).content != self._section(number).content():
            raise FoundryError(
                f"the index of shard {self._paths[number]!r} does not describe it",
                f"delete the index ({DATASET_INDEX}): it is made anew from the tar, in the cache",
            )

    def _section(self, number: int) -> Section:
        """Where the members of a shard lie."""
        section = self._sections[number]
        if section is None:
            section = self._stored_section(number)
            if section is None:
                return self._section_in_memory(number)
            self._sections[number] = section
        return section

    def _stored_section(self, number: int) -> Section | None:
        """Out of the dataset's index; None where that lacks it."""
        index = self._index
        if index is None:
            return None
        problem = self._contradiction(index, number)
        if problem:
            raise FoundryError(
                f"the index of shard {self._paths[number]!r} is not the one of its "
                f"{DATASET_MANIFEST}: {problem}",
                "fetch or convert the dataset again, or delete the index: it is made anew from the "
                "tars, in the cache",
            )
        return index.section(number)

    def _section_in_memory(self, number: int) -> Section:
        """Of a shard that the index lacks."""
        if number not in self._in_memory:
            path = self.path(number)
            if not path.exists():
                self._refuse(number, self.damage(number, digest=False))
            found = IndexFile(index_bytes([shard_index(path)]), str(path)).section(0)
            assert found is not None
            self._in_memory[number] = found
            if len(self._in_memory) > _SECTIONS_IN_MEMORY:
                self._in_memory.popitem(last=False)
        return self._in_memory[number]

    def _file(self, number: int) -> OpenFile:
        """A shard, open."""
        return OPEN_FILES.get(self._paths[number]) or self._opened(number)

    def _opened(self, number: int) -> OpenFile:
        try:
            file = OPEN_FILES.open(self._paths[number])
        except FileNotFoundError:
            self._refuse(number, self.damage(number, digest=False))
            raise
        stated = self.shards[number].bytes
        if stated is not None and stated != file.size:
            OPEN_FILES.drop(self._paths[number])
            self._refuse(number, self.damage(number, digest=False))
        return file

    def _several(
        self, number: int, file: OpenFile, position: int, extensions: Sequence[str]
    ) -> list[memoryview]:
        section = self._section(number)
        spans = section.find(position, extensions)
        views = []
        for span, extension in zip(spans, extensions, strict=True):
            if span is None:
                raise FoundryError(
                    f"sample {section.key(position)!r} in {str(self.folder)!r} has no member "
                    f"{extension!r}",
                    nearest(extension, [name for name, _ in section.members(position)]),
                )
            views.append(self._read(number, file, span))
        return views

    def _read(self, number: int, file: OpenFile, span: Span) -> memoryview:
        """The data of a member, behind a header that has its name and size."""
        offset, size, name = span
        lead = min(lead_bytes(name), offset)
        data = file.read(offset - lead, lead + size)
        if len(data) != lead + size:
            self._refuse(
                number, f"it ends {lead + size - len(data)} bytes too early for {_shown(name)!r}"
            )
        if not is_header_of(data[:lead], name, size) and number not in self._scanned:
            self._compare(number, scan_tar(self.path(number)))
            self._scanned.add(number)
        return memoryview(data)[lead:]

    def _refuse(self, number: int, problem: str) -> None:
        if problem:
            raise FoundryError(
                f"shard {self._paths[number]!r}: {problem}", "convert or fetch it again"
            )


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def read_manifest(folder: Path) -> list[ShardInfo]:
    """The manifest's lines, or one line per *.tar (counted) where there is no manifest."""
    path = folder / DATASET_MANIFEST
    if not folder.exists():
        raise FoundryError(f"{str(folder)!r} does not exist", "check the path")
    if not path.exists():
        tars = sorted(folder.glob("*.tar"))
        if not tars:
            raise FoundryError(
                f"{str(folder)!r} holds neither {DATASET_MANIFEST} nor any .tar",
                "is it a shard folder?",
            )
        counts = derived_index(tars, [None] * len(tars))
        return [
            ShardInfo(shard=tar.stem, num_sequences=counts.row(number).samples)
            for number, tar in enumerate(tars)
        ]
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
                    index=fields.get("index"),
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FoundryError(
                f"{path} line {number} is not a manifest line ({error!r}): {line[:80]!r}",
                'expected {"shard": name, "num_sequences": n}',
            ) from error
    return shards
