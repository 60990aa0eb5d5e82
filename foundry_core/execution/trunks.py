"""Going on from what a smaller budget left, and leaving something for larger ones.

An attempt is shown the longest trunk that serves its stage, as links in its scratch: what the
stage removes of it is a link. What the stage leaves is committed as an artifact of its own, before
the stage's; that it cannot be is said and fails nothing.
"""

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.execution.control import Folders
from foundry_core.execution.job import Work
from foundry_core.files import read_cache, read_json, sha256_of
from foundry_core.identity.environment import BUILT_ON, Environment
from foundry_core.lineage.event_types import ArtifactCommitted
from foundry_core.objects import StoreUnavailable
from foundry_core.pipeline.drift import stage_environment
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.stage import CONTINUED, Begin, Trunk
from foundry_core.pipeline.trunks import (
    KIND,
    LEFT,
    MIXED,
    SEVERAL,
    Continues,
    family_of,
    ground_of,
    not_used,
    search,
    step_name,
    trunk_key,
    trunk_recipe,
)
from foundry_core.store.base import Check
from foundry_core.store.cache import CorruptFile
from foundry_core.store.manifest import Artifact, File
from foundry_core.store.outbox import abort, enqueue, publish
from foundry_core.store.output import scan_output
from foundry_core.store.trunks import (
    CONTINUED_FROM,
    ORIGIN,
    TRUNKS,
    begin_from,
    kept_trunks,
    note_trunk,
)

# In scratch: links to what is gone on from.
_BEGIN = "begin"
_STATE = "state.json"


