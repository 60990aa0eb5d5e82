"""What a store holds, against all that is known of it: its bytes, its keys, and what the lineage
was told at its commit. A manifest that was edited together with its files agrees with them, not
with its commit; one that was moved to another key does not have that key.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from foundry_core.files import sha256_hex
from foundry_core.lineage.chain import ChainCheck, Chains, Event, events_of
from foundry_core.lineage.connection import attach
from foundry_core.lineage.events import EventLog, encode
from foundry_core.pipeline.imports import CODE
from foundry_core.pipeline.spec import identity_key
from foundry_core.store.base import Store
from foundry_core.store.manifest import RENAMED, Artifact
from foundry_core.store.outbox import OUTBOX

_COMPARED = (
    *("kind", "content", "input_content_key", "code", "code_fingerprint", "recipe", "seed"),
    *("sources", "inputs", "files", "metrics", "attempt", "run_id", "created", "linked_to"),
)
_REBUILD = "restore its folder from a copy, or delete it: a run that needs it builds it again"
_TELL = "`foundry lineage rebuild` takes it into the lineage, if it is meant to be there"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An artifact that is not what it should be, and what to do about it."""

    kind: str
    key: str
    problem: str
    mend: str


@dataclass(frozen=True, kw_only=True)
class Audit:
    """corrupt: what is wrong with artifacts; chains: with the lineage's events."""

    artifacts: int
    corrupt: tuple[Finding, ...]
    chains: Chains


def audit(store: Store, log: EventLog, places: Sequence[tuple[str, str]], index: Path) -> Audit:
    """Re-reads the artifacts at these places and the whole log. index: this home's, if there is
    one, which knows what the log held."""
    chains, told = _history(log, index)
    if chains.problems:  # a writer may have been at work: what is wrong is wrong at a second look
        again, told = _history(log, index)
        lasting = tuple(problem for problem in chains.problems if problem in again.problems)
        chains = Chains(**(vars(again) | {"problems": lasting}))
    pending = {name.partition("-")[0] for name in log.blobs.names(OUTBOX)}
    found = []
    for kind, key in places:
        state = store.verify(kind, key)
        problem, mend = state.problem, "run the pipeline again: it rebuilds what it needs"
        event = told.get(key)
        if state.artifact and not problem and not (event and event.get("old")):
            problem, mend = _key_problem(state.artifact), _REBUILD
        if state.artifact and not problem and key[:16] not in pending:
            problem, mend = _told_problem(state.artifact, event)
        if problem:
            found.append(Finding(kind=kind, key=key, problem=problem, mend=mend))
    return Audit(artifacts=len(places), corrupt=tuple(found), chains=chains)


def _history(log: EventLog, index: Path) -> tuple[Chains, dict[str, Event]]:
    """The state of the chains, and per key the latest event of a commit or removal."""
    check, told = ChainCheck(), dict[str, Event]()
    for event in events_of(log, check.problems):
        check.add(event)
        if event["type"] in ("artifact_committed", "artifact_removed"):
            try:
                short = _short(event)
            except (KeyError, TypeError, AttributeError) as error:
                check.problems.append(
                    f"{event['type']} {event['id']} is of another form: {error!r}"
                )
                continue
            before = told.get(short["key"])
            if before is None or before["moment"] <= short["moment"]:
                told[short["key"]] = short
    return check.result(_known(log, index)), told


def _short(event: Event) -> dict[str, Any]:
    """What is compared of an event."""
    data = event["data"]
    short = {"moment": (event["time"], event["id"]), "type": event["type"]}
    if event["type"] == "artifact_removed":
        return short | {"key": str(data["key"]), "reason": data.get("reason")}
    artifact = data["artifact"]
    old = not RENAMED.keys().isdisjoint(artifact)  # keys were computed otherwise then
    return short | {"key": str(artifact["key"]), "facts": _facts(artifact), "old": old}


def _facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The digest of each compared field."""
    named = {RENAMED.get(name, name): value for name, value in manifest.items()}
    if "files" in named:
        files = named["files"]
        named["files"] = sorted([file["path"], file["size"], file["sha256"]] for file in files)
    return {name: sha256_hex(encode(named[name])) for name in _COMPARED if name in named}


def _key_problem(artifact: Artifact) -> str:
    """'' when the keys are those of what the manifest says was built."""
    if artifact.code == CODE:
        return ""  # every reader checks it
    keys, contents = dict[str, dict[str, str]](), dict[str, dict[str, str]]()
    for used in artifact.inputs:
        keys.setdefault(used.slot, {})[used.label] = used.key
        contents.setdefault(used.slot, {})[used.label] = used.content
    for stated, inputs in ((artifact.key, keys), (artifact.input_content_key, contents)):
        key = identity_key(
            kind=artifact.kind,
            code=artifact.code,
            recipe=artifact.recipe,
            seed=artifact.seed,
            sources=artifact.sources,
            inputs=inputs,
        )
        if key != stated:
            return f"its recipe and inputs have key {key[:12]}, it says {stated[:12]}"
    return ""


def _told_problem(artifact: Artifact, event: Event | None) -> tuple[str, str]:
    """('', '') when the artifact is as the lineage was told at its commit."""
    if event is None:
        return "the lineage has no event of its commit", _TELL
    if event["type"] == "artifact_removed":
        return f"the lineage was told of its removal ({event['reason']})", _TELL
    now = _facts(artifact.to_json())
    changed = [name for name, value in event["facts"].items() if now[name] != value]
    if not changed:
        return "", ""
    names = ", ".join(changed)
    return f"its {names} differ from those of its commit at {event['moment'][0]}", _REBUILD


def _known(log: EventLog, index: Path) -> Iterator[tuple[str, str]]:
    """(id, what is shown) of the events that this home's index took in from this log."""
    if not index.exists():
        return
    with contextlib.suppress(duckdb.Error), attach(index) as connection:
        (uri,) = connection.execute("select log from meta").fetchone() or ("",)
        if uri == log.blobs.uri:
            query = "select id::varchar, type, time from event order by time, id"
            for event, kind, time in connection.execute(query).fetchall():
                yield event, f"{kind} {event} of {time.isoformat()}"
