"""Imports artifacts whose bytes the store did not build: external ones, those of another key, and
files that were made from somebody's, which the store then keeps."""

import shutil
from dataclasses import replace
from pathlib import Path

from foundry_core.errors import FoundryError
from foundry_core.lineage.event_types import ArtifactCommitted
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.records import committed_event
from foundry_core.pipeline.imports import Import
from foundry_core.store.base import Store
from foundry_core.store.external import describe, imported
from foundry_core.store.manifest import Artifact, ArtifactInput
from foundry_core.store.outbox import abort, enqueue, publish
from foundry_core.store.references import find
from foundry_core.store.verified import VerifiedDigests


def import_artifact(store: Store, log: EventLog, artifact: Artifact) -> Artifact:
    """Commits a described artifact and tells the lineage. The same bytes imported from another
    place are found there from now on."""
    if artifact.external:
        store.check_place(artifact.files_at)
    lease = store.acquire(artifact.key)
    if lease is None:
        raise RuntimeError("a lease without a condition is always got")
    with lease:
        before = store.state(artifact.kind, artifact.key)
        known = before.artifact
        if known and before.status == "ok" and known.files_at == artifact.files_at:
            return known
        if artifact.files_at.startswith("/") and not artifact.linked_to:
            VerifiedDigests().record(Path(artifact.files_at), artifact.files)
        # Of two events about one key the later one counts: this is the latest.
        artifact = replace(artifact, created=log.now())
        event = ArtifactCommitted(artifact=artifact.to_json())
        entry = enqueue(log, artifact, event)
        lease.verify()
        link = store.link if before.status == "missing" else store.relink
        if link(artifact):
            publish(log, entry)
        else:
            abort(log, entry)
    return store.read(artifact.kind, artifact.key) or artifact


def import_files(store: Store, log: EventLog, artifact: Artifact, folder: Path) -> bool:
    """Commits an artifact that `foundry_core.store.external.imported` describes, with copies of its
    files, and tells the lineage. False when it is there already."""
    lease = store.acquire(artifact.key)
    if lease is None:
        raise RuntimeError("a lease without a condition is always got")
    with lease:
        before = store.state(artifact.kind, artifact.key)
        if before.status == "ok":
            return False
        for dead in store.abandoned(artifact.key):
            store.discard(artifact.key, dead)
        name, out, _ = store.attempt(artifact.key)
        try:
            shutil.copytree(folder, out, dirs_exist_ok=True)
            artifact = replace(artifact, attempt=name, created=log.now())
            event, problems = committed_event(artifact.to_json(), out.joinpath)
            if problems:
                raise FoundryError(f"{folder}: {problems[0]}", "mend the record, import again")
            entry = enqueue(log, artifact, event)
            replaces = before.status != "missing"
            if store.commit(artifact, out, lease.verify, replaces=replaces):
                publish(log, entry)
                return True
            abort(log, entry)
            return False
        finally:
            store.discard(artifact.key, name)


def import_for_stage(
    store: Store, log: EventLog, stage: str, recipe: Import, run_id: str
) -> Artifact:
    """The artifact that a stage imports. FoundryError when its bytes are not the pinned ones."""
    way, place = recipe.place
    if way in ("path", "uri"):
        store.check_place(place)
        artifact = describe(recipe.kind, place, run_id)
    else:
        artifact = _from_store(find(store, place), recipe, run_id)
    if artifact.content != recipe.content:
        raise FoundryError(
            f"{recipe.kind} at {place} has content sha256:{artifact.content}, "
            f"{stage}.import.digest pins sha256:{recipe.content}",
            "restore the files, or pin the new digest if the change is meant",
        )
    if artifact.linked_to == artifact.key and not artifact.external:
        # An intact one is found by its key: nothing is imported.
        raise FoundryError(
            f"{recipe.kind}/{artifact.key[:12]} was imported, and its files are not what they were",
            "import it again",
        )
    return import_artifact(store, log, artifact)


def _from_store(source: Artifact, recipe: Import, run_id: str) -> Artifact:
    """A link to an artifact of this store, which stays its ancestor in the lineage."""
    if source.kind != recipe.kind:
        raise FoundryError(
            f"{recipe.place[1]} is {source.kind}, the import says {recipe.kind}",
            f"set kind: {source.kind}, or name another artifact",
        )
    origin = ArtifactInput(
        slot="import",
        label="import",
        stage="",
        kind=source.kind,
        key=source.key,
        content=source.content,
    )
    files_at = source.files_at if source.external else ""
    return replace(
        imported(source.kind, source.content, source.files, run_id, files_at=files_at),
        inputs=(origin,),
        metrics=source.metrics,
        linked_to=source.linked_to or source.key,
    )
