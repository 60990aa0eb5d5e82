"""One attempt at one stage, under the lease of its key: begin, run, describe, commit, close.

A process may be killed between any two lines. What it leaves is closed by whoever takes the lease
next, and events that belong to a commit are stored before it (`foundry_core.store.outbox`).
"""

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from foundry_core.errors import FoundryError
from foundry_core.execution.control import Folders, Usage
from foundry_core.execution.job import (
    NAME_IT,
    UNDECLARED_READS,
    Interrupted,
    Outcome,
    StageFailed,
    StageJob,
    Work,
    undeclared,
)
from foundry_core.execution.supervise import run_child
from foundry_core.execution.trunks import Extension
from foundry_core.files import write_atomic
from foundry_core.identity.environment import BUILT_ON
from foundry_core.lineage.event_types import AttemptFinished, AttemptStarted
from foundry_core.lineage.provenance import collect_provenance
from foundry_core.lineage.records import committed_event
from foundry_core.masking import mask_text
from foundry_core.objects import StoreUnavailable
from foundry_core.store.lease import Lease, LeaseLost
from foundry_core.store.manifest import Artifact
from foundry_core.store.outbox import OutboxEntry, abort, enqueue, enqueue_loss, publish
from foundry_core.store.output import scan_output

# Of a stage that ran for somebody elsewhere: what its processes printed.
LOG = "records/log.txt"
State = Literal["failed", "interrupted", "discarded"]


