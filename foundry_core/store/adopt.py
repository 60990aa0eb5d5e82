"""Takes artifacts in whose bytes the store did not build: by reference, or from another key."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from foundry_core.errors import FoundryError
from foundry_core.lineage.event_types import ArtifactCommitted
from foundry_core.lineage.events import EventLog
from foundry_core.pipeline.imports import CODE, Import, adopted_key
from foundry_core.store.adopted import describe
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact, ArtifactInput
from foundry_core.store.outbox import abort, enqueue, publish
from foundry_core.store.references import find
from foundry_core.store.verified import Seals


def adopt(store: Store, log: EventLog, artifact: Artifact) -> Artifact:
    """Commits a described artifact and tells the lineage. The same bytes adopted from another place
    are found there from now on."""
    if artifact.adopted:
        store.check_place(artifact.files_at)
    lease = store.acquire(artifact.key)
    if lease is None:
        raise RuntimeError("a lease without a condition is always got")
    with lease:
        standing = store.state(artifact.kind, artifact.key)
        known = standing.artifact
        if known and standing.status == "ok" and known.files_at == artifact.files_at:
            return known
        if artifact.files_at.startswith("/") and not artifact.linked_to:
            Seals().seal(Path(artifact.files_at), artifact.files)
        # Of two events about one key the later one stands: this is the latest.
        artifact = replace(artifact, created=log.now())
        event = ArtifactCommitted(artifact=artifact.to_json())
        entry = enqueue(log, artifact, event)
        lease.verify()
        link = store.link if standing.status == "missing" else store.relink
        if link(artifact):
            publish(log, entry)
        else:
            abort(log, entry)
    return store.read(artifact.kind, artifact.key) or artifact


def bring_in(store: Store, log: EventLog, stage: str, recipe: Import, run_id: str) -> Artifact:
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
    return adopt(store, log, artifact)


def _from_store(found: Artifact, recipe: Import, run_id: str) -> Artifact:
    """A link to an artifact of this store, which stays its ancestor in the lineage."""
    if found.kind != recipe.kind:
        raise FoundryError(
            f"{recipe.place[1]} is {found.kind}, the import says {recipe.kind}",
            f"set kind: {found.kind}, or name another artifact",
        )
    origin = ArtifactInput(
        slot="import",
        label="import",
        stage="",
        kind=found.kind,
        key=found.key,
        content=found.content,
    )
    key = adopted_key(found.kind, found.content)
    return Artifact(
        kind=found.kind,
        key=key,
        content=found.content,
        input_content_key=key,
        code=CODE,
        code_fingerprint="",
        recipe={"digest": found.content},
        seed=0,
        sources={},
        inputs=(origin,),
        files=found.files,
        metrics=found.metrics,
        attempt="",
        run_id=run_id,
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        seconds=0.0,
        linked_to=found.linked_to or found.key,
        files_at=found.files_at if found.adopted else "",
    )
