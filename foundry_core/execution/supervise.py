"""The process of one attempt: started, observed, ended with all that it started."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from foundry_core.execution.control import (
    PROGRESS,
    ChildJob,
    ChildResult,
    Inputs,
    control_folder,
)
from foundry_core.execution.job import Interrupted, Observer, StageJob
from foundry_core.execution.python import package_origins, python_command
from foundry_core.execution.recheck import drop_stale_bytecode
from foundry_core.pipeline.stage import InputArtifact, Resources
from foundry_core.store.base import Store
from foundry_core.store.lease import Lease, LeaseLost

_POLL_SECONDS = 0.1
_TERMINATE_SECONDS = 10.0


def run_child(
    job: StageJob,
    store: Store,
    out: Path,
    scratch: Path,
    observe: Observer,
    lease: Lease,
    cancelled: threading.Event,
) -> ChildResult:
    """What the stage came to in a process of its own. Raises Interrupted or LeaseLost; the process
    and what it started are gone when this returns."""
    control = control_folder(out)
    shutil.rmtree(control, ignore_errors=True)
    control.mkdir()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.ExitStack() as reading, job.log.open("ab") as log:
            description = ChildJob(
                spec=job.spec,
                resources=job.resources,
                inputs=_inputs(job, store, reading),
                out=out,
                scratch=scratch,
            )
            description.write(control, package_origins())
            drop_stale_bytecode(job.spec.functions)
            child = subprocess.Popen(
                python_command("foundry_core.execution.child", str(control)),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=_environment(job.resources),
                start_new_session=True,
            )
            _wait(child, control, observe, lease, cancelled, job.spec.name)
        return ChildResult.read(control) or _without_result(child.returncode)
    finally:
        shutil.rmtree(control, ignore_errors=True)


def _inputs(job: StageJob, store: Store, reading: contextlib.ExitStack) -> Inputs:
    """The inputs' folders, which stay until `reading` is closed."""
    return {
        slot: {
            label: InputArtifact(
                path=reading.enter_context(store.reading(artifact)),
                stage=job.spec.upstream[slot][label],
                kind=artifact.kind,
                key=artifact.key,
                content=artifact.content,
            )
            for label, artifact in named.items()
        }
        for slot, named in job.inputs.items()
    }


def _environment(resources: Resources) -> dict[str, str]:
    threads = str(resources.cpus)
    limits = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **limits}


def _wait(
    child: subprocess.Popen[bytes],
    control: Path,
    observe: Observer,
    lease: Lease,
    cancelled: threading.Event,
    name: str,
) -> None:
    seen = ""
    try:
        while child.poll() is None:
            if lease.lost:
                raise LeaseLost(f"stage {name!r} lost its lease while it worked")
            if cancelled.is_set():
                raise Interrupted(f"stage {name!r} was cancelled")
            seen = _observe(control / PROGRESS, seen, observe)
            time.sleep(_POLL_SECONDS)
    finally:
        _stop(child)
    _observe(control / PROGRESS, seen, observe)


def _observe(path: Path, seen: str, observe: Observer) -> str:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return seen
    if text != seen:
        observe(json.loads(text))
    return text


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ends the child's whole session: first asked, then killed. Grandchildren that left a finished
    child behind are killed too."""
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_TERMINATE_SECONDS)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _without_result(returncode: int) -> ChildResult:
    """A process that was killed may have been the kernel's choice; one that exits has said why."""
    if returncode < 0:
        why, hint = f"signal {-returncode}", "out of memory? see the stage's log; run again"
    else:
        why, hint = f"exit code {returncode}", "see the stage's log"
    return ChildResult(error=f"its process ended with {why} and no result", hint=hint)