class Attempt:
    """Builds a job's artifact once. replaced: the intact artifact that stays in service under the
    key until this one is committed."""

    def __init__(self, work: Work, lease: Lease, replaced: Artifact | None) -> None:
        self._work, self._lease, self._replaced = work, lease, replaced
        self._job, self._store, self._events = work.job, work.store, work.events
        self._started = time.monotonic()
        self._loss: OutboxEntry | None = None
        self._usage: Usage | None = None
        self._undeclared: Sequence[str] = ()

    def build(self) -> Outcome:
        """The story of an attempt. Raises StageFailed, Interrupted, LeaseLost or FoundryError; by
        then the attempt is closed as what it came to."""
        self.begin()
        try:
            artifact = self.run()
            entry = self.enqueue(artifact)
            committed = self.commit(artifact)
        except StoreUnavailable:
            # Nobody can be told, and a commit may have happened: the marker of this attempt stays,
            # and whoever comes next tells what became of it.
            shutil.rmtree(self._out, ignore_errors=True)
            raise
        except BaseException as error:
            self.fail(error)
            raise
        self._store.discard(self._job.spec.key, self._name)
        if committed:
            publish(self._events, entry)
            self._forget_loss()
        else:
            abort(self._events, entry)
            artifact = self._store.read(artifact.kind, artifact.key) or artifact
            self.close("discarded", "another attempt was committed first")
        return Outcome(artifact=artifact, action="run", attempt=self._name)

    def begin(self) -> None:
        """Closes what dead workers left, takes folders, and records that the attempt starts."""
        job, spec = self._job, self._job.spec
        close_abandoned(self._work)
        self._name, self._out, scratch = self._store.attempt(spec.key)
        begun = _begun_from(job.input_content_key, self._replaced)
        _keep_scratch_of(scratch, begun)
        checkpoints = self._store.checkpoints(spec.key, begun)
        self._folders = Folders(
            out=self._out,
            scratch=scratch,
            checkpoints=checkpoints,
            store=self._store.uri if checkpoints else "",
        )
        self._provenance = collect_provenance(sys.argv)
        self._events.append(
            AttemptStarted(
                run_id=job.run_id,
                key=spec.key,
                kind=spec.kind,
                stage=spec.name,
                attempt=self._name,
                pid=os.getpid(),
                provenance=self._provenance,
                job_ref=job.job_ref,
            )
        )
        if self._replaced:
            # Perhaps nobody takes this key's lease again: the artifact is there.
            lost = dataclasses.replace(_lost(job, self._name), run_id=job.run_id)
            self._loss = enqueue_loss(self._events, spec.kind, spec.key, lost)

    def run(self) -> Artifact:
        """Runs the stage in a child process; the artifact that it made, not yet committed."""
        extension = Extension(self._work, self._folders)
        with extension.begin() as begin:
            folders = dataclasses.replace(self._folders, begin=begin)
            result = run_child(self._work, self._lease, folders)
        self._usage, self._undeclared = result.usage, result.undeclared_reads
        self._lease.verify()
        if result.error:
            raise self._failure(result.error, result.hint)
        if result.undeclared_reads and self._job.strict_reads:
            raise self._failure(f"it {undeclared(result.undeclared_reads)}", NAME_IT)
        history = extension.history(result.built_on, self._provenance)
        self._keep_log()
        try:
            files = scan_output(self._out)
        except FoundryError as error:
            raise self._failure(error.message, error.hint) from None
        if not files:
            raise self._failure("it wrote no files", "a stage must write to out")
        return self._job.manifest(
            files,
            attempt=self._name,
            metrics=result.metrics,
            provenance={
                **self._provenance,
                BUILT_ON: result.built_on,
                UNDECLARED_READS: result.undeclared_reads,
                **history,
            },
            created=self._events.now(),
            seconds=time.monotonic() - self._started,
        )

    def _keep_log(self) -> None:
        """With what the stage wrote, where somebody waits for it who sees nothing of this disk."""
        log = self._job.log
        if self._job.job_ref and log.is_file() and any(self._out.iterdir()):
            (self._out / LOG).parent.mkdir(exist_ok=True)
            shutil.copyfile(log, self._out / LOG)

    def enqueue(self, artifact: Artifact) -> OutboxEntry:
        """Stores the events of the commit, before it."""
        self._lease.verify()
        event, problems = committed_event(artifact.to_json(), self._out.joinpath)
        said = ""
        if problems:
            said = (
                f"{len(problems)} lines of its records are left out of the lineage: {problems[0]}"
            )
            self._work.observe({"message": said})
            with self._job.log.open("a") as log:
                log.write("\n".join(["foundry: left out of the lineage:", *problems, ""]))
        return enqueue(self._events, artifact, event, self._finished("committed", said))

    def commit(self, artifact: Artifact) -> bool:
        """Publishes the artifact; False when another was committed first."""
        return self._store.commit(
            artifact, self._out, self._lease.verify, replaces=self._replaced is not None
        )

    def fail(self, error: BaseException) -> None:
        """Closes the attempt as what the error makes of it, and removes its files."""
        try:
            if isinstance(error, Interrupted | KeyboardInterrupt):
                self.close("interrupted")
            elif isinstance(error, LeaseLost):
                self.close("discarded", str(error))
            elif isinstance(error, StageFailed):
                self.close("failed", error.error)
            elif isinstance(error, OSError | FoundryError):
                shutil.rmtree(self._out, ignore_errors=True)  # makes room for the event
                self.close("failed", str(error))
        finally:
            self._store.discard(self._job.spec.key, self._name)

    def close(self, state: State, error: str = "") -> None:
        """Records how the attempt ended."""
        self._events.append(self._finished(state, error))
        self._forget_loss()

    def _finished(self, state: State | Literal["committed"], error: str = "") -> AttemptFinished:
        seconds = time.monotonic() - self._started
        return dataclasses.replace(
            _lost(self._job, self._name),
            run_id=self._job.run_id,
            state=state,
            error=error,
            seconds=seconds,
            cpu_seconds=self._usage.cpu_seconds if self._usage else None,
            gpu_seconds=self._job.resources.gpus * seconds,
            peak_memory=self._usage.peak_memory if self._usage else None,
            undeclared_reads=self._undeclared or None,
        )

    def _failure(self, error: str, hint: str) -> StageFailed:
        error = mask_text(error)
        self._store.record_failure(self._job.spec.key, error)
        return StageFailed(self._job.spec.name, error, hint, self._job.log)

    def _forget_loss(self) -> None:
        if self._loss:
            abort(self._events, self._loss)


def close_abandoned(work: Work) -> None:
    """Records and removes what a killed worker left. Its scratch stays: training resumes there."""
    for attempt in work.store.abandoned(work.job.spec.key):
        work.events.append(_lost(work.job, attempt))
        work.store.discard(work.job.spec.key, attempt)


def _lost(job: StageJob, attempt: str) -> AttemptFinished:
    """The end of an attempt whose process died."""
    return AttemptFinished(
        key=job.spec.key,
        attempt=attempt,
        state="lost",
        kind=job.spec.kind,
        stage=job.spec.name,
        error="its process died",
        seconds=0.0,
        gpu_seconds=0.0,
    )


def _begun_from(input_content_key: str, replaced: Artifact | None) -> str:
    """What a scratch must have been begun from: a recipe key may name inputs that were built again
    since and came out otherwise. What was begun to replace an artifact is not what that artifact
    came from."""
    return f"{input_content_key} for {replaced.created}" if replaced else input_content_key


def _keep_scratch_of(scratch: Path, begun: str) -> None:
    """Empties the scratch unless it was begun from the same."""
    mark = scratch.with_name("scratch-of")
    if not (mark.exists() and mark.read_text() == begun):
        shutil.rmtree(scratch)
        scratch.mkdir()
        write_atomic(mark, begun)
