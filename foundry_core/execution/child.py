"""The process in which a stage runs: `python -m foundry_core.execution.child <control folder>`.

Reads job.json, runs the stage, leaves result.json. One process per attempt: a crash, an
out-of-memory kill or a leak in one stage cannot touch another, and kill -9 of the parent takes the
child along.
"""

import ctypes
import dataclasses
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.execution import reads
from foundry_core.execution.control import JOB, PROGRESS, READS, ChildResult, Usage
from foundry_core.execution.elsewhere import StoreElsewhere
from foundry_core.execution.family import adopt_orphans, kill_descendants
from foundry_core.execution.python import check_origins
from foundry_core.execution.recheck import check_unchanged
from foundry_core.files import read_json, write_atomic
from foundry_core.identity import sources
from foundry_core.identity.environment import torch_flags
from foundry_core.parallel import private_ray
from foundry_core.pipeline.drift import stage_environment
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import StageSpec
from foundry_core.pipeline.stage import Begin, InputArtifact, StageContext
from foundry_core.pipeline.trunks import ground_of
from foundry_core.store.disk import full_disk, is_full

_PR_SET_PDEATHSIG = 1
_PROGRESS_SECONDS = 0.5


def die_with_parent(parent: int) -> None:
    """Asks the kernel for SIGKILL when the parent goes (Linux). The parent may be gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


class FileProgress:
    """Progress as a small file that the parent polls; at most two writes a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = 0.0

    def __call__(self, done: float, total: float, message: str = "", **values: float) -> None:
        now = time.monotonic()
        if now - self._last < _PROGRESS_SECONDS and done < total:
            return
        self._last = now
        state = {"done": done, "total": total, "message": message, "values": values}
        write_atomic(self._path, json.dumps(state), durable=False)


def usage() -> Usage:
    """Of this process and its children."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return Usage(cpu_seconds=cpu, peak_memory=max(own.ru_maxrss, children.ru_maxrss) * 1024)


def run_stage(data: Mapping[str, Any], control: Path) -> ChildResult:
    """What comes of the job that job.json describes, run between two looks at its identity. Raises
    FoundryError when this process is not of the parent's packages, or no longer takes the recipe.
    """
    check_origins(data["origins"])
    spec = StageSpec.from_json(data["spec"])
    stage = stage_kind(spec.kind)
    context = StageContext(
        name=spec.name,
        key=spec.key,
        seed=spec.seed,
        recipe=spec.recipe,
        resources=stage.Resources.model_validate(data["resources"]),
        inputs={
            slot: {
                label: InputArtifact(**{**i, "path": Path(i["path"])}) for label, i in at.items()
            }
            for slot, at in data["inputs"].items()
        },
        out=Path(data["out"]),
        scratch=Path(data["scratch"]),
        checkpoints=data["checkpoints"],
        elsewhere=StoreElsewhere.of(data["store"], spec) if data["store"] else None,
        begin=_begin(**data["begin"]) if data["begin"] else None,
        progress=FileProgress(control / PROGRESS),
    )
    declared = [i.path for named in context.inputs.values() for i in named.values()]
    places = [str(path) for path in (context.out, context.scratch, control, *declared)]
    reading = reads.watch(control / READS, places, data["spec"]["recipe"])
    with reading.identifying():
        check_unchanged(stage, spec, "since the run was planned")
    # Before it runs: a stage may set variables for those that it starts.
    environment = stage_environment(stage, spec, context.resources)
    ground = ground_of(environment, spec.code_fingerprint)
    metrics = stage.run(dataclasses.replace(context, ground=ground))
    check_unchanged(stage, spec, "while it ran")
    numerics = {**environment.numerics, **torch_flags()}
    built_on = dataclasses.replace(environment, numerics=numerics)
    return ChildResult(
        metrics=dict(metrics),
        built_on=built_on.to_json(),
        undeclared_reads=reads.found(control / READS, sources.looked_at),
    )


def _begin(path: str, **plain: Any) -> Begin:
    return Begin(path=Path(path), **plain)


def main(control: Path) -> int:
    data = read_json(control / JOB)
    out = Path(data["out"])
    die_with_parent(data["parent"])
    adopt_orphans()
    try:
        result = run_stage(data, control)
    # The boundary of the process: whatever went wrong is reported to the parent.
    except BaseException as error:
        traceback.print_exc()
        result = _failed(error, out)
    # A daemon would go on writing into what is digested now. The group is ended by the parent.
    kill_descendants(os.getpid(), spare_group=os.getpgrp())
    result = dataclasses.replace(result, usage=usage())
    try:
        result.write(control)
    except TypeError as error:
        result = ChildResult(error=f"its metrics are no JSON: {error}", hint="return numbers")
        result.write(control)
    except OSError as error:
        if not is_full(error):
            raise
        result = _failed(error, out)
        shutil.rmtree(out, ignore_errors=True)  # makes room for the result
        result.write(control)
    return 1 if result.error else 0


def _failed(error: BaseException, out: Path) -> ChildResult:
    if not isinstance(error, FoundryError):
        text = f"{type(error).__name__}: {error}"
        error = full_disk(out) if is_full(error) else FoundryError(text, "see the stage's log")
    return ChildResult(error=error.message, hint=error.hint)


if __name__ == "__mp_main__":  # a process of multiprocessing that the stage started
    reads.join()
if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    private_ray()
    sys.exit(main(Path(sys.argv[1])))
