"""The store as the planner sees it, and the baselines it explains against."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from foundry_core.files import json_text, read_json
from foundry_core.identity.environment import BUILT_ON, Environment
from foundry_core.pipeline.plan import Committed
from foundry_core.pipeline.reasons import Baseline, BaselineStage
from foundry_core.pipeline.spec import StageSpec
from foundry_core.pipeline.trunks import KeptTrunk
from foundry_core.store.base import State, Store
from foundry_core.store.manifest import Artifact, is_key
from foundry_core.store.run_records import latest_run, load_run, write_run
from foundry_core.store.trunks import continued_step, kept_trunks


class StoreCatalog:
    """Remembers what it looked up: a plan asks for the same key several times. `expected`: specs
    whose keys are looked up at once, which spares a remote store's planner their round trips."""

    def __init__(self, store: Store, expected: Iterable[StageSpec] = ()) -> None:
        self._store = store
        self._seen: dict[tuple[str, str], tuple[str, str, Committed | None]] = {}
        places = list(dict.fromkeys((spec.kind, spec.key) for spec in expected))
        for place, state in store.states(places).items():
            self._note(place, state)

    def status(self, kind: str, key: str) -> tuple[str, str, Committed | None]:
        if (kind, key) not in self._seen:
            self._note((kind, key), self._store.state(kind, key))
        return self._seen[kind, key]

    def _note(self, place: tuple[str, str], state: State) -> None:
        committed = _committed(state.artifact) if state.artifact else None
        self._seen[place] = (state.status, state.problem, committed)

    def by_content(self, kind: str, input_content_key: str) -> Committed | None:
        artifact = self._store.by_content(kind, input_content_key)
        return _committed(artifact) if artifact else None

    def last_failure(self, key: str) -> str | None:
        return self._store.last_failure(key)

    def trunks(self, family: str) -> Sequence[KeptTrunk]:
        return kept_trunks(self._store, family)

    def document(self, kind: str, key: str, name: str) -> Any:
        artifact = self._store.read(kind, key)
        path = self._store.file_path(artifact, name) if artifact else None
        return read_json(path) if path else None


def _committed(artifact: Artifact) -> Committed:
    return Committed(
        key=artifact.key,
        content=artifact.content,
        inputs={(i.slot, i.label): i.content for i in artifact.inputs},
        seconds=artifact.seconds,
        built_on=Environment.from_json(artifact.provenance.get(BUILT_ON)),
        continued_from=continued_step(artifact),
    )


def record_run(store: Store, run_id: str, pipeline: str, specs: Mapping[str, StageSpec]) -> None:
    """Writes the specs of a run, so that later plans can be explained against it."""
    documents = store.documents
    known = set(documents.names("code"))
    for spec in specs.values():
        if spec.code_fingerprint and f"{spec.code_fingerprint}.json" not in known:
            name = f"code/{spec.code_fingerprint}.json"
            documents.write(name, json_text(spec.functions).encode())
    record = {
        "run_id": run_id,
        "pipeline": pipeline,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "stages": {name: _recorded(spec) for name, spec in specs.items()},
    }
    write_run(documents, record)


def _recorded(spec: StageSpec) -> dict[str, Any]:
    return {
        "kind": spec.kind,
        "key": spec.key,
        "code": spec.code,
        "code_fingerprint": spec.code_fingerprint,
        "recipe": spec.recipe_json,
        "seed": spec.seed,
        "sources": spec.sources,
        "inputs": spec.inputs,
        "upstream": spec.upstream,
    }


def load_baseline(store: Store, pipeline: str, run_id: str | None = None) -> Baseline | None:
    """A named run's specs, or those of the pipeline's latest run; None when there is none yet, or
    when an earlier version wrote it: its keys have nothing in common with today's."""
    run_id = run_id or latest_run(store.documents, pipeline)
    if run_id is None:
        return None
    record = load_run(store.documents, run_id)
    if any("code_fingerprint" not in stage for stage in record["stages"].values()):
        return None
    stages = {
        name: BaselineStage(
            **stage, functions=partial(known_functions, store, stage["code_fingerprint"])
        )
        for name, stage in record["stages"].items()
    }
    return Baseline(run_id=run_id, stages=stages)


def known_functions(store: Store, fingerprint: str) -> Mapping[str, str]:
    """The functions of a code fingerprint, as `record_run` keeps them; {} for an unknown one."""
    if not is_key(fingerprint):
        return {}
    try:
        return json.loads(store.documents.read(f"code/{fingerprint}.json"))
    except FileNotFoundError:
        return {}