class Extension:
    """The trunks of one attempt: the one that it begins from, the one that it leaves."""

    def __init__(self, work: Work, folders: Folders) -> None:
        self._work, self._folders = work, folders
        self._stage = stage_kind(work.job.spec.kind)
        self._found: Continues | None = None
        self._refused: list[str] = []

    @contextlib.contextmanager
    def begin(self) -> Iterator[Begin | None]:
        """The state to go on from, which stays while the block runs. None where there is none;
        forced work begins from nothing."""
        folder = self._folders.scratch / _BEGIN
        shutil.rmtree(folder, ignore_errors=True)
        store, key = self._work.store, self._work.job.spec.key
        found = self._found = None if self._work.job.force else self._search()
        if found is None:
            yield None
            return
        begin_from(store, key, found.trunk)
        # `gc` leaves it alone from now on, and may have taken it before.
        artifact = store.state(KIND, found.trunk).artifact
        if artifact is None:
            yield None
            return
        with contextlib.ExitStack() as reading:
            try:
                files = reading.enter_context(store.reading(artifact))
                problem = link_state(files, artifact.files, folder / step_name(found.step))
            except CorruptFile as error:
                problem = f"it is damaged: {error.message}"
            if problem:
                self._refuse([not_used(found.key, found.step, problem)])
                yield None
                return
            yield Begin(path=folder, step=found.step, key=found.key, trunk=found.trunk)

    def history(self, built_on: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
        """For the artifact's provenance: what it went on from or would not, and the trunks that
        stay as long as it does. Commits the one that the stage left."""
        said = read_cache(self._folders.out / CONTINUED)
        continued = dict(said) if isinstance(said, dict) else {}
        trunk, kept = self._trunk, set[str]()
        if trunk is not None and continued.get("step") == trunk.step:
            kept.add(continued["trunk"])  # it lies where this one's own would
        if trunk is not None and trunk.keep:
            facts = {**provenance, BUILT_ON: built_on, ORIGIN: self._work.job.spec.key}
            kept |= set(self._keep(trunk, facts))
        shutil.rmtree(self._folders.scratch / LEFT, ignore_errors=True)
        if continued.pop("mixed", False):
            known = self._found is not None and continued.get("trunk") == self._found.trunk
            differs = self._found.differs if self._found and known else ()
            continued["differs"] = list(differs or (SEVERAL,))
        if self._refused and not continued:
            continued["refused"] = "; ".join(self._refused)
        return {
            name: value
            for name, value in ((TRUNKS, sorted(kept)), (CONTINUED_FROM, continued))
            if value
        }

    @cached_property
    def _trunk(self) -> Trunk | None:
        """What the job shares with other budgets."""
        job = self._work.job

        def fact(slot: str, setting: str, file: str) -> Any:
            artifact = next(iter(job.inputs[slot].values()))
            if setting in artifact.recipe:
                return artifact.recipe[setting]
            path = self._work.store.file_path(artifact, file)
            return read_json(path).get(setting) if path else None

        try:
            return self._stage.trunk(job.spec.recipe, job.resources, fact)
        except FoundryError:
            return None  # the stage itself says what is wrong with its budget

    @cached_property
    def _environment(self) -> Environment:
        return stage_environment(self._stage, self._work.job.spec, self._work.job.resources)

    @property
    def _ground(self) -> str:
        return ground_of(self._environment, self._work.job.spec.code_fingerprint)

    def _search(self) -> Continues | None:
        trunk, job = self._trunk, self._work.job
        if trunk is None:
            return None
        kept = kept_trunks(self._work.store, family_of(job.spec, trunk, job.contents))
        if not kept:
            return None
        looked = search(job.spec, trunk, job.contents, self._environment, kept)
        self._refuse(looked.refused)
        return looked.found

    def _refuse(self, why: Sequence[str]) -> None:
        self._refused += why
        for text in why:
            self._say(text)

    def _keep(self, trunk: Trunk, facts: Mapping[str, Any]) -> Iterator[str]:
        """Commits what the stage left, if it is not there already; its key."""
        folder = self._folders.scratch / LEFT / step_name(trunk.step)
        try:
            if folder.is_dir():
                grounds = read_json(folder / _STATE)["scalars"]["grounds"]
                ground = self._ground if grounds == [self._ground] else MIXED
                yield self._committed(trunk, ground, folder, facts)
                return
            recipe = trunk_recipe(self._work.job.spec.kind, trunk, trunk.step, self._ground)
            key = trunk_key(self._work.job.spec, recipe, self._work.job.spec.inputs)
            if self._work.store.state(KIND, key).status == "ok":
                yield key
        except StoreUnavailable:
            raise
        except (OSError, ValueError, KeyError, FoundryError) as error:
            self._say(f"its state after step {trunk.step} is not kept: {error}")

    def _committed(self, trunk: Trunk, ground: str, folder: Path, facts: Mapping[str, Any]) -> str:
        job, store, started = self._work.job, self._work.store, time.monotonic()
        recipe = trunk_recipe(job.spec.kind, trunk, trunk.step, ground)
        key = trunk_key(job.spec, recipe, job.spec.inputs)
        lease = store.acquire(key, done=iter((False, True, True)).__next__)
        if lease is None:  # another run leaves the same one just now
            return key
        with lease:
            if store.state(KIND, key).status == "ok":
                return key
            for name in store.abandoned(key):
                store.discard(key, name)
            store.set_aside(KIND, key)
            attempt, place, _ = store.attempt(key)
            place.rmdir()
            os.rename(folder, place)
            plain = job.manifest(
                scan_output(place),
                attempt=attempt,
                metrics={"step": trunk.step},
                provenance=facts,
                created=self._work.events.now(),
                seconds=time.monotonic() - started,
            )
            identity = trunk_key(job.spec, recipe, job.contents)
            artifact = dataclasses.replace(
                plain, kind=KIND, key=key, input_content_key=identity, recipe=recipe
            )
            self._commit(artifact, place, lease.verify)
        return key

    def _commit(self, artifact: Artifact, folder: Path, verify: Check) -> None:
        store, events = self._work.store, self._work.events
        note_trunk(store, artifact)
        entry = enqueue(events, artifact, ArtifactCommitted(artifact=artifact.to_json()))
        if store.commit(artifact, folder, verify):
            publish(events, entry)
        else:
            abort(events, entry)

    def _say(self, text: str) -> None:
        """To whoever watches, and into the stage's log."""
        self._work.observe({"message": text})
        log = self._work.job.log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as stream:
            stream.write(f"foundry: {text}\n")


def link_state(source: Path, files: tuple[File, ...], folder: Path) -> str:
    """Links to all files of a trunk; '' or what is wrong. The state's own digest is looked at here;
    it names those of the shards, which the stage looks at."""
    digests = {file.path: file.sha256 for file in files}
    try:
        if digests.get(_STATE) != sha256_of(source / _STATE):
            return f"it is damaged: {_STATE} has another digest than was committed"
        folder.mkdir(parents=True)
        for file in files:
            os.symlink(source / file.path, folder / file.path)
    except OSError as error:
        return f"it cannot be read: {error}"
    return ""
