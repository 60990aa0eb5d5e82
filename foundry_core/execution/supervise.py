"""The process of one attempt: started, observed, ended with all that it started."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from foundry_core.execution.control import PROGRESS, ChildResult, Folders, Inputs, write_job
from foundry_core.execution.family import followed, kill_descendants
from foundry_core.execution.job import Interrupted, Observer, Work
from foundry_core.execution.logs import masked_log
from foundry_core.execution.python import python_command
from foundry_core.execution.recheck import drop_stale_bytecode
from foundry_core.pipeline.stage import InputArtifact
from foundry_core.store.lease import Lease, LeaseLost

_POLL_SECONDS = 0.1
_TERMINATE_SECONDS = 10.0


def run_child(work: Work, lease: Lease, folders: Folders) -> ChildResult:
    """What the stage came to in a process of its own. Raises Interrupted or LeaseLost; the process
    and what it started are gone when this returns."""
    out = folders.out
    job, control = work.job, out.parent / f"control-{out.name}"
    shutil.rmtree(control, ignore_errors=True)
    control.mkdir()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.ExitStack() as reading, masked_log(job.log) as log:
            write_job(control, job, _inputs(work, reading), folders)
            drop_stale_bytecode(job.spec.functions)
            child = subprocess.Popen(
                python_command("foundry_core.execution.child", str(control)),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=stage_variables(job.resources.cpus),
                start_new_session=True,
            )
            _wait(child, control / PROGRESS, work, lease)
        return ChildResult.read(control) or _without_result(child.returncode)
    finally:
        shutil.rmtree(control, ignore_errors=True)


def _inputs(work: Work, reading: contextlib.ExitStack) -> Inputs:
    """The inputs' folders, which stay until `reading` is closed."""
    return {
        slot: {
            label: InputArtifact(
                path=reading.enter_context(work.store.reading(artifact)),
                stage=work.job.spec.upstream[slot][label],
                kind=artifact.kind,
                key=artifact.key,
                content=artifact.content,
            )
            for label, artifact in named.items()
        }
        for slot, named in work.job.inputs.items()
    }


def stage_variables(cpus: int) -> dict[str, str]:
    """The environment of a stage's process, which torch must find when it is imported."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(cpus))
    # OpenMP's threads would spin while they wait: beside another job on their core that made a
    # training step fifty times as long.
    waiting = {"OMP_WAIT_POLICY": "PASSIVE"}
    return {**waiting, **os.environ, **threads, "PYTHONUNBUFFERED": "1"}


def _wait(child: subprocess.Popen[bytes], progress: Path, work: Work, lease: Lease) -> None:
    name, seen = work.job.spec.name, ""
    try:
        while child.poll() is None:
            if lease.lost:
                raise LeaseLost(f"stage {name!r} lost its lease while it worked")
            if work.cancelled.is_set():
                raise Interrupted(f"stage {name!r} was cancelled")
            seen = _observe(progress, seen, work.observe)
            time.sleep(_POLL_SECONDS)
    finally:
        _stop(child)
    _observe(progress, seen, work.observe)


def _observe(path: Path, seen: str, observe: Observer) -> str:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return seen
    if text != seen:
        observe(json.loads(text))
    return text


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ends the child and all that it started: first asked, then killed. One that has finished left
    at most processes of its group (foundry_core/execution/child.py)."""
    with followed(child.pid) as send:
        if child.poll() is None:
            send(signal.SIGTERM)
            _signal_group(child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_TERMINATE_SECONDS)
        if child.poll() is None:
            kill_descendants(child.pid)
        send(signal.SIGKILL)
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
