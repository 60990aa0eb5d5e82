"""The process of one attempt: started, observed, ended with all that it started."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry_core.execution.job import Interrupted, Observer, StageJob
from foundry_core.execution.recheck import drop_stale_bytecode, identity_of
from foundry_core.store.base import Store
from foundry_core.store.lease import Lease, LeaseLost

_POLL_SECONDS = 0.1
_TERMINATE_SECONDS = 10.0


def control_folder(out: Path) -> Path:
    """Where parent and child of an attempt exchange job, progress and result."""
    return out.parent / f"control-{out.name}"


def run_child(
    job: StageJob,
    store: Store,
    out: Path,
    scratch: Path,
    observe: Observer,
    lease: Lease,
    cancelled: threading.Event,
) -> dict[str, Any]:
    """The stage's result, or its `error` and `hint`, from a process of its own. Raises Interrupted
    or LeaseLost; the process and what it started are gone when this returns."""
    control = control_folder(out)
    shutil.rmtree(control, ignore_errors=True)
    control.mkdir()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.ExitStack() as reading, job.log.open("ab") as log:
            description = _description(job, store, out, scratch, reading)
            (control / "job.json").write_text(json.dumps(description))
            drop_stale_bytecode(job.spec.functions)
            child = subprocess.Popen(
                [sys.executable, "-m", "foundry_core.execution.child", str(control)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=_environment(job.resources),
                start_new_session=True,
            )
            _wait(child, control, observe, lease, cancelled, job.spec.name)
        return _result(control, child.returncode)
    finally:
        shutil.rmtree(control, ignore_errors=True)


def _description(
    job: StageJob, store: Store, out: Path, scratch: Path, reading: contextlib.ExitStack
) -> dict[str, Any]:
    """job.json. The inputs' folders stay until `reading` is closed."""
    inputs = {
        slot: {
            label: {
                "path": str(reading.enter_context(store.reading(artifact))),
                "stage": job.spec.upstream[slot][label],
                "kind": artifact.kind,
                "key": artifact.key,
                "content": artifact.content,
            }
            for label, artifact in named.items()
        }
        for slot, named in job.inputs.items()
    }
    return {
        "stage": job.spec.name,
        "kind": job.spec.kind,
        "key": job.spec.key,
        "seed": job.spec.seed,
        "identity": identity_of(job.spec),
        "recipe": job.recipe,
        "resources": job.resources,
        "inputs": inputs,
        "out": str(out),
        "scratch": str(scratch),
        "parent": os.getpid(),
    }


def _environment(resources: Mapping[str, Any]) -> dict[str, str]:
    threads = str(resources.get("cpus", 1))
    limits = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **limits}


def _wait(
    child: subprocess.Popen,
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
            seen = _observe(control / "progress.json", seen, observe)
            time.sleep(_POLL_SECONDS)
    finally:
        _stop(child)
    _observe(control / "progress.json", seen, observe)


def _observe(path: Path, seen: str, observe: Observer) -> str:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return seen
    if text != seen:
        observe(json.loads(text))
    return text


def _stop(child: subprocess.Popen) -> None:
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


def _result(control: Path, returncode: int) -> dict[str, Any]:
    try:
        return json.loads((control / "result.json").read_text())
    except FileNotFoundError:
        why = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
        return {
            "error": f"its process ended with {why} and no result",
            "hint": "out of memory? see the stage's log; run again to continue",
        }
