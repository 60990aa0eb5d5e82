"""A stage's processes on hosts without this one's disk: what they read and write goes through an
object store.

    <store>/work/<key>/from-elsewhere-<token>/<folder>/...   what one of them hands over

There, inputs come from the store into that host's cache, scratch and output are folders of that
host's home, and code is held against that of the key: paths may differ between hosts, code may not.
"""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from foundry_core.errors import FoundryError
from foundry_core.execution.trunks import link_state
from foundry_core.identity.code import CodeIndex
from foundry_core.objects import Objects, connect
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import StageSpec, stage_fingerprint
from foundry_core.pipeline.stage import Begin, InputArtifact, StageContext
from foundry_core.pipeline.trunks import KIND, LEFT, step_name
from foundry_core.store import s3_files
from foundry_core.store.base import Store
from foundry_core.store.cache import CorruptFile
from foundry_core.store.manifest import File, scan
from foundry_core.store.open import open_store

_HANDED_OVER = "from-elsewhere-"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What was handed over: (folder's name, its files), below an address in the store."""

    uri: str
    folders: tuple[tuple[str, tuple[File, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class StoreElsewhere:
    """An `Elsewhere` through the object store of this address. kind, code: of the stage and its
    code fingerprint, which every host must have."""

    store: str
    kind: str
    code: str

    @classmethod
    def of(cls, store: str, spec: StageSpec) -> "StoreElsewhere":
        return cls(store=store, kind=spec.kind, code=spec.code_fingerprint)

    @contextlib.contextmanager
    def context(self, ctx: StageContext, rank: int) -> Iterator[StageContext]:
        """Processes of one host share scratch; output and what is gone on from are one rank's."""
        self._check_code(ctx)
        store = open_store(self.store)
        base = store.workplace / ctx.key / "ranks"
        # Another scratch for each thing that it was begun from, as the checkpoints'.
        scratch = base / ctx.checkpoints.rpartition("/")[2]
        out, begin = base / f"out-{rank}", base / f"begin-{rank}"
        for stale in (out, begin):
            shutil.rmtree(stale, ignore_errors=True)
        out.mkdir(parents=True)
        scratch.mkdir(exist_ok=True)
        with contextlib.ExitStack() as reading:
            inputs = {
                slot: {label: _input(store, reading, one, ctx.name) for label, one in named.items()}
                for slot, named in ctx.inputs.items()
            }
            yield dataclasses.replace(
                ctx,
                inputs=inputs,
                out=out,
                scratch=scratch,
                begin=_begin(store, reading, ctx.begin, begin) if ctx.begin else None,
            )
        # Checkpoints are in the store: of a stage that came through nothing here is missed.
        shutil.rmtree(base, ignore_errors=True)

    def give(self, ctx: StageContext) -> Receipt:
        """The output, and the states that it left for larger budgets."""
        uri = f"{self.store}/work/{ctx.key}/{_HANDED_OVER}{os.urandom(8).hex()}"
        place = connect(uri)
        given = {"out": ctx.out, LEFT: ctx.scratch / LEFT}
        return Receipt(
            uri=uri,
            folders=tuple(
                (name, s3_files.upload(place.below(name), folder, scan(folder)))
                for name, folder in given.items()
                if folder.is_dir()
            ),
        )

    def take(self, ctx: StageContext, receipt: Receipt) -> None:
        place = connect(receipt.uri)
        folders = {"out": ctx.out, LEFT: ctx.scratch / LEFT}
        for name, files in receipt.folders:
            for file in files:
                _receive(place.below(name), file, folders[name])
        place.delete(*(listed.name for listed in place.find()))

    def _check_code(self, ctx: StageContext) -> None:
        stage = stage_kind(self.kind)
        found = stage_fingerprint(stage, ctx.recipe, CodeIndex())
        if found.digest != self.code:
            raise FoundryError(
                f"host {os.uname().nodename} has other code of stage kind {self.kind!r} than the "
                f"host where stage {ctx.name!r} was started",
                "install one version of Foundry and of your own kinds on every node",
            )


def _input(
    store: Store, reading: contextlib.ExitStack, one: InputArtifact, stage: str
) -> InputArtifact:
    artifact = store.read(one.kind, one.key)
    if artifact is None or artifact.content != one.content:
        raise FoundryError(
            f"stage {stage!r}: its input {one.kind}/{one.key[:12]} was replaced in {store.uri} "
            "since it started",
            "run again",
        )
    return dataclasses.replace(one, path=reading.enter_context(store.reading(artifact)))


def _begin(store: Store, reading: contextlib.ExitStack, begin: Begin, folder: Path) -> Begin:
    """What cannot be read leaves an empty folder: training says so, and begins without it."""
    with contextlib.suppress(CorruptFile):
        artifact = store.read(KIND, begin.trunk)
        if artifact is not None:
            files = reading.enter_context(store.reading(artifact))
            link_state(files, artifact.files, folder / step_name(begin.step))
    return dataclasses.replace(begin, path=folder)


def _receive(place: Objects, file: File, folder: Path) -> None:
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    found = place.download(file.path, path, file.size)
    if found != file.sha256:
        raise FoundryError(
            f"{place.uri}/{file.path}: the store gave other bytes than were sent",
            "run again: it goes on from the last checkpoint",
        )
